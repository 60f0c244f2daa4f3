"""MinPRO (arXiv 2601.22718) in loops: the ratio times the smallest earlier one, a constant weight on A log p."""

from __future__ import annotations

import math
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    """GRPO's."""
    rows = zip(batch.grpo_advantage.tolist(), batch.response_mask.tolist(), strict=True)
    return [[a * token for a, token in zip(*row, strict=True)] for row in rows]


def token_loss(batch: LossBatch, settings: Any, point: LossBatch | None = None) -> list[list[float]]:
    log_ratios = (point or batch).log_ratio.tolist()
    old, change = batch.old_log_prob.tolist(), batch.unclamped_log_ratio.tolist()
    losses = []
    for row, mask in enumerate(batch.response_mask.tolist()):
        losses.append([0.0] * len(mask))
        earlier: list[float] = []
        for t, token in enumerate(mask):
            if token:
                ratio = math.exp(log_ratios[row][t])
                weight = min(max(ratio * min(earlier, default=1.0), 1 - batch.clip_low), 1 + batch.clip_high)
                losses[row][t] = -weight * batch.advantages[row][t].item() * (old[row][t] + change[row][t])
                earlier.append(ratio)
    return losses
