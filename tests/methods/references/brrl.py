"""BRRL's GBPO (arXiv 2604.18578) in loops: |(r - r*) A| with a target ratio from the group's median."""

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


def token_loss(batch: LossBatch, settings: Any) -> list[list[float]]:
    """The column `place` is the sigmoid of r*."""
    losses = []
    for ratios, advantages, places, mask in zip(
        batch.log_ratio.tolist(),
        batch.advantages.tolist(),
        batch.columns["place"].tolist(),
        batch.response_mask.tolist(),
        strict=True,
    ):
        losses.append([0.0] * len(mask))
        for position, token in enumerate(mask):
            if token:
                target = 1 - batch.clip_low + (batch.clip_high + batch.clip_low) * places[position]
                losses[-1][position] = abs((math.exp(ratios[position]) - target) * advantages[position])
    return losses
