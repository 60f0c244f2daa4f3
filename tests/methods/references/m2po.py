"""M2PO (arXiv 2510.01161) in loops: a bound on the mean of (log r)^2 over the tokens that are pushed away."""

from __future__ import annotations

import math
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch

MICRO_BATCH_IS_PART_OF_THE_RULE = "the mean is over the tokens of the micro-batch, as in the authors' code"


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    """GRPO's."""
    rows = zip(batch.grpo_advantage.tolist(), batch.response_mask.tolist(), strict=True)
    return [[a * token for a, token in zip(*row, strict=True)] for row in rows]


def token_loss(batch: LossBatch, settings: Any, point: LossBatch | None = None) -> list[list[float]]:
    """The bound is a constant of the gradient, so it is that of the point."""
    bound, masks, advantages = settings.second_moment_bound, batch.response_mask.tolist(), batch.advantages.tolist()
    log_ratios, at_point = batch.log_ratio.tolist(), (point or batch).log_ratio.tolist()
    away = {
        (row, t): at_point[row][t] ** 2
        for row, mask in enumerate(masks)
        for t, token in enumerate(mask)
        if token and advantages[row][t] * at_point[row][t] > 0
    }
    squares = sorted(away.values())
    exceeded = bool(squares) and math.fsum(squares) / len(squares) > bound + 1e-12
    low, high, kept = 1.0, math.inf, math.inf
    if exceeded and settings.rule == "clip":
        capped = [v for v in squares if math.fsum(min(v, other) for other in squares) / len(squares) < bound - 1e-12]
        tau = math.sqrt(max(capped, default=0.0))
        low, high = max(1 - math.exp(-tau), settings.min_clip_low), max(math.exp(tau) - 1, settings.min_clip_high)
    elif exceeded:
        kept = -1.0
        for v in squares:
            smaller = [other for other in squares if other <= v]
            if math.fsum(smaller) / len(smaller) <= bound:
                kept = v
    losses = [[0.0] * len(mask) for mask in masks]
    for row, mask in enumerate(masks):
        for t, token in enumerate(mask):
            if token and away.get((row, t), -1.0) <= kept:
                a, ratio = advantages[row][t], math.exp(log_ratios[row][t])
                losses[row][t] = -min(a * ratio, a * min(max(ratio, 1 - low), 1 + high))
    return losses
