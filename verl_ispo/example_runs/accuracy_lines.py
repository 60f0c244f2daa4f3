"""A table's averages and comparisons as lines for the screen, read from its scores.csv and comparisons.csv."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from verl_ispo.evaluation.layout_text import p_text
from verl_ispo.evaluation.metrics import parse_metric
from verl_ispo.evaluation.table import AVERAGE

_NAME_WIDTH = 15


def accuracy_lines(table: Path) -> list[str]:
    """Each method's mean over the levels, metric by metric, then the comparisons with the baseline.

    Args:
        table (`Path`): folder of ``verl-ispo table``.
    """
    lines: list[str] = []
    metric = None
    for row in _averages(table / "scores.csv"):
        if row["metric"] != metric:
            metric = row["metric"]
            lines += ["", f"Held-out accuracy in %, mean over levels: {parse_metric(metric).title}"]
        lines.append(f"  {row['method']:<{_NAME_WIDTH}}{_score(row)}")
    for index, row in enumerate(_averages(table / "comparisons.csv")):
        if index == 0:
            columns = "difference in points, 95 % interval, p-value after Holm's correction for all comparisons"
            lines += ["", f"Compared with {row['baseline']} ({columns})"]
        difference = _rounded(row["difference_points"], signed=True)
        p_value = p_text(float(row["p_holm"]))
        interval = _interval(row, "points", signed=True)
        lines.append(f"  {row['method']:<{_NAME_WIDTH}}{row['metric']:<16}{difference:>6} {interval:<16} p = {p_value}")
    return lines


def _averages(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return [row for row in csv.DictReader(lines) if row["benchmark"] == AVERAGE]


def _score(row: Mapping[str, str]) -> str:
    if not row["score_percent"]:
        return row["status"]
    return f"{_rounded(row['score_percent'])} {_interval(row, 'percent')} n={row['problems']}"


def _interval(row: Mapping[str, str], unit: str, signed: bool = False) -> str:
    low, high = row[f"interval_low_{unit}"], row[f"interval_high_{unit}"]
    if not low:
        return "[no interval]"
    return f"[{_rounded(low, signed)}, {_rounded(high, signed)}]"


def _rounded(field: str, signed: bool = False) -> str:
    """A field with one decimal, ties away from zero; no sign before a zero."""
    number = Decimal(field).quantize(Decimal("0.1"), ROUND_HALF_UP)
    if not number:
        return "0.0"
    return f"{number:+}" if signed else f"{number}"
