"""CAPO (arXiv 2604.12632) in loops over pairs of a correct and an incorrect rollout."""

from __future__ import annotations

import math
from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    groups, correct, masks = batch.groups.ids.tolist(), batch.correct.tolist(), batch.response_mask.tolist()
    confidence = _means(batch.log_prob.tolist(), masks)
    perplexity = [math.exp(-mean) for mean in _means(batch.ref_log_prob.tolist(), masks)]
    found = [0.0] * len(groups)
    for i, right in enumerate(correct):
        for j, other in enumerate(correct):
            if groups[i] != groups[j] or not right or other:
                continue
            # sigmoid(-t) = 1 / (1 + e^t)
            weight = 1 / (1 + math.exp((confidence[i] - confidence[j]) / settings.temperature))
            if settings.divide_by_temperature:
                weight /= settings.temperature
            found[i] += weight
            found[j] -= weight
    for row, right in enumerate(correct):
        if right and perplexity[row] > settings.max_correct_perplexity:
            found[row] = 0.0
        if not right and perplexity[row] < settings.min_incorrect_perplexity:
            found[row] = 0.0
    return [[found[row] if token else 0.0 for token in mask] for row, mask in enumerate(masks)]


def _means(values: list[list[float]], masks: list[list[int]]) -> list[float]:
    written = [
        [v for v, token in zip(row, mask, strict=True) if token] for row, mask in zip(values, masks, strict=True)
    ]
    return [math.fsum(row) / len(row) if row else 0.0 for row in written]
