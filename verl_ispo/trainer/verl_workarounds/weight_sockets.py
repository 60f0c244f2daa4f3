"""Refuses a second training whose weights would go through the first one's sockets.

verl sends weights to vLLM through sockets in ``/tmp`` that are named by Ray's job id, replica and rank. The id counts
the jobs of one cluster, so the first training of every cluster has the same one. Two trainings on one machine that have
each started a cluster of their own (on other GPUs, or together on one) then open the same sockets: an engine waits for
minutes, or takes the weights of the other training, and nothing but ``training/rollout_probs_diff_max`` says so. It was
seen with five trainings on one GPU. (verl put the job id into the name for jobs of one cluster,
https://github.com/verl-project/verl/issues/6233.)

The lock is taken on the driver's machine. Two trainings that share other machines alone are not seen.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from verl_ispo.process_lock import take_lock

FOLDER = Path("/tmp")
"""Of verl's sockets, whatever TMPDIR says."""


def take_weight_sockets(job_id: str) -> AbstractContextManager[object]:
    """Hold the sockets of a job id until this process ends or the returned context is left.

    Another user's training has a lock of its own: verl cannot replace another user's socket and says so.

    Args:
        job_id (`str`): Ray's.

    Raises:
        UserError: another training on this machine has the same id.
    """
    return take_lock(
        FOLDER / f"verl_ispo-weights-{os.getuid()}-{job_id}.lock",
        FOLDER / f"rl-colocate-zmq-{job_id}-*.sock",
        "training on this machine with a Ray cluster of its own, and verl would mix the weights of the two",
        "let both use one cluster (ray start --head, and RAY_ADDRESS=host:port for each), or give each a container "
        "with its own /tmp",
    )
