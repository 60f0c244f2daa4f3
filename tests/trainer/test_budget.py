"""A training ends at the first step at which its budget is spent, saved, and a restart goes on counting.

verl's ``fit`` runs as it is, with the trainer's own step and checkpoint hooks around a step that only tells its tokens
and takes its time from a made-up clock. Not exercised: a real trainer (tests/training).
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from verl_ispo.runs.checkpoint_folder import is_asked_to_stop
from verl_ispo.runs.spent import SPENT_FILE, Budget, Spent, read_spent
from verl_ispo.trainer import budget as budget_module
from verl_ispo.trainer.budget import CountingReplayBuffer
from verl_ispo.trainer.verl_workarounds import trainer_workarounds
from verl_ispo.trainer.verl_workarounds.trainer_workarounds import TrainerWorkarounds

GPUS = 4
SECONDS = 9.0  # of a step; with 1 second for the weights
NO_BUDGET = Budget()
TOKENS = 100  # of a step's rollouts


class Run(TrainerWorkarounds):
    """verl's loop with 20 steps; `trained` and `saved` are steps."""

    def __init__(self, folder: Path, budget: Budget, save_freq: int, thrown_away: int) -> None:
        self.config = OmegaConf.create(
            {
                "trainer": {
                    **{"project_name": "p", "experiment_name": "e", "logger": ["console"], "total_epochs": 1},
                    **{"total_training_steps": 20, "save_freq": save_freq, "test_freq": -1, "resume_mode": "auto"},
                    **{"val_before_train": False, "default_local_dir": str(folder), "nnodes": 1},
                    **{"n_gpus_per_node": GPUS},
                },
                "global_profiler": {"steps": None},
                "actor_rollout_ref": {"actor": {"strategy": "other"}},
            }
        )
        self.budget, self._last_step = budget, None
        self.replay_buffer = SimpleNamespace(thrown_away_tokens=0)
        self.thrown_away = thrown_away
        self.trained: list[int] = []
        self.saved: list[int] = []
        self.logged: list[dict[str, Any]] = []
        self._init_dataloader()
        self._load_checkpoint()

    def on_step_end(self) -> None:
        self.timing_raw["update_weights"] = 1.0

    def on_sample_end(self) -> None:
        pass


def nothing(*_: Any, **__: Any) -> dict:
    return {}


@pytest.fixture(autouse=True)
def verls_loop_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = [0.0]

    def data(trainer: Run) -> None:
        trainer.steps_per_epoch = trainer.total_training_steps = 20

    def step(trainer: Run, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        trainer.trained.append(trainer.global_steps)
        trainer.logged.append(metrics)
        trainer.replay_buffer.thrown_away_tokens += trainer.thrown_away
        clock[0] += SECONDS
        tags = [{"seq_len": TOKENS - 40}, {"seq_len": 40}, {"seq_len": 999, "is_padding": True}]
        return KVBatchMeta(keys=["a", "b", "c"], tags=tags, partition_id="train")

    def save(trainer: Run) -> None:
        trainer.saved.append(trainer.global_steps)
        (tmp_path / "latest_checkpointed_iteration.txt").write_text(str(trainer.global_steps))

    def load(trainer: Run) -> None:
        file = tmp_path / "latest_checkpointed_iteration.txt"
        trainer.global_steps = int(file.read_text()) if file.exists() else 0

    monkeypatch.setattr(budget_module.time, "monotonic", lambda: clock[0])
    quiet = SimpleNamespace(log=nothing, logger={})
    monkeypatch.setattr(trainer_base, "Tracking", lambda **_: quiet)
    monkeypatch.setattr(trainer_base, "SkipManager", SimpleNamespace(init=nothing, set_step=nothing))
    monkeypatch.setattr(trainer_base.tq, "kv_clear", nothing)
    monkeypatch.setattr(trainer_workarounds, "log_before_the_checkpoint", nothing)
    for name in ("_start_profiling", "_stop_profiling", "_compute_metrics", "_shutdown_dump_executor"):
        monkeypatch.setattr(PPOTrainer, name, nothing)
    for name in ("_reissue_inflight_prompts", "_consume_sync_metrics"):
        monkeypatch.setattr(PPOTrainer, name, nothing)
    monkeypatch.setattr(PPOTrainer, "_get_n_gpus_for_throughput", lambda _: GPUS)
    monkeypatch.setattr(PPOTrainer, "_init_dataloader", data)
    monkeypatch.setattr(PPOTrainer, "step", step)
    monkeypatch.setattr(PPOTrainer, "_save_checkpoint", save)
    monkeypatch.setattr(PPOTrainer, "_load_checkpoint", load)


def run(folder: Path, budget: Budget = NO_BUDGET, save_freq: int = 50, thrown_away: int = 0) -> Run:
    trainer = Run(folder, budget, save_freq, thrown_away)
    trainer.fit(None)
    return trainer


@pytest.mark.parametrize(
    ("budget", "thrown_away", "last"),
    [
        (Budget(tokens=500), 0, 5),
        (Budget(tokens=501), 0, 6),  # the first step at which it is spent
        (Budget(tokens=500), 150, 2),  # 250 a step with what was thrown away
        # after step n: n times 9 seconds and (n - 1) times 1 for the weights, on 4 GPUs
        (Budget(gpu_hours=4 * (3 * 9 + 2) / 3600), 0, 3),
        (Budget(gpu_hours=4 * (3 * 9 + 2.1) / 3600), 0, 4),
        (Budget(tokens=700, gpu_hours=4 * 19 / 3600), 0, 2),  # whichever comes first
        (Budget(tokens=1e9), 0, 20),
        (Budget(), 0, 20),
    ],
)
def test_it_ends_at_the_first_step_at_which_the_budget_is_spent(
    tmp_path: Path, budget: Budget, thrown_away: int, last: int
) -> None:
    trainer = run(tmp_path, budget, thrown_away=thrown_away)
    assert trainer.trained == list(range(1, last + 1))
    assert trainer.saved == [last]
    assert not is_asked_to_stop(tmp_path)
    spent = Spent(last * (TOKENS + thrown_away), GPUS * (SECONDS * last + last - 1))
    assert read_spent(tmp_path / f"global_step_{last}") == spent


def test_a_restart_counts_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Killed after step 5, of which step 4 was saved: step 5 is trained again, and counts once."""
    killed = Run(tmp_path, Budget(tokens=700), save_freq=4, thrown_away=0)
    killed.total_training_steps = 5

    def save_until_the_kill(self: Run) -> None:
        if self.global_steps == 4:
            super(Run, self)._save_checkpoint()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_save_checkpoint", save_until_the_kill, raising=False)
        killed.fit(None)
    assert killed.saved == [4]
    resumed = run(tmp_path, Budget(tokens=700))
    assert (resumed.trained, resumed.saved) == ([5, 6, 7], [7])
    assert read_spent(tmp_path / "global_step_7").tokens == 700


def test_a_spent_budget_trains_nothing_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    run(tmp_path, Budget(tokens=300))
    assert run(tmp_path, Budget(tokens=300)).trained == []
    assert run(tmp_path, Budget(tokens=500)).trained == [4, 5]


def test_a_checkpoint_that_does_not_say_is_counted_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    # not by way of the log, which a test before may have set up otherwise
    monkeypatch.setattr(budget_module.logger, "warning", said.append)
    run(tmp_path, Budget(tokens=300))
    (tmp_path / "global_step_3" / SPENT_FILE).unlink()
    assert run(tmp_path, Budget(tokens=200)).trained == [4, 5]
    assert ["does not say what its steps cost" in line for line in said] == [True]


def test_what_is_spent_is_logged_where_there_is_a_budget(tmp_path: Path) -> None:
    trainer = run(tmp_path, Budget(tokens=200))
    assert [metrics["ispo/spent/tokens"] for metrics in trainer.logged] == [100, 200]
    assert trainer.logged[1]["ispo/spent/gpu_hours"] == pytest.approx(GPUS * 19 / 3600)
    assert "ispo/spent/tokens" not in run(tmp_path / "other").logged[0]


def test_rollouts_that_are_thrown_away_are_counted_and_those_of_validation_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cleared: list[Any] = []
    monkeypatch.setattr(ReplayBuffer, "_clear_groups", lambda _, *given: cleared.append(given))
    buffer = CountingReplayBuffer.__new__(CountingReplayBuffer)
    tags = {"u1_0_0": {"seq_len": 5}, "u1_1_0": {"seq_len": 6}, "u2_0_0": {"seq_len": 70}}
    buffer.partitions = {"train": tags, "val": tags}
    buffer._clear_groups("train", {"u1"})
    buffer._clear_groups("val", {"u1", "u2"})
    buffer._clear_groups("train", set())
    assert buffer.thrown_away_tokens == 11
    assert cleared == [("train", {"u1"}), ("val", {"u1", "u2"}), ("train", set())]
