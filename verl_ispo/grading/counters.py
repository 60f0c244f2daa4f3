"""Counters: which path decided the answers of this process, how they came out, and how long it took."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import Any

from .worker_pool import pool_counters

logger = logging.getLogger(__name__)

PATHS = ("exact", "symbolic", "no_answer")
STATUSES = ("correct", "wrong", "no_answer", "timeout", "error")

_LOG_EVERY_S = 10.0

_lock = threading.Lock()
_paths: Counter[str] = Counter()
_statuses: Counter[str] = Counter()
_seconds: Counter[str] = Counter()
_last_logged_s = float("-inf")
_not_logged = 0


def count_answer(path: str, status: str, elapsed_s: float) -> None:
    """Count one graded answer. ``elapsed_s`` of the symbolic path includes the wait for a free worker."""
    with _lock:
        _paths[path] += 1
        _statuses[status] += 1
        _seconds[path] += elapsed_s


def log_undecided(status: str, reason: str, data_source: Any, answer: str) -> None:
    """Log a timeout or an error, at most once in ten seconds; the next line counts those left out."""
    global _last_logged_s, _not_logged
    with _lock:
        now = time.monotonic()
        if now - _last_logged_s < _LOG_EVERY_S:
            _not_logged += 1
            return
        _last_logged_s, skipped, _not_logged = now, _not_logged, 0
    more = f" ({skipped} more since the last line)" if skipped else ""
    logger.warning("grading: %s for an answer of %r: %s; answer %r%s", status, data_source, reason, answer[:200], more)


def grading_stats(reset: bool = False) -> dict[str, Any]:
    """Counters of this process since it started, or since the last reset.

    Args:
        reset (`bool`, *optional*, defaults to `False`): Set the counters of answers to zero after reading.

    Returns:
        `dict`: ``answers`` (number graded), ``paths`` and ``statuses`` (number by path and by status), ``seconds``
        (time by path, summed over threads) and ``workers`` (servers and workers started, recycled, timed out, crashed).
    """
    with _lock:
        stats = {
            "answers": sum(_paths.values()),
            "paths": {path: _paths[path] for path in PATHS},
            "statuses": {status: _statuses[status] for status in STATUSES},
            "seconds": {path: float(_seconds[path]) for path in PATHS},
        }
        if reset:
            for counter in (_paths, _statuses, _seconds):
                counter.clear()
    return {**stats, "workers": pool_counters()}
