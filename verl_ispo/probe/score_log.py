"""Scores of rows on disk, found again by what was scored, so that a second start does not score a row again.

A line is one row: ``key`` (a digest of model, precision, temperature, head and tail), ``log_prob`` and ``entropy`` (one
value per token of the tail).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from verl_ispo.atomic_file import sync_folder
from verl_ispo.probe.scored_rows import Row, RowScores

DECIMALS = 6


def row_key(row: Row, scored_by: Mapping[str, object]) -> str:
    """What identifies a row's scores: the row, and everything that decides its scores."""
    text = json.dumps([dict(scored_by), row.head, row.tail], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class ScoreLog:
    """The append-only log of scored rows; a line that cannot be read is left out, and its row is scored again.

    Args:
        path (`Path`): made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._scores: dict[str, RowScores] = {}
        self._file = path.open("a+b")
        sync_folder(path.parent)
        self._file.seek(0)
        end = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                self._file.truncate(end)  # a kill has cut it off
                break
            end += len(line)
            try:
                record = json.loads(line)
                scores = RowScores(tuple(map(float, record["log_prob"])), tuple(map(float, record["entropy"])))
                self._scores[str(record["key"])] = scores
            except (ValueError, KeyError, TypeError):
                continue

    def get(self, key: str) -> RowScores | None:
        """The scores under a key, `None` where there are none."""
        return self._scores.get(key)

    def append(self, scored: Sequence[tuple[str, RowScores]]) -> None:
        """Add rows; they are on the disk when this returns."""
        rounded = [
            (key, RowScores(*(tuple(round(value, DECIMALS) for value in part) for part in (one.log_prob, one.entropy))))
            for key, one in scored
        ]
        records = ({"key": key, "log_prob": one.log_prob, "entropy": one.entropy} for key, one in rounded)
        self._file.write(b"".join((json.dumps(record) + "\n").encode("ascii") for record in records))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._scores.update(rounded)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
