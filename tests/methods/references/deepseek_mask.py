"""Off-policy sequence mask of DeepSeek-V3.2 (arXiv 2512.02556) in loops: no loss for diverged rollouts with A < 0."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    """GRPO's."""
    rows = zip(batch.grpo_advantage.tolist(), batch.response_mask.tolist(), strict=True)
    return [[a * token for a, token in zip(*row, strict=True)] for row in rows]


def token_loss(batch: LossBatch, settings: Any, point: LossBatch | None = None) -> list[list[float]]:
    at_point = (point or batch).unclamped_log_ratio.tolist()
    losses = []
    for row, mask in enumerate(batch.response_mask.tolist()):
        written = [t for t, token in enumerate(mask) if token]
        losses.append([0.0] * len(mask))
        far = bool(written) and statistics.fmean(-at_point[row][t] for t in written) > settings.max_divergence
        for t in written:
            a, ratio = batch.advantages[row, t].item(), math.exp(batch.log_ratio[row, t].item())
            loss = -min(a * ratio, a * min(max(ratio, 1 - batch.clip_low), 1 + batch.clip_high))
            loss = min(loss, -a * batch.dual_clip) if a < 0 else loss
            losses[row][t] = 0.0 if far and a < 0 else loss
    return losses
