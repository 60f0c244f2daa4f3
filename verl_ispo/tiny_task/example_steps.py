"""The steps that the tiny examples share: environment, warm-started model, problems, training, evaluation, table.

Each step except the training runs in its own process, so that its memory is freed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from verl_ispo.cpu.fork_server import fork_server, python_command
from verl_ispo.cpu.forked_python import SOCKET_VARIABLE
from verl_ispo.launch.start_training import train
from verl_ispo.launch.stop_reason import last_lines
from verl_ispo.launch.training_options import TrainingOptions
from verl_ispo.launch.training_process import call
from verl_ispo.user_error import UserError

ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
"""Environment of every process of a training or an evaluation."""
GRADER = "pkg://verl_ispo.tiny_task.reward"
BASE_MODEL = "tiny"
TABLE_METRICS = ("pass@1_greedy", "avg@4")
TRAINING_OVERRIDES = (
    "data.train_batch_size=16",
    "data.max_prompt_length=32",
    "data.max_response_length=96",
    "actor_rollout_ref.actor.optim.lr=1e-4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
    "trainer.val_before_train=true",
)


class StepFailedError(UserError):
    """A step of an example failed and has printed why. The example ends with its exit status.

    Attributes:
        status (`int`): exit status.
    """

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class TinyRun:
    """One method, one seed.

    Attributes:
        method (`str`): preset.
        seed (`int`): of data order and rollouts.
        steps (`int`): training steps.
        base (`Path`): warm-started model.
        data (`Path`): training and held-out problems.
        folder (`Path`): logs, checkpoints, rollout dump.
        result (`Path`): folder of the evaluation.
        overrides (`tuple[str, ...]`): more Hydra overrides.
    """

    method: str
    seed: int
    steps: int
    base: Path
    data: Path
    folder: Path
    result: Path
    overrides: tuple[str, ...] = ()


@contextmanager
def tiny_environment() -> Iterator[None]:
    """The environment of the examples, for this process and those that it starts, which are forks of one."""
    os.environ.update(ENVIRONMENT)
    with fork_server(os.environ) as environment:
        os.environ.update(environment)
        try:
            yield
        finally:
            os.environ.pop(SOCKET_VARIABLE, None)


def run_module(module: str, *arguments: object, quiet: bool = False) -> None:
    """``python -m module arguments``.

    Args:
        module (`str`): dotted name.
        arguments: options, as text.
        quiet (`bool`, *optional*, defaults to `False`): show only errors.

    Raises:
        StepFailedError: it did not end with status 0.
    """
    command = [*python_command(os.environ), "-m", module, *map(str, arguments)]
    status = call(command, output=subprocess.DEVNULL if quiet else None)
    if status:
        raise StepFailedError(f"{module} ended with status {status}, see above", status)


def make_base(folder: Path) -> None:
    """The warm-started model, made once."""
    run_module("verl_ispo.tiny_task.warm_start", "--out", folder)


def make_problems(folder: Path, levels: str) -> None:
    """Training and held-out problems, made once."""
    run_module("verl_ispo.tiny_task.make_data", "--out", folder, "--levels", levels)


def train_tiny(run: TinyRun) -> None:
    """The training, through the launcher as on a cluster. A second call resumes where it stopped.

    Raises:
        StepFailedError: it stopped before its last step.
    """
    status = train(
        TrainingOptions(
            model=str(run.base),
            method=run.method,
            seed=run.seed,
            steps=run.steps,
            data=run.data,
            reward=GRADER,
            rollout="cpu",
            screen="progress",
            save_freq=10,
            test_freq=10,
            out=run.folder,
            arguments=(*TRAINING_OVERRIDES, *run.overrides),
        )
    )
    if status:
        raise StepFailedError(f"{run.method} seed {run.seed}: the training stopped, see above", status)


def evaluate_tiny(model: Path, method: str, seed: int | None, data: Path, result: Path, log: Path) -> None:
    """300 held-out problems, greedy and 4 samples each.

    Args:
        model (`Path`): Hugging Face folder, or checkpoints of verl.
        method (`str`): name in the table.
        seed (`int`, *optional*): of the training; `None` for the start.
        data (`Path`): folder of the problems.
        result (`Path`): folder of the evaluation.
        log (`Path`): file for all that it prints.

    Raises:
        StepFailedError: with the last lines of the log.
    """
    command = [*python_command(os.environ), "-m", "verl_ispo.cli", "eval", "--model", str(model), "--method", method]
    command += [] if seed is None else ["--training-seed", str(seed)]
    command += ["--base-model", BASE_MODEL, "--out", str(result), "--benchmarks", str(data / "heldout.parquet")]
    command += ["--reward-function", GRADER, "--n", "4", "--temperature", "1.0", "--max-new-tokens", "96"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        status = call(command, output=output)
    if status:
        raise StepFailedError(f"{method}: the evaluation stopped; the last lines of {log}:\n{last_lines(log)}", status)


def train_and_evaluate(run: TinyRun) -> None:
    """One run from its start to its result.

    Raises:
        StepFailedError: one of the two stopped.
    """
    train_tiny(run)
    log = run.folder / "eval.log"
    evaluate_tiny(run.folder / "checkpoints", run.method, run.seed, run.data, run.result, log)


def make_table(results: Sequence[Path], out: Path, baseline: str) -> None:
    """The evaluations in one table."""
    options = ("--out", out, "--baseline", baseline, "--metrics", *TABLE_METRICS)
    run_module("verl_ispo.cli", "table", *results, *options, quiet=True)


def make_report(runs: Sequence[Path], scores: Path, out: Path) -> None:
    """The runs and their scores in one page."""
    run_module("verl_ispo.cli", "report", *runs, "--table", scores, "--out", out, quiet=True)


def chosen_baseline(methods: Sequence[str], otherwise: str) -> str:
    """GRPO where it was run."""
    return "grpo" if "grpo" in methods else otherwise
