"""The watch over the workers while the trainer waits for rollouts, on actors of a small Ray of its own.

Derivation: verl's poll loop calls `_wait_for_next_poll` until enough rollouts are there. That a training ends when such
an actor dies is in tests/training/test_launcher.py. Not exercised: networks that fail for a while.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import ray
from omegaconf import OmegaConf
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from verl_ispo.trainer.verl_workarounds.dead_queue import actors_of_queue, watch_queue
from verl_ispo.trainer.verl_workarounds.dead_workers import DeadWorkerError, WorkerWatch, watchful


@ray.remote(num_cpus=0)
class Worker:
    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@pytest.fixture(scope="module")
def small_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def buffer(kind: type[ReplayBuffer]) -> ReplayBuffer:
    return kind("sync", OmegaConf.create({}), None, "drop", OmegaConf.create({}), poll_interval=0.05)


def polls(waiting: ReplayBuffer, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        waiting._wait_for_next_poll("train", time.time())


@pytest.mark.parametrize("kind", [ReplayBuffer, ReplayBufferAsync])
def test_a_dead_worker_ends_the_wait_and_a_busy_one_does_not(kind: type[ReplayBuffer], small_ray: None) -> None:
    idle, busy = Worker.remote(), Worker.remote()
    ray.get([idle.sleep.remote(0), busy.sleep.remote(0)])
    busy.sleep.remote(600)
    waiting = watchful(buffer(kind), WorkerWatch(lambda: {"worker 0": idle, "worker 1": busy}, interval_s=0.1))
    polls(waiting, seconds=1.0)
    ray.kill(busy)
    with pytest.raises(DeadWorkerError, match="worker 1 died while the trainer waited"):
        polls(waiting, seconds=60.0)


def test_a_dead_queue_is_noticed_without_a_poll(small_ray: None) -> None:
    """The queue's client waits in the middle of a step, where nobody asks the watch."""
    alive, dies = Worker.remote(), Worker.remote()
    ray.get([alive.sleep.remote(0), dies.sleep.remote(0)])
    errors: list[DeadWorkerError] = []
    watching = watch_queue(lambda: {"storage unit 0": alive, "controller": dies}, errors.append, interval_s=0.1)
    watching.join(timeout=1.0)
    assert not errors
    ray.kill(dies)
    watching.join(timeout=60.0)
    assert str(errors[0]).startswith("controller died and the trainer would wait for it forever: ")


def test_a_process_without_a_queue_has_nothing_to_watch() -> None:
    assert actors_of_queue() == {}


def test_the_buffer_stays_what_it_was() -> None:
    built = buffer(ReplayBufferAsync)
    watched = watchful(built, WorkerWatch(dict))
    assert isinstance(watched, ReplayBufferAsync)
    assert vars(built).items() <= vars(watched).items()

    class OfTheUser(ReplayBuffer):
        pass

    sampler = buffer(OfTheUser)
    assert watchful(sampler, WorkerWatch(dict)) is sampler
