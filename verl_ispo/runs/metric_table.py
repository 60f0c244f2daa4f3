"""Read what verl's ``file`` logger wrote for a run, over all attempts at it.

The logger writes one JSON object per line, ``{"step": n, "data": {metric: value}}``, and opens its file anew, so a run
that was resumed has one file for each attempt. A file may end in the middle of a line (the run was killed), and a value
may be null (a NaN that was logged).
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

LOG_PATTERN = "metrics*.jsonl"


def attempt_order(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that reads the numbers in a name as numbers: metrics.jsonl, metrics.2.jsonl, metrics.10.jsonl."""
    parts = re.split(r"(\d+)", path.name.removesuffix(".jsonl"))
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def as_finite(value: Any) -> float:
    """A number as a float; anything that is not a finite number is NaN, which means "not known" from here on."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return math.nan
    return float(value)


def read_attempt(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Read the lines of one file as (step, metrics). A broken last line is a kill; any other one draws a warning."""
    lines = path.read_bytes().split(b"\n")
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            entries.append((int(entry["step"]), {str(key): as_finite(value) for key, value in entry["data"].items()}))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if number < len(lines):
                warnings.warn(f"{path}, line {number}, is not a log entry and was skipped ({error})", stacklevel=2)
    return entries


def read_run(folder: Path) -> pd.DataFrame:
    """Read a run's log.

    Args:
        folder (`Path`): holds one ``metrics*.jsonl`` for each attempt; where two attempts logged the same metric of the
            same step, the later one counts.

    Returns:
        `pd.DataFrame`: float64, one row a step in ascending order, one column a metric, NaN where nothing is known.

    Raises:
        FileNotFoundError: if there is no log, or none with an entry in it.
    """
    paths = sorted(folder.glob(LOG_PATTERN), key=attempt_order)
    steps: dict[int, dict[str, float]] = {}
    for path in paths:
        for step, metrics in read_attempt(path):
            steps.setdefault(step, {}).update(metrics)
    if not steps:
        found = f"{len(paths)} of them, without an entry" if paths else "none"
        raise FileNotFoundError(
            f"{folder}: no log of a run was found ({LOG_PATTERN}: {found}). Train with trainer.logger=[console,file] "
            f"and VERL_FILE_LOGGER_PATH={folder}/metrics.jsonl"
        )
    return pd.DataFrame.from_dict(steps, orient="index", dtype="float64").sort_index().rename_axis("step")


def metric(run: pd.DataFrame, name: str) -> pd.Series:
    """One metric by step without its gaps; empty if the run never logged it."""
    return run[name].dropna() if name in run else pd.Series(dtype="float64")


def metric_names(runs: Sequence[pd.DataFrame], pattern: re.Pattern[str]) -> list[str]:
    """Names of the metrics of any run that match a pattern in full, sorted."""
    return sorted({name for run in runs for name in run.columns if pattern.fullmatch(name)})
