"""Rows of all parts of a source, read from the chosen columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from data_prep.columns import ColumnChoice, choice_line, choose_columns, holds_row_numbers, question_text
from data_prep.sources import SourcePart
from verl_ispo.user_error import UserError

# Longer than any problem a person wrote, and far over every prompt limit. (Ours.)
MAX_QUESTION_CHARS = 32_768


@dataclass(frozen=True)
class ColumnOptions:
    """Column names that the user gave; `None` where the usual names are tried."""

    question: str | None = None
    answer: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Row:
    """One row as read: its file and number, and the cells of question, answer, id and the requested extra columns."""

    file: str
    number: int
    question: Any
    answer: Any
    id: Any
    extras: dict[str, Any]


@dataclass(frozen=True)
class ChosenPart:
    """A part of the source and the columns to read from it."""

    part: SourcePart
    columns: ColumnChoice
    extras: list[str]

    @property
    def from_solution(self) -> bool:
        """Whether the answer has to be extracted from a worked solution."""
        return self.columns.answer.lower().endswith(("solution", "conversations"))

    def line(self) -> str:
        """What is taken from this part, for people."""
        return choice_line(self.part.label, self.columns, self.from_solution, self.extras)

    def identity(self) -> dict[str, Any]:
        """What the data card says about this input."""
        return {**self.part.identity, "columns": dict(vars(self.columns))}


def choose_parts(
    parts: Sequence[SourcePart],
    options: ColumnOptions,
    extra_columns: Sequence[str] = (),
    kept_columns: Sequence[str] = (),
) -> list[ChosenPart]:
    """Chooses the columns of every part before the first row is read.

    Raises:
        UserError: if a part lacks a column, one of ``kept_columns`` among them; ``extra_columns`` may be missing.
    """
    for part in parts:
        missing = [name for name in kept_columns if name not in part.names]
        if missing:
            raise UserError(
                f"{part.label}: no column {', '.join(missing)} to keep (--keep_columns); it has {', '.join(part.names)}"
            )
    return [
        ChosenPart(
            part,
            choose_columns(part.names, part.label, options.question, options.answer, options.id),
            [name for name in dict.fromkeys([*extra_columns, *kept_columns]) if name in part.names],
        )
        for part in parts
    ]


def read_rows(chosen: ChosenPart, progress: tqdm) -> Iterator[list[Row]]:
    """Batches of rows of one part.

    Raises:
        UserError: if the part has no rows.
    """
    columns = chosen.columns
    optional = [path for path in (columns.id, columns.fallback) if path]
    paths = [columns.question, columns.answer, *optional, *chosen.extras]
    rows_read = 0
    for batch in chosen.part.read(paths):
        questions, answers, *others = batch.columns
        ids = others.pop(0) if columns.id else [None] * len(batch)
        if holds_row_numbers(columns.id):
            ids = [None if re.fullmatch(r"\d+(?:\.0)?", str(value)) else value for value in ids]
        if columns.fallback:
            pairs = zip(questions, others.pop(0), strict=True)
            questions = [question if question_text(question) else second for question, second in pairs]
        extras = zip(*others, strict=True) if others else ((),) * len(batch)
        yield [
            Row(chosen.part.label, number, question, answer, row_id, dict(zip(chosen.extras, values, strict=True)))
            for number, (question, answer, row_id, values) in enumerate(
                zip(questions, answers, ids, extras, strict=True), start=batch.first_row
            )
        ]
        rows_read += len(batch)
        progress.update(len(batch))
    if not rows_read:
        raise UserError(f"{chosen.part.label}: holds no rows")


def kept_texts(row: Row, column: str) -> list[str]:
    """The texts of a cell that is kept: a text, texts, or chat messages, whose contents are taken; empty for no cell.

    Raises:
        UserError: the cell is something else.
    """
    cell = row.extras[column]
    parts = [] if cell is None else cell if isinstance(cell, list) else [cell]
    texts = [part.get("content") if isinstance(part, dict) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(
            f"{row.file}, row {row.number}: column {column} holds {str(cell)[:80]!r}, which is neither a text nor a "
            "list of texts or chat messages; leave it out of --keep_columns"
        )
    return texts


def reading_progress(parts: Sequence[SourcePart]) -> tqdm:
    """A bar over all rows of `parts`; shown on terminals only."""
    known = [part.rows for part in parts]
    total = sum(known) if all(rows is not None for rows in known) else None
    return tqdm(total=total, desc="reading", unit="row", unit_scale=True, disable=None)
