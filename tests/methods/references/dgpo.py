"""DGPO (arXiv 2601.20614) in loops: absolute deviation, token scale, softmax over the prompts whose scores differ."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    groups, masks, correct = batch.groups.ids.tolist(), batch.response_mask.tolist(), batch.correct.tolist()
    scores = [math.fsum(row) for row in batch.rewards.tolist()]
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    differing = [group for group, rows in members.items() if len({scores[row] for row in rows}) > 1]
    tokens = {group: sum(bool(kept) for row in rows for kept in masks[row]) for group, rows in members.items()}
    learning = sum(tokens[group] for group in differing)
    scale = sum(tokens.values()) / learning if learning else 1.0
    exponentials = {}
    for group in differing:
        accuracy = statistics.fmean(float(correct[row]) for row in members[group])
        exponentials[group] = math.exp(-(accuracy or 1.0) / settings.temperature)
    values = [0.0] * len(groups)
    for group in differing:
        rows = members[group]
        mean = statistics.fmean(scores[row] for row in rows)
        total = math.fsum(abs(scores[row] - mean) for row in rows)
        weight = len(differing) * exponentials[group] / math.fsum(exponentials.values())
        for row in rows:
            values[row] = len(rows) * (scores[row] - mean) / (total + settings.epsilon) * scale * weight
    return [[value if kept else 0.0 for kept in mask] for value, mask in zip(values, masks, strict=True)]
