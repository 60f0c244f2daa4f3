"""PREPO (arXiv 2511.00794): GRPO's advantage times the rollout's mean entropy over the batch's mean of those."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from verl_ispo.methods.method import MethodBatch


def weights(entropies: Sequence[Sequence[float]]) -> list[float]:
    """One weight per rollout, from the entropies of its tokens; 1 for one without tokens, and where all are 0."""
    means = [statistics.fmean(own) if own else None for own in entropies]
    counted = [mean for mean in means if mean is not None]
    overall = statistics.fmean(counted) if counted else 0.0
    return [1.0 if mean is None or overall == 0 else mean / overall for mean in means]


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    entropies = [
        [entropy for entropy, token in zip(row, mask, strict=True) if token]
        for row, mask in zip(batch.entropy.tolist(), batch.response_mask.tolist(), strict=True)
    ]
    grpo = batch.grpo_advantage.tolist()
    return [[weight * value for value in row] for weight, row in zip(weights(entropies), grpo, strict=True)]
