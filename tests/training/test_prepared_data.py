"""A training on data that ``data_prep`` prepared, graded by ``verl_ispo.grading`` inside verl's reward workers.

The problems are made here, so that a model that has seen only arithmetic can answer some; the real benchmarks go the
same way (tests/data_prep checks that verl loads them, tests/grading that verl's reward manager grades them).

Not exercised here: how well anything is learned.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.conftest import TrainingRun

pytestmark = pytest.mark.trainer


def test_prepared_problems_are_trained_on_and_graded(train: Callable[..., TrainingRun], tmp_path: Path):
    problems = tmp_path / "sums.jsonl"
    rows = [{"question": f"{a}+{b}=", "answer": f"{a + b}.0"} for a in range(1, 5) for b in range(5, 9)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "data_prep.generic", "--local_dataset_path", str(problems)]
    command += ["--data_source", "sums", "--local_save_dir", str(tmp_path), "--template", "plain", "--no_decontaminate"]
    subprocess.run(command, check=True, timeout=120)

    run = train(
        f"data.train_files={tmp_path}/sums.parquet",
        f"data.val_files={tmp_path}/sums.parquet",
        "reward.custom_reward_function.path=pkg://verl_ispo.grading.reward_function",
        "+reward.custom_reward_function.reward_kwargs.path_metrics=true",
        "trainer.total_training_steps=1",
        "trainer.test_freq=1",
    )
    assert run.exit_status == 0, run.output[-3000:]
    metrics = run.steps[1]
    assert 0 <= metrics["val-core/sums/acc/mean@1"] <= 1
    decided = metrics["val-aux/sums/path_exact/mean@1"] + metrics["val-aux/sums/path_symbolic/mean@1"]
    assert decided + metrics["val-aux/sums/status_no_answer/mean@1"] == pytest.approx(1)
    assert metrics["val-aux/sums/status_error/mean@1"] == 0
    assert metrics["ispo/reward/ifd/std"] > 0
