"""Scaf-GRPO (arXiv 2510.19807) in loops: the advantage is GRPO's; what is its own are the rollouts it is taken of."""

from __future__ import annotations

from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    scores = [sum(row) for row in batch.rewards.tolist()]
    masks, groups = batch.response_mask.tolist(), batch.groups.ids.tolist()
    values = []
    for score, group in zip(scores, groups, strict=True):
        others = [other for other, of in zip(scores, groups, strict=True) if of == group]
        mean, std = 0.0, 1.0
        if len(others) > 1:
            mean = sum(others) / len(others)
            std = (sum((other - mean) ** 2 for other in others) / (len(others) - 1)) ** 0.5
        values.append((score - mean) / (std + 1e-6) if batch.normalize_by_std else score - mean)
    return [[value if kept else 0.0 for kept in mask] for value, mask in zip(values, masks, strict=True)]
