"""SPO (arXiv 2509.13232) in loops: R minus the prompt's tracked success rate, whitened over the step."""

from __future__ import annotations

import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    masks = batch.response_mask.tolist()
    raw: dict[int, float] = {}
    for row, (key, correct) in enumerate(zip(batch.prompt_keys, batch.correct.tolist(), strict=True)):
        alpha, beta = batch.state.counts.get(key, (settings.initial_alpha, settings.initial_beta))
        if sum(masks[row]):
            raw[row] = float(correct) - alpha / (alpha + beta)
    mean = statistics.fmean(raw.values())
    std = statistics.stdev(raw.values()) if len(raw) > 1 else 0.0
    values = [(raw[row] - mean) / (std + 1e-8) if row in raw else 0.0 for row in range(len(masks))]
    return [[value if kept else 0.0 for kept in mask] for value, mask in zip(values, masks, strict=True)]
