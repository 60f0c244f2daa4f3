"""verl's metrics of one run, step by step, from its ``file`` logger or from tensorboard event files.

The ``file`` logger writes one JSON object per line, ``{"step": n, "data": {metric: value}}``, and overwrites its
file at every start, so a run that was resumed has one file for each attempt. A file may end in the middle of a line
(the run was killed), and a value may be null (a NaN that was logged).
"""

from __future__ import annotations

import json
import logging
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from verl_ispo.user_error import UserError

if TYPE_CHECKING:
    import pandas as pd

ATTEMPT_PATTERN = "metrics*.jsonl"
EVENT_FILE_PATTERN = "*events.out.tfevents.*"
_HOW_TO_LOG = "Train with trainer.logger=[console,file] and VERL_FILE_LOGGER_PATH=RUN/metrics.1.jsonl."


@dataclass(frozen=True)
class MetricLog:
    """Metrics by step.

    Attributes:
        steps: step to metric to value, ascending; NaN where the logged value is not a finite number.
        sources: the files read, in order.
        gaps: sentences on what could not be read, for people.
        damage: those of ``gaps`` that are due to neither a kill nor a new attempt.
    """

    steps: Mapping[int, Mapping[str, float]]
    sources: tuple[Path, ...]
    gaps: tuple[str, ...]
    damage: tuple[str, ...] = ()

    @property
    def training_steps(self) -> list[int]:
        """Steps that trained; steps that only validated are left out."""
        return [step for step, metrics in self.steps.items() if any(not name.startswith("val-") for name in metrics)]

    def names(self) -> list[str]:
        """All metrics that some step has, sorted."""
        return sorted({name for metrics in self.steps.values() for name in metrics})

    def series(self, name: str, sparse: bool = False) -> tuple[list[int], list[float]]:
        """Steps and values of one metric.

        Args:
            name (`str`).
            sparse (`bool`, *optional*, defaults to `False`): `True` leaves out the steps without the metric, as for a
                validation every tenth step; `False` gives NaN there, since such a step had no defined value.
        """
        logged = [step for step, metrics in self.steps.items() if name in metrics]
        steps = logged if sparse else self.training_steps
        values = [self.steps[step].get(name, math.nan) for step in steps]
        return (steps, values) if any(name in self.steps[step] for step in steps) else ([], [])


def read_metric_log(path: Path) -> MetricLog:
    """Metrics of a run folder, or of one ``.jsonl`` file.

    A folder's ``metrics*.jsonl`` are the attempts of one run in natural order (verl's logger overwrites its file, so
    each attempt needs its own); where two have the same step, the values of the later one count. Without such files
    the folder's tensorboard event files are read.

    Raises:
        UserError: nothing to read, or a file that is not a metrics log.
    """
    if path.is_file():
        return _read_jsonl([path])
    if not path.is_dir():
        raise UserError(f"{path} does not exist: give the folder of a run, or verl's metrics .jsonl file")
    attempts = sorted(path.glob(ATTEMPT_PATTERN), key=lambda file: natural_order(file.name))
    if attempts:
        return _read_jsonl(attempts)
    event_files = sorted(path.rglob(EVENT_FILE_PATTERN))
    if event_files:
        return _read_tensorboard(event_files)
    others = sorted(file.name for file in path.glob("*.jsonl"))[:5]
    raise UserError(
        f"{path} has no {ATTEMPT_PATTERN} and no tensorboard event files"
        + (f"; it has {', '.join(others)}: give one of these files itself if it is verl's log" if others else "")
        + f". {_HOW_TO_LOG}"
    )


def read_metric_table(path: Path) -> pd.DataFrame:
    """The same log as a table, with a warning if it is damaged.

    Returns:
        `pd.DataFrame`: float64, one row per step in ascending order, one column per metric, NaN where nothing is known.

    Raises:
        UserError: as `read_metric_log`.
    """
    import pandas as pd

    log = read_metric_log(path)
    for sentence in log.damage:
        warnings.warn(f"{path}: {sentence}", stacklevel=2)
    return pd.DataFrame.from_dict(log.steps, orient="index", dtype="float64").sort_index().rename_axis("step")


def metric(table: pd.DataFrame, name: str) -> pd.Series:
    """One metric by step without its gaps; empty if the run never logged it."""
    import pandas as pd

    return table[name].dropna() if name in table else pd.Series(dtype="float64")


def metric_names(tables: Sequence[pd.DataFrame], pattern: re.Pattern[str]) -> list[str]:
    """Names of the metrics of any table that match a pattern in full, sorted."""
    return sorted({name for table in tables for name in table.columns if pattern.fullmatch(name)})


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """Sort key of attempts: ``metrics.jsonl`` first, and ``metrics.10.jsonl`` after ``metrics.9.jsonl``."""
    parts = re.split(r"(\d+)", name.removesuffix(".jsonl"))
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _read_jsonl(files: Sequence[Path]) -> MetricLog:
    steps: dict[int, dict[str, float]] = {}
    gaps: list[str] = []
    damage: list[str] = []
    for file in files:
        entries, cut_off, unreadable = _read_jsonl_file(file)
        gaps += cut_off + unreadable
        damage += unreadable
        repeated = sorted(step for step in entries if step in steps)
        if repeated:
            gaps.append(f"{file.name} repeats {_step_range(repeated)} of an earlier attempt; its values are shown")
        for step, metrics in entries.items():
            steps.setdefault(step, {}).update(metrics)
    if not steps:
        names = ", ".join(file.name for file in files)
        raise UserError(f"{files[0].parent}: {names} hold no step yet; has the training begun? {_HOW_TO_LOG}")
    return MetricLog(dict(sorted(steps.items())), tuple(files), tuple(gaps), tuple(damage))


def _read_jsonl_file(file: Path) -> tuple[dict[int, dict[str, float]], list[str], list[str]]:
    """Steps, and sentences on a line that a kill has cut off and on other unreadable lines."""
    steps: dict[int, dict[str, float]] = {}
    unreadable: list[int] = []
    number = 0
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            entry = parse_entry(line)
            if entry is None:
                unreadable.append(number)
            else:
                steps.setdefault(entry[0], {}).update(entry[1])
    # A single line may be that of a run killed at its first step; if it is complete, the file is not verl's log.
    if unreadable and not steps and (len(unreadable) > 1 or line.endswith("\n")):
        raise UserError(
            f"{file} is not a metrics log of verl: line {unreadable[0]} is not an object with step and data. "
            "Give the file that trainer.logger=[file] writes."
        )
    cut_off, damage = [], []
    if unreadable and unreadable[-1] == number:
        cut_off.append(f"{file.name}: the last line ({unreadable.pop()}) is cut off and left out")
    if unreadable:
        damage.append(f"{file.name}: {len(unreadable)} unreadable line(s) left out, the first is line {unreadable[0]}")
    return steps, cut_off, damage


def parse_entry(line: str | bytes) -> tuple[int, dict[str, float]] | None:
    """Step and metrics of one line of the ``file`` logger; `None` for any other line."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("data"), dict):
        return None
    step = entry.get("step")
    if not isinstance(step, int) or isinstance(step, bool):
        return None
    return step, {name: number for name, value in entry["data"].items() if (number := _number(value)) is not None}


def _number(value: object) -> float | None:
    if value is None:  # verl's logger writes NaN and infinity as null
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _read_tensorboard(event_files: Sequence[Path]) -> MetricLog:
    # It warns at length that TensorFlow is not installed, which is not needed here.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    folders = sorted({file.parent for file in event_files})
    steps: dict[int, dict[str, float]] = {}
    for folder in folders:
        # One accumulator per folder: it joins the files of several attempts and drops what a restart has undone.
        accumulator = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
        accumulator.Reload()
        for name in accumulator.Tags()[SCALARS]:
            for event in accumulator.Scalars(name):
                value = _number(float(event.value))
                steps.setdefault(event.step, {})[name] = math.nan if value is None else value
    if not steps:
        raise UserError(f"{folders[0]}: the tensorboard event files hold no scalars; has the training begun?")
    gaps = [f"{len(folders)} folders of tensorboard event files were joined"] if len(folders) > 1 else []
    return MetricLog(dict(sorted(steps.items())), tuple(event_files), tuple(gaps))


def _step_range(steps: Sequence[int]) -> str:
    return f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} steps ({steps[0]} to {steps[-1]})"
