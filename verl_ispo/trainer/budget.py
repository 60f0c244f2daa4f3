"""Ends a training at the first step at which its budget of tokens or GPU hours is spent (`verl_ispo.runs.spent`).

The end is that of `ask_to_stop`: the step is saved, and verl's loop ends behind it.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from verl_ispo.runs.checkpoint_folder import ask_to_stop
from verl_ispo.runs.spent import Budget, Spent, read_spent, write_spent

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

WEIGHTS_TIMER = "update_weights"
"""verl's timer around the copying of weights, which comes behind a step."""


class CountingReplayBuffer(ReplayBuffer):
    """verl's replay buffer, which counts the tokens of training rollouts that it throws away.

    verl clears groups here that are not trained on: of equal outcomes (DAPO), stale, failed, or more than were needed.
    """

    thrown_away_tokens = 0

    def _clear_groups(self, partition_id: str, uids: set[str]) -> None:
        if partition_id == "train":
            tags = (tag for key, tag in self.partitions[partition_id].items() if key.split("_")[0] in uids)
            self.thrown_away_tokens += sum(tag.get("seq_len", 0) for tag in tags)
        super()._clear_groups(partition_id, uids)


class BudgetedTrainer(PPOTrainer):
    """verl's V1 trainer, which counts what it spends."""

    budget = Budget()
    spent = Spent()
    _thrown_away = 0
    _weights_timing: dict = {}  # noqa: RUF012 (replaced, never changed)

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        self.budget = Budget.of_section(config.trainer.v1.get("ispo"))

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        gpus = self._get_n_gpus_for_throughput()
        begun = time.monotonic()
        batch = super().step(metrics, timing_raw)
        seconds = time.monotonic() - begun + self._weights_timing.get(WEIGHTS_TIMER, 0.0)
        self._weights_timing = timing_raw
        thrown_away = getattr(self.replay_buffer, "thrown_away_tokens", 0)
        tokens = sum(tag.get("seq_len", 0) for tag in batch.tags if not tag.get("is_padding", False))
        self.spent = Spent(
            self.spent.tokens + tokens + thrown_away - self._thrown_away, self.spent.gpu_seconds + seconds * gpus
        )
        self._thrown_away = thrown_away
        if self.budget != Budget():
            metrics["ispo/spent/tokens"] = self.spent.tokens
            metrics["ispo/spent/gpu_hours"] = self.spent.gpu_seconds / 3600
        if self.budget.is_spent(self.spent):
            logger.info(f"step {self.global_steps}: the budget of {self.budget} is spent ({self.spent})")
            ask_to_stop(Path(self.config.trainer.default_local_dir))
        return batch

    def _save_checkpoint(self) -> None:
        # Written first, since verl ends by naming this step the latest complete one.
        write_spent(Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}", self.spent)
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if not self.global_steps:
            return
        trainer = self.config.trainer
        own = Path(trainer.default_local_dir) / f"global_step_{self.global_steps}"
        saved = Path(trainer.resume_from_path) if trainer.resume_mode == "resume_path" else own
        found = read_spent(saved)
        if found is None and self.budget != Budget():
            logger.warning(f"{saved} does not say what its steps cost; the budget is counted from here")
        self.spent = found or self.spent
        if self.budget.is_spent(self.spent):
            logger.info(f"the budget of {self.budget} was spent before this start ({self.spent}): nothing is trained")
            self.total_training_steps = min(self.total_training_steps, self.global_steps)
