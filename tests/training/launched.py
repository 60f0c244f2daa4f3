"""A training behind ``scripts/train.sh`` that a test kills; see scripts/kills/launched_training.py.

All processes of a start, Ray's among them, stay in the session of the script, so that a test can kill all of them, as
when a machine dies, or one kind of process only, and nothing else on this machine.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.scripts.launchers import SCRIPTS
from tests.training.conftest import TinyTask
from verl_ispo.runs.metric_log import read_metric_log

START_TIMEOUT_S = 600

sys.path.insert(0, str(SCRIPTS / "kills"))
launched_training = importlib.import_module("launched_training")
kill_loop = importlib.import_module("kill_loop")
sys.path.remove(str(SCRIPTS / "kills"))


class LaunchedTraining:
    """A `launched_training.Training` and its last start; `start` may be called again after an end.

    Its one mini-batch per step makes a second worker change only the order of sums.
    """

    def __init__(self, task: TinyTask, out: Path, steps: int, **variables: str) -> None:
        self.out = out
        self.training = launched_training.Training(out, launched_training.Task(task.model, task.data, steps))
        self.training.environment |= variables
        self.arguments = self.training.overrides
        self.last: Any = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The launcher of the last start."""
        return self.last.process

    def start(self) -> None:
        """The same command each time."""
        self.last = self.training.start()

    def run_until(self, condition: Callable[[], object], what: str, poll_s: float = 0.05) -> None:
        """Wait for a condition; `what` names it in an error."""
        end = time.monotonic() + START_TIMEOUT_S
        while not condition():
            assert not self.last.ended(), f"ended before {what}: {self.screen()[-3000:]}"
            assert time.monotonic() < end, f"no sign of {what}: {self.screen()[-3000:]}"
            time.sleep(poll_s)

    def kill_at(self, condition: Callable[[], object], what: str) -> None:
        """SIGKILL everything in a moment that may last milliseconds."""
        self.run_until(lambda: self.processes("ray::WorkerDict"), "the workers")
        known = self.processes()
        self.run_until(condition, what, poll_s=0.002)
        launched_training.kill(known)
        self.kill()

    def end(self) -> int:
        """Wait for the script's own end; returns its status."""
        return self.process.wait(timeout=START_TIMEOUT_S)

    def processes(self, title: str = "") -> list[Any]:
        """The last start's processes with ``title``."""
        return [process for process in launched_training.processes_of(self.last.session) if title in process.title]

    def stop(self, title: str) -> int:
        """SIGSTOP this start's processes with ``title``; returns how many there were."""
        processes = self.processes(title)
        for process in processes:
            os.kill(process.pid, signal.SIGSTOP)
        return len(processes)

    def kill_one(self, title: str) -> bool:
        """SIGKILL the first of this start's processes with ``title``; returns whether there was one."""
        victims = self.processes(title)[:1]
        launched_training.kill(victims)
        return bool(victims)

    def kill(self) -> None:
        """SIGKILL everything that this start brought, until nothing is left."""
        if self.last is not None:
            launched_training.kill_session(self.last.session)
            self.process.wait(timeout=60)

    def screen(self) -> str:
        """What the last start has printed."""
        return self.last.text()

    def latest_checkpoint(self) -> int:
        """The step from which the next start resumes, 0 for none."""
        return self.training.saved()

    def steps_logged(self) -> int:
        """The last whole step in the log, with the timings that verl adds at its end."""
        if not any(file.stat().st_size for file in self.out.glob("metrics*.jsonl")):
            return 0
        steps = read_metric_log(self.out).steps
        return max((step for step, metrics in steps.items() if "timing_s/step" in metrics), default=0)

    def metrics(self) -> dict[int, dict[str, float]]:
        """What the report reads from the run folder, without the metrics that differ between any two runs."""
        return launched_training.comparable_metrics(self.out)


Metrics = dict[int, dict[str, float]]


def assert_same_metrics(found: Metrics, expected: Metrics, tolerance: float) -> None:
    """All steps, all metrics, equal up to the order of sums."""
    assert launched_training.differences(found, expected, tolerance) == []
