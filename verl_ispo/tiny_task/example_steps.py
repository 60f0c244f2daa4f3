"""The steps of the tiny examples: environment, warm-started model, problems, training, evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from verl_ispo.cpu.fork_server import fork_server
from verl_ispo.cpu.forked_python import SOCKET_VARIABLE
from verl_ispo.example_runs.steps import Evaluation, StepFailedError, evaluate, run_module
from verl_ispo.launch.start_training import train
from verl_ispo.launch.training_options import TrainingOptions

ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
"""Environment of every process of a training or an evaluation."""
GRADER = "pkg://verl_ispo.tiny_task.reward"
BASE_MODEL = "tiny"
TRAINING_OVERRIDES = (
    "data.train_batch_size=16",
    "data.max_prompt_length=32",
    "data.max_response_length=96",
    "actor_rollout_ref.actor.optim.lr=1e-4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
    "trainer.val_before_train=true",
)


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
    """300 held-out problems, greedy and 4 samples each; see `evaluate`."""
    evaluate(model, method, seed, Evaluation(BASE_MODEL, (data / "heldout.parquet",), 96, GRADER), result, log)


def train_and_evaluate(run: TinyRun) -> None:
    """One run from its start to its result.

    Raises:
        StepFailedError: one of the two stopped.
    """
    train_tiny(run)
    log = run.folder / "eval.log"
    evaluate_tiny(run.folder / "checkpoints", run.method, run.seed, run.data, run.result, log)
