"""ADORA in loops: GRPO's advantage, damped in groups whose correct rollouts are not the longer ones."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    groups, correct = batch.groups.ids.tolist(), batch.correct.tolist()
    masks, grpo = batch.response_mask.tolist(), batch.grpo_advantage.tolist()
    lengths = [sum(bool(kept) for kept in mask) for mask in masks]
    limit = math.inf if settings.length_limit is None else settings.length_limit
    found = []
    for row, mask in enumerate(masks):
        members = [other for other, group in enumerate(groups) if group == groups[row]]
        right = [lengths[other] for other in members if correct[other]]
        wrong = [lengths[other] for other in members if not correct[other] and lengths[other] < limit]
        kept_group = max(right, default=-math.inf) > (statistics.fmean(wrong) if wrong else -math.inf)
        weight = 1.0 if kept_group else settings.damping
        found.append([weight * grpo[row][t] if kept else 0.0 for t, kept in enumerate(mask)])
    return found
