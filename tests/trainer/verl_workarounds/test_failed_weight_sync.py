"""The watch over weight syncs, on stand-ins for vLLM's servers in a small Ray, and real sockets for verl's senders.

Derivation: verl's sender binds its socket after it has asked the engine to receive and removes it at its end
(``BucketedWeightSender``); the engine takes one call at a time. What goes wrong in general: a failure that is not seen
hangs a training, and a slow transfer that is taken for a failure ends a good one. That a real engine's failure ends a
real training is in tests/vllm/test_failed_sync.py. Not exercised: replicas over several nodes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from verl_ispo.trainer.verl_workarounds.failed_weight_sync import SOCKETS, WeightSyncError, WeightSyncWatch

# of no real replica
REPLICA_RANK = 1_000_000 + os.getpid()
LOOKS = 12


@ray.remote(num_cpus=0)
class Server:
    """As vLLM's server: it answers while its engine is busy; ``update_weights_from_ipc`` keeps the engine busy."""

    def __init__(self, replica_rank: int) -> None:
        self.replica_rank = replica_rank
        self.engine = asyncio.Lock()
        self.received = asyncio.Event()

    async def collective_rpc(self, method: str) -> None:
        async with self.engine:
            if method == "update_weights_from_ipc":
                await self.received.wait()

    async def finish(self) -> None:
        self.received.set()

    async def answer(self) -> None:
        """To a caller whose earlier calls have been begun by then."""


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield Server.remote(REPLICA_RANK)
    ray.shutdown()


def socket_path(job_id: str = "0") -> Path:
    return Path(SOCKETS.format(job_id=job_id, replica_rank=REPLICA_RANK).replace("*", "0"))


@contextmanager
def transfer(job_id: str = "0") -> Iterator[None]:
    """A sender's socket, open; the servers here have no job, which verl calls 0."""
    path = socket_path(job_id)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as sender:
        sender.bind(str(path))
        sender.listen()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def look(watch: WeightSyncWatch, server: Any, times: int = LOOKS) -> None:
    """Looks of which each finds the answers to the one before."""
    for _ in range(times):
        watch.look()
        with suppress(RayActorError):
            ray.get(server.answer.remote())
        time.sleep(0.05)


@pytest.fixture
def watch(server: Any) -> WeightSyncWatch:
    return WeightSyncWatch(lambda: {"rollout engine 0": [server]})


def test_a_transfer_that_the_engine_has_given_up_is_an_error(watch: WeightSyncWatch, server: Any) -> None:
    with transfer(), pytest.raises(WeightSyncError, match=r"rollout engine 0 has failed.*-rank-0\.sock is still open"):
        look(watch, server)


def test_a_long_transfer_is_none(watch: WeightSyncWatch, server: Any) -> None:
    with transfer():
        receiving = server.collective_rpc.remote("update_weights_from_ipc")
        look(watch, server)
        ray.get(server.finish.remote())
    ray.get(receiving)
    look(watch, server)


def test_many_transfers_one_after_another_are_none(watch: WeightSyncWatch, server: Any) -> None:
    for _ in range(LOOKS):
        with transfer():
            look(watch, server, times=2)


def test_another_trainings_transfer_is_none(watch: WeightSyncWatch, server: Any) -> None:
    """On the same machine, in the same Ray, to a replica of the same rank; its engine is another one."""
    with transfer("05000000"):
        look(watch, server)


def test_a_file_that_a_killed_training_has_left_is_none(watch: WeightSyncWatch, server: Any) -> None:
    with transfer():
        os.link(socket_path(), left := socket_path().with_suffix(".left"))
    os.rename(left, socket_path())
    try:
        look(watch, server)
    finally:
        socket_path().unlink()


def test_a_dead_server_is_for_other_watches(server: Any) -> None:
    dies = Server.remote(REPLICA_RANK)
    watching = WeightSyncWatch(lambda: {"rollout engine 0": [dies]})
    with transfer():
        look(watching, dies, times=2)
        ray.kill(dies)
        look(watching, dies)
