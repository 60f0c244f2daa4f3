"""How long the trainings will take on this machine, from one step that is trained for it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from verl_ispo.atomic_file import write_text
from verl_ispo.real_model.training_run import RealRun, train_real
from verl_ispo.runs.metric_log import metric, read_metric_table


@dataclass(frozen=True)
class StepTiming:
    """One training of one step.

    Attributes:
        step_s: of its step; the first, so on a GPU too much.
        start_s: of everything else: processes, loading, ending.
    """

    step_s: float
    start_s: float

    def total_s(self, steps: int) -> float:
        """Seconds of a training of so many steps."""
        return self.start_s + steps * self.step_s


def time_a_step(run: RealRun, folder: Path) -> StepTiming:
    """Train one step, and keep nothing but its time; a time that is there is used again.

    Args:
        run (`RealRun`): whose step.
        folder (`Path`): for the training.

    Raises:
        StepFailedError: the training stopped.
    """
    file = folder / "timing.json"
    if not file.is_file():
        began = time.monotonic()
        train_real(replace(run, steps=1, folder=folder))
        total_s = time.monotonic() - began
        step_s = float(metric(read_metric_table(folder), "timing_s/step").iloc[-1])
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        write_text(file, json.dumps({"step_s": step_s, "start_s": max(total_s - step_s, 0.0)}) + "\n")
    return StepTiming(**json.loads(file.read_text(encoding="utf-8")))


def timed_once(file: Path, work: Callable[[], None]) -> float:
    """Do the work and return its seconds; where it was done before, those of the first time, read from the file."""
    began = time.monotonic()
    work()
    if not file.is_file():
        write_text(file, json.dumps({"seconds": time.monotonic() - began}) + "\n")
    return float(json.loads(file.read_text(encoding="utf-8"))["seconds"])


def in_words(seconds: float) -> str:
    """A duration for people, such as ``about 1 h 20 min``."""
    minutes = max(1, round(seconds / 60))
    hours, rest = divmod(minutes, 60)
    return f"about {hours} h {rest:02d} min" if hours else f"about {minutes} min"
