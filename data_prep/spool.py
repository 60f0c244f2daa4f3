"""Problems on disk between two passes, so that memory does not grow with the questions' length."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_prep.schema import Problem
from verl_ispo.answers.ground_truth import GroundTruth

_SCHEMA = pa.schema(
    [
        ("question", pa.string()),
        ("normalized", pa.string()),
        ("text", pa.string()),
        ("answer_type", pa.string()),
        ("multiple_answers", pa.bool_()),
        ("unit", pa.string()),
        ("tolerance", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("kept", pa.string()),
    ]
)


class SpoolWriter:
    """Appends problems to an Arrow file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._writer = pa.ipc.new_file(self._file, _SCHEMA)

    def append(self, problems: Sequence[Problem]) -> None:
        """Writes some problems; they are numbered in the order of writing, from 0."""
        if problems:
            rows = [
                {
                    **vars(p.truth),
                    **{name: getattr(p, name) for name in ("question", "normalized", "file", "row")},
                    "kept": json.dumps(p.kept),
                }
                for p in problems
            ]
            self._writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=_SCHEMA))

    def close(self) -> Spool:
        """Ends writing and opens the file for reading."""
        self._writer.close()
        self._file.close()
        return Spool(self.path)


class Spool:
    """The problems of a `SpoolWriter`, which can be read any number of times, a few thousand in memory at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def batches(
        self, kept: np.ndarray, columns: Sequence[str] | None = None
    ) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
        """Numbers (int64) and rows of those problems for which `kept`, a bool array over all of them, is true."""
        with pa.OSFile(str(self.path)) as file:
            reader = pa.ipc.open_file(file)
            first = 0
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                numbers = first + np.flatnonzero(kept[first : first + batch.num_rows])
                if len(numbers):
                    rows = batch.select(columns) if columns else batch
                    yield numbers, rows.take(pa.array(numbers - first))
                first += batch.num_rows

    def problems(self, kept: np.ndarray) -> Iterator[tuple[np.ndarray, list[Problem]]]:
        """The same as `Problem` objects."""
        for numbers, batch in self.batches(kept):
            yield numbers, [_problem(row) for row in batch.to_pylist()]


class SpooledTexts:
    """Numbers and normalized texts of the kept problems; can be iterated repeatedly."""

    def __init__(self, spool: Spool, kept: np.ndarray) -> None:
        self.spool = spool
        self.kept = kept

    def __iter__(self) -> Iterator[tuple[np.ndarray, pa.Array]]:
        for numbers, batch in self.spool.batches(self.kept, ["normalized"]):
            yield numbers, batch.column(0)


def _problem(row: dict) -> Problem:
    truth = GroundTruth(row["text"], row["multiple_answers"], row["unit"], row["tolerance"], row["answer_type"])
    return Problem(row["question"], row["normalized"], truth, row["file"], row["row"], json.loads(row["kept"]))
