"""Logs a step before its checkpoint is saved.

verl logs a step after saving and validation. A run that is killed in between resumes after that step and would never
log it. Readers of the file take several lines of one step as one. No public report is known.
"""

from __future__ import annotations

import math

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer


def log_before_the_checkpoint(trainer: PPOTrainer, batch: KVBatchMeta, metrics: dict) -> None:
    """Write the step's metrics, without its timings, to verl's file log, where the run has one.

    Args:
        trainer (`PPOTrainer`): at the end of a step.
        batch (`KVBatchMeta`): of the step.
        metrics (`dict`): so far.
    """
    if "file" not in trainer.logger.logger:
        return
    if trainer.config.actor_rollout_ref.rollout.get("moe_load_balance_metrics_interval", 0):
        return  # those metrics are accumulated where they are computed, and must be computed once
    metrics = dict(metrics)
    epoch = (trainer.global_steps - 1) // trainer.steps_per_epoch
    # verl divides by the time of the step, which is not over
    trainer._compute_metrics(batch, metrics, {"step": math.inf}, global_steps=trainer.global_steps, epoch=epoch)
    shown = {name: value for name, value in metrics.items() if not name.startswith(("timing", "perf/", "_"))}
    trainer.logger.log(shown, trainer.global_steps, ["file"])
