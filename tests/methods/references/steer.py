"""STEER (arXiv 2510.10150) in loops: the clipped loss with less weight where the entropy would change most."""

from __future__ import annotations

import math
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch

MICRO_BATCH_IS_PART_OF_THE_RULE = "weights come from the largest change of entropy in the micro-batch"


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    """GRPO's."""
    rows = zip(batch.grpo_advantage.tolist(), batch.response_mask.tolist(), strict=True)
    return [[a * token for a, token in zip(*row, strict=True)] for row in rows]


def token_loss(batch: LossBatch, settings: Any, point: LossBatch | None = None) -> list[list[float]]:
    at = point or batch
    tokens = [
        (row, t) for row, mask in enumerate(batch.response_mask.tolist()) for t, token in enumerate(mask) if token
    ]
    change = {}
    for place in tokens:
        old = at.old_log_prob[place].item()
        p = min(max(math.exp(old + at.unclamped_log_ratio[place].item()), 1e-8), 1 - 1e-8)
        p_old = min(max(math.exp(old), 1e-8), 1.0)
        omega = at.advantages[place].item() / p_old * p * (1 - p) * (math.log(p) + at.entropy[place].item())
        change[place] = abs(omega)
    largest, smallest = max(change.values()), min(change.values())
    losses = [[0.0] * len(mask) for mask in batch.response_mask.tolist()]
    for row, t in tokens:
        if settings.mapping == "exponential":
            k = -math.log(settings.min_weight) / max(largest, settings.min_scale)
            weight = math.exp(-k * change[row, t])
        elif largest > smallest:
            share = (change[row, t] - smallest) / (largest - smallest)
            weight = settings.max_weight - (settings.max_weight - settings.min_weight) * share
        else:
            weight = (settings.max_weight + settings.min_weight) / 2
        a, ratio = batch.advantages[row, t].item(), math.exp(batch.log_ratio[row, t].item())
        loss = -min(a * ratio, a * min(max(ratio, 1 - batch.clip_low), 1 + batch.clip_high))
        losses[row][t] = weight * (min(loss, -a * batch.dual_clip) if a < 0 else loss)
    return losses
