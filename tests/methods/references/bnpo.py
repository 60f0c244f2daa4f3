"""BNPO (arXiv 2506.02864) in loops: (R - p) / BetaPDF(p), the density fitted to the prompts' accuracies."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    groups, masks = batch.groups.ids.tolist(), batch.response_mask.tolist()
    outcomes = [float(verdict) for verdict in batch.correct.tolist()]
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    p = {group: statistics.fmean(outcomes[row] for row in rows) for group, rows in members.items()}
    p |= {group: 0.0 for group, rows in members.items() if len(rows) == 1}
    prompts = [p[group] for group, rows in members.items() if any(sum(masks[row]) for row in rows)]
    alpha, beta = _fitted(prompts, settings.shrinkage)

    def weight(x: float) -> float:
        inverse = math.exp(math.lgamma(alpha) + math.lgamma(beta) - math.lgamma(alpha + beta))
        for base, power in ((x, alpha - 1), (1 - x, beta - 1)):
            if base == 0 and power > 0:
                return settings.max_weight
            inverse /= base**power
        return min(inverse, settings.max_weight)

    values = [(outcomes[row] - p[group]) * weight(p[group]) for row, group in enumerate(groups)]
    return [[value if kept else 0.0 for kept in mask] for value, mask in zip(values, masks, strict=True)]


def _fitted(prompts: list[float], shrinkage: float) -> tuple[float, float]:
    if len(set(prompts)) < 2:
        return 1.0, 1.0
    mu, v = statistics.fmean(prompts), statistics.variance(prompts)
    a = (mu * (1 - mu) / v - 1) * mu
    b = (mu * (1 - mu) / v - 1) * (1 - mu)
    return max(1 + a / shrinkage, 1.0), max(1 + b / shrinkage, 1.0)
