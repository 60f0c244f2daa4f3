"""AVSPO (arXiv 2605.21125) in loops: virtual rewards in the mean and the std of collapsed groups."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    groups, masks, correct = batch.groups.ids.tolist(), batch.response_mask.tolist(), batch.correct.tolist()
    found = [
        [value if kept else 0.0 for value, kept in zip(row, mask, strict=True)]
        for row, mask in zip(batch.grpo_advantage.tolist(), masks, strict=True)
    ]
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    prompts = [rows for rows in members.values() if any(sum(masks[row]) for row in rows)]
    collapsed = [rows for rows in prompts if len({correct[row] for row in rows}) == 1]
    if not prompts:
        return found
    rate = len(collapsed) / len(prompts)
    opposite = settings.virtual_rewards == "opposite"
    if opposite:
        active = len({correct[row] for rows in prompts for row in rows}) == 1
    else:
        known = None if batch.state is None else batch.state.threshold
        active = rate > (settings.initial_threshold if known is None else known)
    for rows in collapsed if active else []:
        outcome, size = float(correct[rows[0]]), len(rows)
        if opposite:
            virtual = [1 - outcome]
        else:
            m = max(1, min(size, math.ceil(round(size * rate**settings.sensitivity, 9))))
            steps = range(1, m + 1)
            virtual = [1 - k / (m + 1) if outcome else settings.anchor_reward * (m - k + 1) / m for k in steps]
        values = [outcome] * size + virtual
        std = statistics.stdev(values) if opposite else statistics.pstdev(values)
        for row in rows:
            value = (outcome - statistics.fmean(values)) / (std + settings.epsilon)
            found[row] = [value if kept else 0.0 for kept in masks[row]]
    return found
