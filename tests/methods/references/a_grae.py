"""A-GRAE (arXiv 2602.05548) in loops: GRPO's advantage weighted by the accuracy of the group and of the step."""

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
    prompts = [p[group] for group, rows in members.items() if any(sum(masks[row]) for row in rows)]
    mu = statistics.fmean(prompts) if prompts else 0.0
    values = [0.0] * len(groups)
    for group, rows in members.items():
        if len(rows) == 1:
            continue
        std = statistics.stdev(outcomes[row] for row in rows)
        for row in rows:
            s = (outcomes[row] - p[group]) / (std + 1e-6 if batch.normalize_by_std else 1.0)
            easy = 0.5 * s / (1 - math.sqrt(p[group]) + 1e-6)
            diff = 0.5 * s / (math.sqrt(p[group]) + 1e-6)
            value = (1 - mu) * easy + mu * diff
            values[row] = value * min(1.0, mu / settings.full_accuracy) if value > 0 else value
    return [[value if kept else 0.0 for kept in mask] for value, mask in zip(values, masks, strict=True)]
