"""VESPO (arXiv 2602.10693) in loops: -phi A log p, phi from the likelihood ratio of the whole sequence."""

from __future__ import annotations

import math
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    """GRPO's."""
    return [
        [value if token else 0.0 for value, token in zip(values, mask, strict=True)]
        for values, mask in zip(batch.grpo_advantage.tolist(), batch.response_mask.tolist(), strict=True)
    ]


def token_loss(batch: LossBatch, settings: Any, point: LossBatch | None = None) -> list[list[float]]:
    """phi is that of `point`."""
    losses, bound = [], settings.max_abs_log_weight
    around = (point or batch).unclamped_log_ratio.tolist()
    for row, mask in enumerate(batch.response_mask.tolist()):
        terms = [min(max(value, -bound), bound) for value, token in zip(around[row], mask, strict=True) if token]
        log_weight = min(max(math.fsum(terms), -bound), bound)
        losses.append([0.0] * len(mask))
        for position, token in enumerate(mask):
            if not token:
                continue
            own = batch.advantages[row, position].item()
            k, lam = settings.k_positive, settings.lam_positive
            if own < 0:
                k, lam = settings.k_negative, settings.lam_negative
            phi = math.exp(lam + k * log_weight - lam * math.exp(log_weight))
            log_prob = batch.old_log_prob[row, position].item() + batch.unclamped_log_ratio[row, position].item()
            losses[row][position] = -phi * own * log_prob
    return losses
