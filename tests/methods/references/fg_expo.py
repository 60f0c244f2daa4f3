"""FG-ExPO (arXiv 2605.11403) in loops: prompts weighted by a Gaussian of their accuracy, a KL term by that of all."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    masks, groups = batch.response_mask.tolist(), batch.groups.ids.tolist()
    verdicts: dict[int, list[int]] = {}
    for row, mask in enumerate(masks):
        if any(mask):
            verdicts.setdefault(groups[row], []).append(int(batch.correct[row]))
    gaussian = {
        group: math.exp(-((statistics.fmean(own) - settings.weight_center) ** 2) / (2 * settings.weight_width**2))
        for group, own in verdicts.items()
    }
    rows = []
    for row, mask in enumerate(masks):
        weight = gaussian[groups[row]] / statistics.fmean(gaussian.values()) if any(mask) else 0.0
        values = batch.grpo_advantage[row].tolist()
        rows.append([value * weight if token else 0.0 for value, token in zip(values, mask, strict=True)])
    return rows


def token_loss(batch: LossBatch, settings: Any) -> list[list[float]]:
    losses = []
    for row, mask in enumerate(batch.response_mask.tolist()):
        losses.append([0.0] * len(mask))
        for t, token in enumerate(mask):
            if token:
                a, ratio = batch.advantages[row, t].item(), math.exp(batch.log_ratio[row, t].item())
                loss = -min(a * ratio, a * min(max(ratio, 1 - batch.clip_low), 1 + batch.clip_high))
                loss = min(loss, -a * batch.dual_clip) if a < 0 else loss
                log_prob = batch.old_log_prob[row, t].item() + batch.unclamped_log_ratio[row, t].item()
                d = min(max(batch.columns["ref_log_prob"][row, t].item() - log_prob, -20), 20)
                losses[row][t] = loss + batch.columns["kl_weight"][row, t].item() * min(math.exp(d) - d - 1, 10)
    return losses
