"""GRPO-S (arXiv 2508.04349): GTPO's reward from a rollout's mean entropy, and the mean of its token ratios, clipped."""

from __future__ import annotations

import math
import statistics
from typing import Any

from tests.methods.references.gtpo import of_batch
from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    masks = batch.response_mask.tolist()
    rows = of_batch(batch, settings, by_sequence=True)
    return [[row.get(0, 0.0) * token for token in mask] for row, mask in zip(rows, masks, strict=True)]


def token_loss(batch: LossBatch, settings: Any) -> list[list[float]]:
    losses = []
    for log_ratios, advantages, mask in zip(
        batch.log_ratio.tolist(), batch.advantages.tolist(), batch.response_mask.tolist(), strict=True
    ):
        written = [position for position, token in enumerate(mask) if token]
        if not written:
            losses.append([0.0] * len(mask))
            continue
        ratio = statistics.fmean(math.exp(log_ratios[position]) for position in written)
        own = statistics.fmean(advantages[position] for position in written)
        bounded = min(1 + batch.clip_high, max(1 - batch.clip_low, ratio))
        loss = -min(own * ratio, own * bounded)
        losses.append([loss if token else 0.0 for token in mask])
    return losses
