"""Delta-L normalization (arXiv 2509.07558) in loops: GRPO's advantage times a power of the length."""

from __future__ import annotations

import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    masks, grpo = batch.response_mask.tolist(), batch.grpo_advantage.tolist()
    lengths = [sum(bool(kept) for kept in mask) for mask in masks]
    written = [length for length in lengths if length]
    x = [(length / statistics.fmean(written)) ** -settings.alpha if length else None for length in lengths]
    found = []
    for row, mask in enumerate(masks):
        weight = x[row] / statistics.fmean(value for value in x if value is not None) if lengths[row] else 0.0
        found.append([grpo[row][t] * weight if kept else 0.0 for t, kept in enumerate(mask)])
    return found
