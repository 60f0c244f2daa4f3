"""Budgets of tokens and GPU hours: what the launcher passes on, says at the end, and plans for a table.

The training is a small program, which leaves the files that a trainer would (tests/trainer/test_budget.py has the
trainer's side).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests.launch.conftest import composed_quickly
from tests.launch.fake_training import FakeTraining
from verl_ispo.launch import training_settings
from verl_ispo.runs.spent import Spent, write_spent

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def composed_with_the_budget(monkeypatch: pytest.MonkeyPatch, fake: FakeTraining, tmp_path: Path) -> None:
    def compose(config_name: str, overrides: list[str]) -> DictConfig:
        config = composed_quickly(config_name, overrides)
        config.trainer.default_local_dir = str(tmp_path / "run/checkpoints")
        for name in ("budget_tokens", "budget_gpu_hours"):
            given = [word.split("=")[1] for word in overrides if word.startswith(f"trainer.v1.ispo.{name}=")]
            config.trainer.v1.ispo[name] = float(given[-1]) if given else None
        return config

    monkeypatch.setattr(training_settings, "compose_config", compose)


@pytest.fixture
def train(command: Command, data: Path) -> Command:
    return lambda *more: command(
        *("train", "--model=qwen2_5_7b", "--method=grpo", "--data", data, "--out=run", "--steps=9", *more)
    )


def leave_checkpoint(folder: Path, step: int, spent: Spent) -> None:
    """What the trainer leaves that ended with `step`."""
    write_spent(folder / f"run/checkpoints/global_step_{step}", spent)
    (folder / "run/checkpoints/latest_checkpointed_iteration.txt").write_text(str(step))


def test_the_budget_goes_to_the_trainer_exactly(train: Command, fake: FakeTraining) -> None:
    assert train("--budget-tokens", "1234567891", "--budget-gpu-hours", "0.5")[0] == 0
    [words] = fake.commands()
    assert "trainer.v1.ispo.budget_tokens=1234567891.0" in words
    assert "trainer.v1.ispo.budget_gpu_hours=0.5" in words


def test_without_one_nothing_is_passed(train: Command, fake: FakeTraining) -> None:
    assert train()[0] == 0
    assert not any("budget" in word for word in fake.commands()[0])


def test_a_run_that_has_spent_it_says_so_and_is_not_started_again(
    train: Command, fake: FakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.metrics = [{"step": step, "data": {"training/x": 1.0}} for step in (1, 2, 3)]
    start = fake.run_process

    def ends_by_its_budget(*arguments: object, **options: object) -> object:
        ending = start(*arguments, **options)
        leave_checkpoint(tmp_path, 3, Spent(tokens=530, gpu_seconds=7200))
        return ending

    monkeypatch.setattr("verl_ispo.launch.start_training.run_process", ends_by_its_budget)
    status, out, err = train("--budget-tokens=500")
    assert status == 0, err
    assert "ended after step 3 of 9: its budget of 500 tokens is spent (530 tokens, 2 GPU hours)" in out
    assert (tmp_path / "run/done").read_text() == "3\n"
    status, out, _ = train("--budget-tokens=500")
    assert status == 0
    assert "its budget of 500 tokens is spent after 3 steps (530 tokens, 2 GPU hours)" in out
    assert len(fake.commands()) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--budget-tokens=0"], "BUDGET_TOKENS=0.0 (--budget-tokens) is no budget; give a number above 0"),
        (["--budget-gpu-hours=nan"], "is no budget"),
        (["--budget-tokens=5", "--save-freq=-1"], "nothing would be saved; set SAVE_FREQ to 1 or more"),
    ],
)
def test_what_is_no_budget_is_refused(train: Command, fake: FakeTraining, given: list[str], said: str) -> None:
    status, _, err = train(*given)
    assert status == 2
    assert said in err
    assert not fake.commands()


@pytest.mark.parametrize(
    ("given", "plan", "estimate"),
    [
        # 2 cells of 100 steps of 36 s are 2 hours; 8 GPUs spend 4 GPU hours in half an hour, so one hour for both
        (["--budget-gpu-hours=4"], "2 cells of 4 GPU hours (100 steps at most)", "estimate: 1 hours for the 2 cells"),
        (["--budget-gpu-hours=80"], "2 cells of 80 GPU hours (100 steps", "estimate: 2 hours for the 2 cells"),
        (["--budget-tokens=2e9"], "2 cells of 2,000,000,000 tokens (100 steps", "estimate: at most 2 hours for the 2"),
    ],
)
def test_the_plan_of_a_table_of_equal_budgets(
    command: Command, data: Path, given: list[str], plan: str, estimate: str
) -> None:
    chosen = ("--models", "qwen2_5_7b", "--methods", "grpo", "ispo", "--seeds", "1", "--steps", "100")
    status, out, err = command(
        *("reproduce-table", "--data", data, *chosen, "--seconds-per-step", "36", "--out", "table", "--print-only"),
        *given,
    )
    assert status == 0, err
    text = " ".join(out.split())
    assert plan in text
    assert estimate in text
    assert "A cell ends at the first step at which its budget is spent" in text


def test_the_plan_shows_what_each_cell_has_spent(command: Command, data: Path, tmp_path: Path) -> None:
    checkpoints = tmp_path / "table/runs/qwen2_5_7b/grpo-seed1/checkpoints"
    write_spent(checkpoints / "global_step_7", Spent(tokens=2_000_123, gpu_seconds=5400))
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("7")
    chosen = ("--models", "qwen2_5_7b", "--methods", "grpo", "ispo", "--seeds", "1")
    _, out, _ = command("reproduce-table", "--data", data, *chosen, "--out", "table", "--print-only")
    assert "to do (2,000,123 tokens, 1.5 GPU hours)" in out
    assert out.count("GPU hours") == 1
