"""GTPO with conflict tokens (arXiv 2508.03772) in loops: weights by conflict, A less the mean entropy."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    masks, groups = batch.response_mask.tolist(), batch.groups.ids.tolist()
    scores = [math.fsum(row) for row in batch.rewards.tolist()]
    written = [[t for t, token in enumerate(mask) if token] for mask in masks]
    texts = [[batch.response_ids[row, t].item() for t in places] for row, places in enumerate(written)]
    a = [_grpo(scores, groups, row, batch.normalize_by_std) for row in range(len(masks))]
    values = [[0.0] * len(mask) for mask in masks]
    for row, places in enumerate(written):
        if not places:
            continue
        others = [texts[other] for other in range(len(masks)) if groups[other] == groups[row] and a[other] * a[row] < 0]
        start = _run(texts[row], others)
        end = _run(texts[row][::-1], [other[::-1] for other in others])
        entropy = statistics.fmean(batch.entropy[row, t].item() for t in places)
        shaped = 0.0 if entropy > settings.max_entropy else a[row] - settings.entropy_weight * entropy
        conflicts = 0
        for number, t in enumerate(places):
            runs = (number < start) + (len(places) - number <= end)
            conflicts += runs > 0
            values[row][t] = shaped * (settings.positive_weight if a[row] > 0 else settings.negative_weight) ** runs
        values[row] = [value / max(conflicts, 1) for value in values[row]]
    return values


def _grpo(scores: list[float], groups: list[int], row: int, by_std: bool) -> float:
    own = [score for score, group in zip(scores, groups, strict=True) if group == groups[row]]
    if len(own) == 1:
        return scores[row] / (1 + 1e-6) if by_std else scores[row]
    if min(own) == max(own):
        return 0.0
    centred = scores[row] - statistics.fmean(own)
    return centred / (statistics.stdev(own) + 1e-6) if by_std else centred


def _run(text: list[int], others: list[list[int]]) -> int:
    """How many tokens from the left each stand in one of the others at the same place."""
    for place, token in enumerate(text):
        if not any(len(other) > place and other[place] == token for other in others):
            return place
    return len(text)


def token_loss(batch: LossBatch, settings: Any, point: LossBatch | None = None) -> list[list[float]]:
    now, at_point = batch.unclamped_log_ratio.tolist(), (point or batch).unclamped_log_ratio.tolist()
    return [
        [
            -batch.advantages[row, t].item() * math.exp(now[row][t] - at_point[row][t]) if token else 0.0
            for t, token in enumerate(mask)
        ]
        for row, mask in enumerate(batch.response_mask.tolist())
    ]
