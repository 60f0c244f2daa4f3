"""A tiny CPU training behind ``scripts/train.sh``: its processes by kind, its end, its progress, its metrics.

All processes of a start, Ray's among them, stay in the session of the script, so that they can be found and killed, all
of them, as when a machine dies, or one kind only, and nothing else on this machine. Linux only: they are read in /proc.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from verl_ispo.runs.checkpoint_folder import noted_step
from verl_ispo.runs.metric_log import read_metric_log
from verl_ispo.user_error import UserError

ROOT = Path(__file__).parents[2]

# Wall-clock figures and those of the machine differ between runs of the same training.
UNREPEATABLE = ("timing", "perf/", "actor/perf", "throughput", "mfu")

OVERRIDES = (
    "data.train_batch_size=4",
    "data.max_prompt_length=64",
    "data.max_response_length=48",
    "actor_rollout_ref.actor.optim.lr=1e-3",
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.rollout.n=4",
)
"""Four prompts x four rollouts per step, one mini-batch, so that a second worker changes only the order of sums."""

LAUNCHER, DRIVER, FORK_SERVER = "launcher", "driver", "fork server"
NEW_WORKER, HELPER = "new worker", "helper of Ray"

# The kind of a process by a part of its title; Ray writes the names of its actors there.
ACTORS = {
    "RuntimeEnvAgent": HELPER,
    "DashboardAgent": HELPER,
    "TaskRunner": "trainer",
    "WorkerDict": "training worker",
    "CPURolloutServer": "rollout server",
    "AgentLoopWorker": "agent-loop worker",
    "RewardLoopWorker": "reward worker",
    "TransferQueue": "transfer queue",
    "SimpleStorageUnit": "transfer queue",
    "GlobalRequestLoadBalancer": "load balancer",
}
FATAL = (LAUNCHER, DRIVER, FORK_SERVER, "trainer", "training worker", "rollout server", "raylet")
"""Kinds without which no training goes on, a while after the loop has begun."""
PROGRAMS = {"bash": LAUNCHER, "raylet": "raylet", "gcs_server": "gcs"}
MODULES = {"verl_ispo.cli": LAUNCHER, "verl.trainer.main_ppo": DRIVER, "verl_ispo.cpu.forking_process": FORK_SERVER}


@dataclass(frozen=True)
class Process:
    """A process of a start.

    Attributes:
        pid (`int`): its id.
        born (`int`): when it was started, in clock ticks since the machine was.
        title (`str`): its command line; Ray writes the names of actors there.
    """

    pid: int
    born: int
    title: str

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return kind_of(self.title.split())


def kind_of(arguments: Sequence[str]) -> str:
    """What a process is, from its command line."""
    if len(arguments) > 2 and arguments[2].endswith("forked_python.py"):  # waits for a fork, and its end is the fork's
        arguments = [arguments[0], *arguments[3:]]
    first, second, third = [*arguments, "", "", ""][:3]
    if first.startswith("ray::"):
        return next((kind for part, kind in ACTORS.items() if part in first), NEW_WORKER)
    if second == "-m" and third in MODULES:
        return MODULES[third]
    is_worker = any(argument.endswith(("default_worker.py", "setup_worker.py")) for argument in arguments[1:3])
    return PROGRAMS.get(Path(first).name, NEW_WORKER if is_worker else HELPER)


def processes_of(session: int) -> list[Process]:
    """The living processes of a session, oldest first."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # pid (name) state parent group session ...; the 22nd field is the start time
            state, *fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == session and state != "Z":
                title = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
                found.append(Process(int(folder.name), int(fields[18]), title))
    return sorted(found, key=lambda process: (process.born, process.pid))


def kill(processes: Iterable[Process]) -> None:
    """SIGKILL; those that have ended are left out."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def kill_session(session: int) -> None:
    """SIGKILL until no process is left, as when a machine dies."""
    while processes := processes_of(session):
        kill(processes)
        time.sleep(0.05)


def comparable_metrics(folder: Path) -> dict[int, dict[str, float]]:
    """Metrics of a run by step, without those that differ between any two runs."""
    return {
        step: {name: value for name, value in metrics.items() if not any(part in name for part in UNREPEATABLE)}
        for step, metrics in read_metric_log(folder).steps.items()
    }


def differences(
    found: dict[int, dict[str, float]], expected: dict[int, dict[str, float]], tolerance: float
) -> list[str]:
    """What differs between the metrics of two runs, in sentences; empty where they agree.

    Args:
        found (`dict[int, dict[str, float]]`): `comparable_metrics` of a disturbed run.
        expected (`dict[int, dict[str, float]]`): those of the undisturbed one.
        tolerance (`float`): absolute and relative; the order of sums changes with the timing of a run.
    """
    if found.keys() != expected.keys():
        return [f"steps {sorted(found)} are logged, not {sorted(expected)}"]
    sentences = []
    for step, metrics in expected.items():
        if names := metrics.keys() ^ found[step].keys():
            sentences.append(f"step {step}: only one of the two has {', '.join(sorted(names)[:5])}")
        for name in metrics.keys() & found[step].keys():
            here, there = found[step][name], metrics[name]
            same = math.isclose(here, there, rel_tol=tolerance, abs_tol=tolerance)
            if not same and not (math.isnan(here) and math.isnan(there)):
                sentences.append(f"step {step}: {name} is {here!r}, undisturbed {there!r}")
    return sentences


@dataclass
class Start:
    """One call of the command; its session is its process id."""

    process: subprocess.Popen[bytes]
    screen: Path
    began: float = field(default_factory=time.monotonic)
    orphaned: bool = False

    @property
    def session(self) -> int:
        """Of all its processes."""
        return self.process.pid

    def ended(self) -> bool:
        """Whether the launcher has ended, or, where it was killed, the training that it left."""
        if not self.orphaned:
            return self.process.poll() is not None
        return not any(process.kind == DRIVER for process in processes_of(self.session))

    def text(self) -> str:
        """What it has printed."""
        return self.screen.read_text(errors="replace")

    def said(self) -> str:
        """Its sentence on why it stopped, or its last line."""
        lines = [line for line in self.text().splitlines() if line.strip()]
        stopped = [line for line in lines if "stopped with status" in line]
        return (stopped or lines or [""])[-1][-400:]


@dataclass(frozen=True)
class Task:
    """What the trainings of a loop share.

    Attributes:
        model (`Path`): of `verl_ispo.tiny_task.warm_start`.
        data (`Path`): of `verl_ispo.tiny_task.make_data`.
        steps (`int`): of each training; each step is saved.
        workers (`int`, *optional*, defaults to `1`): training workers.
        ray_folder (`Path`, *optional*): where Ray puts its sessions; the path of a socket is at most 107 characters.
        overrides (`tuple[str, ...]`): more of Hydra's.
    """

    model: Path
    data: Path
    steps: int
    workers: int = 1
    ray_folder: Path | None = None
    overrides: tuple[str, ...] = ()


class Training:
    """One run folder; each `start` is the same command."""

    def __init__(self, folder: Path, task: Task) -> None:
        self.folder = folder
        self.task = task
        self.steps = task.steps
        # nothing of the caller's environment is an option of the launcher
        kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")
        self.environment = {
            **{name: os.environ[name] for name in kept if name in os.environ},
            **{"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "RAY_DEDUP_LOGS": "0"},
            **({} if task.ray_folder is None else {"RAY_TMPDIR": str(task.ray_folder)}),
            **{"PYTHON": sys.executable, "OUT": str(folder), "ROLLOUT": "cpu"},
            **{"MODEL": str(task.model), "DATA": str(task.data), "REWARD": "pkg://verl_ispo.tiny_task.reward"},
            **{"STEPS": str(task.steps), "SAVE_FREQ": "1", "TEST_FREQ": "-1", "GPUS_PER_NODE": str(task.workers)},
        }
        self.overrides = [*OVERRIDES, *task.overrides]

    def start(self) -> Start:
        """Call the command in a session of its own."""
        screens = self.folder.parent / "screens"
        screens.mkdir(parents=True, exist_ok=True)
        screen = screens / f"{self.folder.name}.{len(list(screens.glob(f'{self.folder.name}.*'))) + 1}.txt"
        with screen.open("wb") as output:
            process = subprocess.Popen(
                ["bash", str(ROOT / "scripts/train.sh"), *self.overrides],
                env=self.environment,
                cwd=self.folder.parent,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Start(process, screen)

    def saved(self) -> int:
        """The step from which the next start resumes."""
        return noted_step(self.folder / "checkpoints") or 0

    def logged(self) -> list[int]:
        """Steps in the metric log."""
        try:
            return sorted(read_metric_log(self.folder).steps)
        except (UserError, OSError):
            return []

    def done(self) -> int:
        """What the launcher noted."""
        file = self.folder / "done"
        return int(file.read_text()) if file.exists() else 0

    def begins_checkpoint(self, step: int) -> bool:
        """Whether a step's checkpoint is there, whole or not."""
        return (self.folder / f"checkpoints/global_step_{step}").exists()

    def begins_loop(self, start: Start) -> bool:
        """Whether verl's loop has begun in a start."""
        return "Training Progress" in start.text()
