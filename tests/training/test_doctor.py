"""``verl-ispo doctor``: sound set-ups pass, and what is missing is named, on the driver and inside a Ray worker.

Not exercised: machines with GPUs, clusters that run already.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.preflight.set_ups import math_row, write_model, write_rows
from verl_ispo.methods.registry import methods

pytestmark = pytest.mark.trainer


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "verl_ispo.cli", "doctor", *arguments],
        env={**os.environ, "VERL_PLATFORM": "cpu", **environment},
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_a_sound_setup_passes_here_and_in_a_ray_worker(tmp_path: Path):
    file = write_rows(tmp_path / "rows.parquet", [math_row()] * 16)
    run = doctor(
        "backend=cpu",
        f"data.train_files={file}",
        f"data.val_files={file}",
        "data.train_batch_size=16",
        "data.max_prompt_length=32",
        "data.max_response_length=96",
        f"actor_rollout_ref.model.path={write_model(tmp_path / 'model')}",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=64",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=128",
        "reward.custom_reward_function.path=pkg://verl_ispo.grading.reward_function",
    )
    assert run.returncode == 0, run.stdout
    assert "registrations here: all there" in run.stdout
    assert "registrations in a Ray worker: all there" in run.stdout
    assert "Nothing stands in the way" in run.stdout


def test_a_plugin_that_verl_was_told_not_to_load_is_missed():
    run = doctor("--no-ray", VERL_PLATFORM="", VERL_USE_EXTERNAL_PLUGINS="none")
    assert run.returncode == 1
    (missing,) = [line for line in run.stdout.splitlines() if "registrations here: missing:" in line]
    for name, method in methods().items():
        assert f"advantage estimator {name}," in missing
        assert (f"policy loss {name}," in missing) == method.brings_a_loss
    assert "trainer mode ispo_sync" in missing


def test_contradictions_in_the_config_are_named():
    run = doctor("--no-ray", "backend=cpu", "trainer.v1.trainer_mode=sync", "data.train_files=/nowhere.parquet")
    assert run.returncode == 1
    assert "trainer.v1.trainer_mode" in run.stdout
    assert "ispo_sync" in run.stdout
    assert "data.train_files: /nowhere.parquet does not exist" in run.stdout

    run = doctor("--no-ray", "backend=cpu", "algorithm.ispo.top_entropy_fraction=1.5")
    assert run.returncode == 1
    assert "algorithm.ispo.top_entropy_fraction must be a number in (0.0, 1.0], got 1.5" in run.stdout
