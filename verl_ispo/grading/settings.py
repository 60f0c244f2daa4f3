"""Limits of the grader, from the environment; each can be given to ``compute_score`` instead."""

from __future__ import annotations

import os
from dataclasses import dataclass

TIMEOUT_ENV = "VERL_ISPO_GRADING_TIMEOUT_S"
WORKERS_ENV = "VERL_ISPO_GRADING_WORKERS"
MEMORY_ENV = "VERL_ISPO_GRADING_MEMORY_MB"
ANSWERS_ENV = "VERL_ISPO_GRADING_ANSWERS_PER_WORKER"


@dataclass(frozen=True)
class PoolSettings:
    """How many workers there are, and how long each one lives.

    Args:
        workers (`int`): Symbolic checks at once in this process.
        memory_bytes (`int`): What one worker may allocate beyond what it starts with.
        answers_per_worker (`int`): A worker is replaced after this many answers, since sympy's caches grow.
    """

    workers: int
    memory_bytes: int
    answers_per_worker: int


def _positive(name: str, value: float | str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"{name} is {value!r}; give a number above 0") from None
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} is {value!r}; give a number above 0")
    return number


def time_limit_s(timeout_s: float | None = None) -> float:
    """Time limit of one answer in seconds: the argument, else ``VERL_ISPO_GRADING_TIMEOUT_S``, else 5.

    Raises:
        ValueError: if it is not a number above 0.
    """
    if timeout_s is not None:
        return _positive("timeout_s", timeout_s)
    return _positive(TIMEOUT_ENV, os.environ.get(TIMEOUT_ENV, "5"))


def pool_settings(workers: int | None = None, memory_mb: float | None = None) -> PoolSettings:
    """Settings of the pool: the arguments, else the environment, else 2 workers of 1024 MiB for 1000 answers each.

    Raises:
        ValueError: if one of them is not a number above 0.
    """
    worker_count = _positive("workers", workers) if workers is not None else _environment(WORKERS_ENV, "2")
    memory = _positive("memory_mb", memory_mb) if memory_mb is not None else _environment(MEMORY_ENV, "1024")
    return PoolSettings(
        workers=max(1, int(worker_count)),
        memory_bytes=int(memory * 2**20),
        answers_per_worker=max(1, int(_environment(ANSWERS_ENV, "1000"))),
    )


def _environment(name: str, default: str) -> float:
    return _positive(name, os.environ.get(name, default))
