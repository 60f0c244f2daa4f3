"""When the CPU server may wait for all rollouts of a step, and how it is told their number."""

from __future__ import annotations

from typing import Any

ASKED_TOGETHER = "asked_together"
"""Column of a batch of prompts, and sampling parameter: an id of the call, and the number of its requests."""


def samples_in_one_batch(config: Any) -> bool:
    """Whether all requests of a call reach one server and nothing interrupts it: one worker, a synchronous mode."""
    workers = config.trainer.nnodes * config.trainer.n_gpus_per_node
    return workers == 1 and config.trainer.v1.trainer_mode in ("sync", "ispo_sync")
