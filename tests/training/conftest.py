"""One short warm start for all trainings of this folder, and a way to run verl's main on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

RUN_TIMEOUT_S = 600

# One thread a process: several processes with a thread pool each on few cores wait for one another.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class TrainingRun:
    """A finished ``python -m verl.trainer.main_ppo``."""

    exit_status: int
    output: str
    steps: dict[int, dict[str, float]]
    checkpoints: Path


@dataclass(frozen=True)
class TinyTask:
    """Folders of the warm-started model and its data."""

    model: Path
    data: Path


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> TinyTask:
    """A model that has seen enough worked arithmetic to write a trace and a box, if not yet the right number."""
    root = tmp_path_factory.mktemp("tiny")
    for command in (
        ["verl_ispo.tiny_task.warm_start", "--out", root / "base", "--steps", "120", "--short-answer-steps", "10"],
        ["verl_ispo.tiny_task.make_data", "--out", root / "data", "--train-rows", "64"],
    ):
        subprocess.run([sys.executable, "-m", *map(str, command)], check=True, timeout=RUN_TIMEOUT_S, env=ENVIRONMENT)
    return TinyTask(model=root / "base", data=root / "data")


@pytest.fixture
def train(tiny_task: TinyTask, tmp_path: Path) -> Callable[..., TrainingRun]:
    """Run verl's main with the given overrides on 4 prompts x 4 rollouts a step."""

    def run(*overrides: str, checkpoints: Path | None = None, model: Path | None = None) -> TrainingRun:
        number = len(list(tmp_path.glob("metrics*.jsonl")))
        metrics = tmp_path / f"metrics{number}.jsonl"
        checkpoints = checkpoints or tmp_path / f"checkpoints{number}"
        environment = {
            **ENVIRONMENT,
            "VERL_PLATFORM": "cpu",
            "VERL_FILE_LOGGER_PATH": str(metrics),
            "RAY_DEDUP_LOGS": "0",
        }
        settings = [
            "backend=cpu",
            f"data.train_files={tiny_task.data}/train.parquet",
            f"data.val_files={tiny_task.data}/heldout.parquet",
            "data.seed=1",
            "data.train_batch_size=4",
            "data.max_prompt_length=64",
            "data.max_response_length=48",
            f"actor_rollout_ref.model.path={model or tiny_task.model}",
            "actor_rollout_ref.actor.optim.lr=1e-3",
            "actor_rollout_ref.actor.ppo_mini_batch_size=2",
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
            "actor_rollout_ref.rollout.n=4",
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
            "reward.custom_reward_function.path=pkg://verl_ispo.tiny_task.reward",
            "trainer.logger=[console,file]",
            f"trainer.default_local_dir={checkpoints}",
            *overrides,
        ]
        process = subprocess.run(
            [sys.executable, "-m", "verl.trainer.main_ppo", "--config-name=ispo_trainer", *settings],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_TIMEOUT_S,
        )
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        steps = {entry["step"]: entry["data"] for entry in map(json.loads, lines)}
        return TrainingRun(process.returncode, process.stdout, steps, checkpoints)

    return run
