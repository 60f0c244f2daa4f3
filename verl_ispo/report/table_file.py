"""A table that ``verl-ispo table`` wrote as CSV, taken as it is."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from verl_ispo.user_error import UserError

MAX_ROWS = 2000
MAX_BYTES = 4_000_000


@dataclass(frozen=True)
class EvaluationTable:
    """Header and rows, all text."""

    source: str
    header: list[str]
    rows: list[list[str]]


def read_table(file: Path) -> EvaluationTable:
    """Read a CSV with a header line.

    Raises:
        UserError: not there, empty, too large, or lines of different lengths.
    """
    if not file.is_file():
        raise UserError(f"--table {file} does not exist; `verl-ispo table` writes one")
    if file.stat().st_size > MAX_BYTES:
        raise UserError(f"--table {file} has more than {MAX_BYTES:,} bytes: is it a table of results?")
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = [row for row in csv.reader(lines) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"--table {file} is not a CSV file: {error}") from error
    if len(rows) < 2:
        raise UserError(f"--table {file} has no rows under a header line")
    if len(rows) > MAX_ROWS:
        raise UserError(f"--table {file} has more than {MAX_ROWS:,} rows: is it a table of results?")
    header = rows[0]
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise UserError(f"--table {file}: row {number} has {len(row)} cells, the header has {len(header)}")
    return EvaluationTable(file.name, header, rows[1:])
