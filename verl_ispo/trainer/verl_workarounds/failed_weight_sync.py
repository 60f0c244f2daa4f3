"""Ends the trainer's process when vLLM could not load the weights that verl sends it.

verl's sender waits without a limit for the engine's answer to each bucket of weights
(``verl.workers.rollout.vllm_rollout.bucketed_weight_transfer``). An engine that fails in the middle never answers, and
its error waits in a future that the sender reads after the answer, so the training would wait forever
(https://github.com/verl-project/verl/pull/7366 would tell the sender).

What can be seen from outside: the sender's socket stays open, and the engine, which takes calls one after another, is
free for others. Both together last only where the engine has given up.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from verl_ispo.trainer.verl_workarounds.background_watch import watch_in_background

SOCKETS = "/tmp/rl-colocate-zmq-{job_id}-replica-{replica_rank}-rank-*.sock"
"""Of verl's senders, on the nodes of a replica; other trainings on these nodes have other jobs of Ray."""
LISTENING = "00010000"
"""Flags of a socket that others connect to, in Linux's list."""
# Answers of the engine during one transfer. The sender asks the engine to receive before it opens its socket, so one
# answer is enough unless a call was overtaken on its way.
ANSWERS_THAT_SHOW_A_FAILURE = 2


class WeightSyncError(RuntimeError):
    """The engine has given up on weights that a worker of the trainer is still sending."""


def open_transfers(server: Any) -> frozenset[tuple[str, str]]:
    """Sockets of senders to this server's replica on this node: path, and number of the open socket.

    A file alone may be left from a training that was killed; Linux lists the sockets that a process has open.

    Args:
        server (`vLLMHttpServer`): inside its process.
    """
    job_id = os.environ.get("VERL_RAY_JOB_ID", "0")  # verl sets it in the server's process, with this default
    paths = set(glob.glob(SOCKETS.format(job_id=job_id, replica_rank=server.replica_rank)))
    sockets = Path("/proc/net/unix")
    if not paths or not sockets.exists():
        return frozenset()
    fields = [line.split() for line in sockets.read_text(errors="replace").splitlines()]
    return frozenset(
        (words[7], words[6]) for words in fields if len(words) == 8 and words[7] in paths and words[3] == LISTENING
    )


@dataclass
class _Replica:
    """What is known of one replica.

    Attributes:
        asked: answers to come, of each server: its open transfers.
        transfers: open at the last look.
        engine: answer to come, to a call of the engine in these transfers.
        answers: calls that the engine has answered in them.
    """

    asked: list[ray.ObjectRef] = field(default_factory=list)
    transfers: frozenset[tuple[str, str]] = frozenset()
    engine: ray.ObjectRef | None = None
    answers: int = 0


class WeightSyncWatch:
    """Looks now and then for transfers of weights whose receiver has given up, without waiting for an answer.

    Args:
        replicas (`Callable`): returns the servers of each vLLM replica, the one with the engine first, by the name that
            an error gives the replica.
    """

    def __init__(self, replicas: Callable[[], Mapping[str, Sequence[ActorHandle]]]) -> None:
        self._replicas = replicas
        self._known: dict[str, _Replica] = {}

    def look(self) -> None:
        """Read the answers that have come and ask again.

        Raises:
            WeightSyncError: an engine has failed in a transfer.
        """
        for name, servers in self._replicas().items():
            known = self._known.setdefault(name, _Replica())
            if known.asked and ray.wait(known.asked, num_returns=len(known.asked), timeout=0)[1]:
                continue
            try:
                self._read(name, known, servers[0])
            except RayError:
                # a server that has died is for the other watches, and a network may fail for a while
                self._known[name] = known = _Replica()
            known.asked = [server.__ray_call__.remote(open_transfers) for server in servers]

    def _read(self, name: str, known: _Replica, engine: ActorHandle) -> None:
        transfers = frozenset().union(*ray.get(known.asked))
        if not transfers or transfers.isdisjoint(known.transfers):
            known.transfers, known.engine, known.answers = transfers, None, 0
            return
        known.transfers &= transfers
        if known.answers >= ANSWERS_THAT_SHOW_A_FAILURE:
            raise WeightSyncError(
                f"{name} has failed to load the weights that the trainer sends it, and the trainer would wait for it "
                f"forever ({', '.join(sorted(path for path, _ in known.transfers))} is still open); the engine's own "
                "error is further up in this log, as an exception in update_weights_from_ipc"
            )
        if known.engine is None:
            known.engine = engine.collective_rpc.remote("check_health")
        elif ray.wait([known.engine], timeout=0)[0]:
            known.answers += 1
            known.engine = None


def watch_weight_syncs(replicas: Callable[[], Mapping[str, Sequence[ActorHandle]]]) -> None:
    """Start a `WeightSyncWatch` that ends this process when it sees a failure."""
    watch_in_background(WeightSyncWatch(replicas).look, "watch over weight syncs", (WeightSyncError,))
