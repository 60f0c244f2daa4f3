"""A replay buffer that notices the death of a worker it waits for.

verl's replay buffer polls for finished rollouts, and nothing in that loop asks whether the actors that make them are
alive: a prompt whose agent-loop worker has died stays "running", and the trainer waits for it forever
(https://github.com/verl-project/verl/issues/7155 is of that kind).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, RayError
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from verl_ispo.trainer.budget import CountingReplayBuffer

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

# Seconds between two looks at the workers.
LOOK_INTERVAL_S = 5.0


class DeadWorkerError(RuntimeError):
    """An actor has died that the trainer waits for."""


class WorkerWatch:
    """Asks actors now and then whether they are alive, without waiting for the answer.

    A busy actor answers late and a network may fail for a while; only Ray's word that an actor is dead counts.

    Args:
        actors (`Callable`): returns the actors to watch, by the name that an error gives them.
        interval_s (`float`, *optional*): seconds between two looks.
        meaning (`str`, *optional*): what a death means, after "died" in the error.
    """

    def __init__(
        self,
        actors: Callable[[], Mapping[str, ActorHandle]],
        interval_s: float = LOOK_INTERVAL_S,
        meaning: str = "while the trainer waited for rollouts, which will not come",
    ) -> None:
        self._actors = actors
        self._meaning = meaning
        self._interval_s = interval_s
        self._last_look_s = 0.0
        self._asked: dict[str, ray.ObjectRef] = {}

    def look(self) -> None:
        """Read the answers that have come and ask again.

        Raises:
            DeadWorkerError: an actor is dead.
        """
        if time.monotonic() - self._last_look_s < self._interval_s:
            return
        self._last_look_s = time.monotonic()
        for name, actor in self._actors().items():
            answer = self._asked.get(name)
            if answer is not None:
                if not ray.wait([answer], timeout=0)[0]:
                    continue
                self._read(name, answer)
            self._asked[name] = actor.__ray_ready__.remote()

    def _read(self, name: str, answer: ray.ObjectRef) -> None:
        try:
            ray.get(answer)
        except ActorDiedError as error:
            raise DeadWorkerError(f"{name} died {self._meaning}: {error}") from error
        except RayError as error:
            logger.warning(f"{name} cannot be reached at the moment: {error}")


class WatchfulReplayBuffer(CountingReplayBuffer):
    """verl's synchronous replay buffer with a `WorkerWatch`."""

    watch: WorkerWatch

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        self.watch.look()
        return super()._wait_for_next_poll(partition_id, last_debug_time)


class WatchfulReplayBufferAsync(CountingReplayBuffer, ReplayBufferAsync):
    """verl's asynchronous replay buffer with a `WorkerWatch`."""

    watch: WorkerWatch

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        self.watch.look()
        return super()._wait_for_next_poll(partition_id, last_debug_time)


def watchful(buffer: ReplayBuffer, watch: WorkerWatch) -> ReplayBuffer:
    """The buffer with everything it holds, and the watch; a user's own kind of buffer is returned unchanged."""
    kinds = {ReplayBuffer: WatchfulReplayBuffer, ReplayBufferAsync: WatchfulReplayBufferAsync}
    if type(buffer) not in kinds:
        return buffer
    # verl names the class that it builds, so the state of the buffer that it built is moved over.
    watched = kinds[type(buffer)].__new__(kinds[type(buffer)])
    vars(watched).update(vars(buffer))
    watched.watch = watch
    return watched
