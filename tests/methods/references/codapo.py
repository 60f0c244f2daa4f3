"""CoDaPO (arXiv 2606.07950) in loops: GRPO's advantage times c d_w + offset."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    masks, log_probs = batch.response_mask.tolist(), batch.log_prob.tolist()
    members: dict[int, list[int]] = {}
    for row, group in enumerate(batch.groups.ids.tolist()):
        members.setdefault(group, []).append(row)
    weights = [0.0] * len(masks)
    for rows in members.values():
        means = []
        for row in rows:
            kept = [value for value, kept in zip(log_probs[row], masks[row], strict=True) if kept]
            means.append(statistics.fmean(kept) if kept else 0.0)
        d = 1 - statistics.fmean(float(batch.correct[row]) for row in rows)
        for row in rows:
            weights[row] = math.exp(statistics.fmean(means)) * (1 - 4 * (d - 0.5) ** 2) + settings.weight_offset
    return [
        [weight * value if kept else 0.0 for value, kept in zip(values, mask, strict=True)]
        for weight, values, mask in zip(weights, batch.grpo_advantage.tolist(), masks, strict=True)
    ]
