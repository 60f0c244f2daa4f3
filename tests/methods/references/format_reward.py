"""Format reward (arXiv 2506.10947) in loops: GRPO's advantage on whether a rollout has an answer."""

from __future__ import annotations

import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    masks, groups = batch.response_mask.tolist(), batch.groups.ids.tolist()
    rewards = [0.0 if text is None else 1.0 for text in batch.answer_texts]
    values = []
    for row, group in enumerate(groups):
        members = [rewards[other] for other in range(len(groups)) if groups[other] == group]
        if len(members) == 1:
            mean, std = 0.0, 1.0
        else:
            mean, std = statistics.fmean(members), statistics.stdev(members)
        values.append((rewards[row] - mean) / (std + 1e-6 if batch.normalize_by_std else 1.0))
    return [[value if kept else 0.0 for kept in mask] for value, mask in zip(values, masks, strict=True)]
