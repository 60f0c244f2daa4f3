"""A table on request: its text for the layouts, its numbers for a CSV file, its lines for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Curve:
    """One line of a chart: ``y`` over ``x``, which ascends."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        title: above it, such as the benchmark's name.
        x_label, y_label: of the axes.
        doubling: whether each tick of x is twice the one before.
        curves: one for each method.
    """

    title: str
    x_label: str
    y_label: str
    doubling: bool
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class DocumentPart:
    """A table on request.

    Attributes:
        name: of its files, without ending.
        title: heading.
        reading: how to read it, and what to beware of.
        columns, rows: as text.
        csv_columns, csv_rows: as numbers, `None` where nothing is known.
        charts: drawn into one picture; may be empty.
    """

    name: str
    title: str
    reading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    csv_columns: Sequence[str]
    csv_rows: Sequence[Sequence[Any]]
    charts: Sequence[Chart] = ()
