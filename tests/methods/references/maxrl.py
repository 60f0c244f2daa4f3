"""MaxRL (arXiv 2602.02710) in loops: (R - mean) / mean, 0 without a correct rollout."""

from __future__ import annotations

import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    groups, correct, masks = batch.groups.ids.tolist(), batch.correct.tolist(), batch.response_mask.tolist()
    found = []
    for row, mask in enumerate(masks):
        mean = statistics.fmean(
            float(verdict) for group, verdict in zip(groups, correct, strict=True) if group == groups[row]
        )
        value = (float(correct[row]) - mean) / mean if mean else 0.0
        found.append([value if kept else 0.0 for kept in mask])
    return found
