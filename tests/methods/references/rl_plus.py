"""RL-PLUS (arXiv 2508.00222) in loops: own rollouts against their mean, and a trace of the data with its own weight."""

from __future__ import annotations

import math
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    scores = [sum(row) for row in batch.rewards.tolist()]
    groups, expert = batch.groups.ids.tolist(), batch.expert.tolist()
    values = []
    for score, group in zip(scores, groups, strict=True):
        own = [
            other for other, of, is_expert in zip(scores, groups, expert, strict=True) if of == group and not is_expert
        ]
        values.append(score - (sum(own) / len(own) if len(own) > 1 else 0.0))
    masks = batch.response_mask.tolist()
    return [[value if kept else 0.0 for kept in mask] for value, mask in zip(values, masks, strict=True)]


def token_loss(batch: LossBatch, settings: Any, point: LossBatch | None = None) -> list[list[float]]:
    """``point`` is where the factor without a gradient is taken; the batch itself where it is left out."""
    expert = batch.columns["expert"].tolist()
    rows = zip(
        batch.advantages.tolist(),
        batch.old_log_prob.tolist(),
        batch.log_ratio.tolist(),
        batch.unclamped_log_ratio.tolist(),
        (batch if point is None else point).unclamped_log_ratio.tolist(),
        batch.response_mask.tolist(),
        expert,
        strict=True,
    )
    losses = []
    for row in rows:
        losses.append([])
        for a, log_old, log_ratio, unclamped, at, kept, is_expert in zip(*row, strict=True):
            if not kept:
                losses[-1].append(0.0)
            elif is_expert:
                p, old = math.exp(log_old + unclamped), math.exp(log_old)
                ratio = 2 * p / (old + settings.prior_weight * (old + 1))
                unexplored = max(1 - math.exp(log_old + at), 0.0)
                losses[-1].append(-a * unexplored**settings.exploration_power * ratio)
            else:
                losses[-1].append(-a * math.exp(log_ratio))
    return losses
