"""One short warm start for all trainings, a way to run verl's main on it, and the trainings that many tests read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from verl_ispo.cpu.fork_server import fork_server, forked_python_command, py_executable

RUN_TIMEOUT_S = 600

# One thread per process: on few cores, several processes with a thread pool each wait for one another.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class TrainingRun:
    """A finished ``python -m verl.trainer.main_ppo``."""

    exit_status: int
    output: str
    steps: dict[int, dict[str, float]]
    checkpoints: Path
    folder: Path


Train = Callable[..., TrainingRun]


@dataclass(frozen=True)
class TinyTask:
    """Folders of the warm-started model and its data."""

    model: Path
    data: Path


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> TinyTask:
    """A model that has seen enough worked arithmetic to write a trace and a box, if not yet the right number.

    Made once for all test processes of a run.
    """
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "tiny"
    with FileLock(root.with_suffix(".lock")):
        if not (root / "data/heldout.parquet").exists():
            warm_start = ["verl_ispo.tiny_task.warm_start", "--out", root / "base"]
            for command in (
                [*warm_start, "--steps", "120", "--short-answer-steps", "10", "--held-out-per-level", "1"],
                ["verl_ispo.tiny_task.make_data", "--out", root / "data", "--train-rows", "64"],
            ):
                arguments = [sys.executable, "-m", *map(str, command)]
                subprocess.run(arguments, check=True, timeout=RUN_TIMEOUT_S, env=ENVIRONMENT)
    return TinyTask(model=root / "base", data=root / "data")


@pytest.fixture(scope="session")
def forking() -> Iterator[dict[str, str]]:
    """An environment whose processes are forks of one server, as in a training behind the launcher."""
    with fork_server({**ENVIRONMENT, "RAY_DEDUP_LOGS": "0"}) as environment:
        yield environment


@pytest.fixture(scope="session")
def train(tiny_task: TinyTask, forking: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Run verl's main with the given overrides on 4 prompts x 4 rollouts per step."""

    def run(
        *overrides: str,
        checkpoints: Path | None = None,
        model: Path | None = None,
        folder: Path | None = None,
        backend: str = "cpu",
        config_name: str = "ispo_trainer",
    ) -> TrainingRun:
        folder = folder or tmp_path_factory.mktemp("training")
        metrics = folder / "metrics.jsonl"
        checkpoints = checkpoints or folder / "checkpoints"
        environment = {
            **forking,
            "VERL_FILE_LOGGER_PATH": str(metrics),
        }
        settings = [
            f"backend={backend}",
            f'+ray_kwargs.ray_init.runtime_env.py_executable="{py_executable()}"',
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
            f"hydra.run.dir={folder}",
            *overrides,
        ]
        process = subprocess.run(
            [*forked_python_command(), "-m", "verl.trainer.main_ppo", f"--config-name={config_name}", *settings],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_TIMEOUT_S,
        )
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        steps = {entry["step"]: entry["data"] for entry in map(json.loads, lines)}
        return TrainingRun(process.returncode, process.stdout, steps, checkpoints, folder)

    return run


@pytest.fixture(scope="session")
def sums(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings for sums that ``data_prep`` has prepared, graded by ``verl_ispo.grading``; one mini-batch per step.

    One mini-batch, since two workers make up theirs of other rows than one does.
    """
    folder = tmp_path_factory.mktemp("sums")
    problems = folder / "sums.jsonl"
    rows = [{"question": f"{a}+{b}=", "answer": f"{a + b}.0"} for a in range(1, 5) for b in range(5, 9)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "data_prep.generic", "--local_dataset_path", str(problems)]
    command += ["--data_source", "sums", "--local_save_dir", str(folder), "--template", "plain", "--no_decontaminate"]
    subprocess.run(command, check=True, timeout=120)
    return (
        f"data.train_files={folder}/sums.parquet",
        f"data.val_files={folder}/sums.parquet",
        "reward.custom_reward_function.path=pkg://verl_ispo.grading.reward_function",
        "+reward.custom_reward_function.reward_kwargs.path_metrics=true",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    )


THREE_STEPS = ("trainer.total_training_steps=3", "trainer.save_freq=2", "trainer.test_freq=3")


@pytest.fixture(scope="session")
def whole(train: Train, sums: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """Three steps on prepared data, saved, validated, with a rollout dump in ``dump`` beside it."""
    folder = tmp_path_factory.mktemp("whole")
    dump = [f"trainer.v1.ispo.dump_dir={folder}/dump", "trainer.v1.ispo.dump_every=2", "trainer.v1.ispo.dump_groups=3"]
    return finished(train(*sums, *THREE_STEPS, *dump, folder=folder))


@pytest.fixture(scope="session")
def resumed(
    train: Train, whole: TrainingRun, sums: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> TrainingRun:
    """The third step of `whole`, from the checkpoint of the second."""
    checkpoints = tmp_path_factory.mktemp("interrupted")
    shutil.copytree(whole.checkpoints / "global_step_2", checkpoints / "global_step_2")
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("2")
    return finished(train(*sums, *THREE_STEPS, checkpoints=checkpoints))


@pytest.fixture(scope="session")
def two_workers(train: Train, sums: tuple[str, ...]) -> TrainingRun:
    """The first step of `whole` on two workers, the ablated rows in the pass of the old log-probs; saved."""
    workers = ["trainer.n_gpus_per_node=2", "trainer.v1.ispo.ablated_pass=merged"]
    end = ["trainer.total_training_steps=1", "trainer.save_freq=1", "trainer.test_freq=-1"]
    return finished(train(*sums, *workers, *end))


def finished(run: TrainingRun) -> TrainingRun:
    """The run, if it has succeeded."""
    assert run.exit_status == 0, run.output[-3000:]
    return run
