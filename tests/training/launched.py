"""A training behind ``scripts/train.sh`` in its own session, whose processes a test can find and kill.

All processes of a start, Ray's among them, stay in the session of the script, so that a test can kill all of them, as
when a machine dies, or one kind of process only, and nothing else on this machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.scripts.launchers import SCRIPTS, clean_environment
from tests.training.conftest import TinyTask
from verl_ispo.runs.metric_log import read_metric_log

START_TIMEOUT_S = 600

# Wall-clock figures and those of the machine differ between runs of the same training.
UNREPEATABLE = ("timing", "perf/", "actor/perf", "throughput", "mfu")


def pids_of(session: int, title: str = "") -> list[int]:
    """Processes of a session that are alive and whose command line holds ``title``; Ray writes actors there."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # pid (name) state parent group session ...
            state, _, _, of_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of_session) != session or state == "Z":
                continue
            if title.encode() in (folder / "cmdline").read_bytes().replace(b"\0", b" "):
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended
    return found


def kill(pids: Sequence[int]) -> int:
    """SIGKILL; returns how many there were."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


def kill_session(session: int) -> None:
    """SIGKILL until no process is left, as when a machine dies."""
    while kill(pids_of(session)):
        time.sleep(0.05)


class LaunchedTraining:
    """``scripts/train.sh`` on the tiny task and one run folder; `start` may be called again after an end.

    Four prompts x four rollouts per step, one mini-batch, so that a second worker changes only the order of sums.
    """

    def __init__(self, task: TinyTask, out: Path, steps: int, **variables: str) -> None:
        self.out = out
        self.log = out.parent / f"{out.name}.screen.txt"
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = clean_environment(
            **{"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "RAY_DEDUP_LOGS": "0"},
            **{"MODEL": str(task.model), "DATA": str(task.data), "REWARD": "pkg://verl_ispo.tiny_task.reward"},
            **{"ROLLOUT": "cpu", "OUT": str(out), "STEPS": str(steps), "SAVE_FREQ": "1", "TEST_FREQ": "-1"},
            **variables,
        )
        self.environment.pop("VERL_PLATFORM", None)  # the launcher sets it
        self.arguments = [
            "data.train_batch_size=4",
            "data.max_prompt_length=64",
            "data.max_response_length=48",
            "actor_rollout_ref.actor.optim.lr=1e-3",
            "actor_rollout_ref.actor.ppo_mini_batch_size=4",
            "actor_rollout_ref.rollout.n=4",
        ]

    def start(self) -> None:
        """The same command each time."""
        with self.log.open("wb") as screen:
            self.process = subprocess.Popen(
                ["bash", str(SCRIPTS / "train.sh"), *self.arguments],
                env=self.environment,
                cwd=self.out.parent,
                stdout=screen,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run_until(self, condition: Callable[[], object], what: str, poll_s: float = 0.05) -> None:
        """Wait for a condition; `what` names it in an error."""
        end = time.monotonic() + START_TIMEOUT_S
        while not condition():
            assert self.process is not None
            assert self.process.poll() is None, f"ended before {what}: {self.screen()[-3000:]}"
            assert time.monotonic() < end, f"no sign of {what}: {self.screen()[-3000:]}"
            time.sleep(poll_s)

    def kill_at(self, condition: Callable[[], object], what: str) -> None:
        """SIGKILL everything in a moment that may last milliseconds."""
        self.run_until(lambda: self.pids("ray::WorkerDict"), "the workers")
        known = self.pids()
        self.run_until(condition, what, poll_s=0.002)
        kill(known)
        self.kill()

    def end(self) -> int:
        """Wait for the script's own end; returns its status."""
        assert self.process is not None
        return self.process.wait(timeout=START_TIMEOUT_S)

    def pids(self, title: str = "") -> list[int]:
        """This start's processes with ``title``."""
        assert self.process is not None
        return pids_of(self.process.pid, title)

    def stop(self, title: str) -> int:
        """SIGSTOP this start's processes with ``title``; returns how many there were."""
        pids = self.pids(title)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        return len(pids)

    def kill_one(self, title: str) -> bool:
        """SIGKILL the first of this start's processes with ``title``; returns whether there was one."""
        return bool(kill(self.pids(title)[:1]))

    def kill(self) -> None:
        """SIGKILL everything that this start brought, until nothing is left."""
        if self.process is not None:
            kill_session(self.process.pid)
            self.process.wait(timeout=60)

    def screen(self) -> str:
        """What the last start has printed."""
        return self.log.read_text(errors="replace")

    def latest_checkpoint(self) -> int:
        """The step from which the next start resumes, 0 for none."""
        tracker = self.out / "checkpoints/latest_checkpointed_iteration.txt"
        return int(tracker.read_text() or 0) if tracker.exists() else 0

    def steps_logged(self) -> int:
        """The last whole step in the log, with the timings that verl adds at its end."""
        if not any(file.stat().st_size for file in self.out.glob("metrics*.jsonl")):
            return 0
        steps = read_metric_log(self.out).steps
        return max((step for step, metrics in steps.items() if "timing_s/step" in metrics), default=0)

    def metrics(self) -> dict[int, dict[str, float]]:
        """What the report reads from the run folder, without the metrics that differ between any two runs."""
        return {
            step: {name: value for name, value in metrics.items() if not any(part in name for part in UNREPEATABLE)}
            for step, metrics in read_metric_log(self.out).steps.items()
        }


def assert_same_metrics(
    found: dict[int, dict[str, float]], expected: dict[int, dict[str, float]], tolerance: float
) -> None:
    """All steps, all metrics, equal up to the order of sums."""
    assert found.keys() == expected.keys()
    for step, metrics in expected.items():
        assert found[step].keys() == metrics.keys(), f"step {step}"
        assert found[step] == pytest.approx(metrics, rel=tolerance, abs=tolerance, nan_ok=True), f"step {step}"
