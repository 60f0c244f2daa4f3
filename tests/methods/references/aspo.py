"""ASPO (Archer 2.0) in loops: r for negative advantages, 1 / r for the others, a clip by entropy, bounded weights."""

from __future__ import annotations

import math
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    """GRPO's."""
    rows = zip(batch.grpo_advantage.tolist(), batch.response_mask.tolist(), strict=True)
    return [[a * token for a, token in zip(*row, strict=True)] for row in rows]


def quantile(values: list[float], share: float) -> float:
    """Interpolated between two values."""
    ordered = sorted(values)
    rank = share * (len(ordered) - 1)
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (rank - below) * (ordered[above] - ordered[below])


def token_loss(batch: LossBatch, settings: Any, point: LossBatch | None = None) -> list[list[float]]:
    at_point = (point or batch).log_ratio.tolist()
    losses = []
    for row, mask in enumerate(batch.response_mask.tolist()):
        losses.append([0.0] * len(mask))
        entropies = {t: batch.entropy[row, t].item() for t, token in enumerate(mask) if token}
        for t, entropy in entropies.items():
            low = entropy <= quantile(list(entropies.values()), settings.entropy_quantile)
            e = settings.low_entropy_clip if low else settings.high_entropy_clip
            a = batch.advantages[row, t].item()

            def clip(log_ratio: float, a: float = a, e: float = e) -> float:
                return max(math.exp(log_ratio), 1 - e) if a < 0 else min(math.exp(log_ratio), 1 + e)

            ratio, constant = clip(batch.log_ratio[row, t].item()), clip(at_point[row][t])
            log_prob = batch.old_log_prob[row, t].item() + batch.unclamped_log_ratio[row, t].item()
            weight = constant if a < 0 else 1 / constant
            if weight > settings.max_weight:
                losses[row][t] = -a * settings.max_weight * log_prob
            else:
                losses[row][t] = -a * ratio if a < 0 else -a * (ratio / constant) / constant
    return losses
