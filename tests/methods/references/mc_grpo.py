"""MC-GRPO (arXiv 2601.22582) in loops: lower medians, and the rollout at the median that leaves the loss."""

from __future__ import annotations

import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    masks = batch.response_mask.tolist()
    values = [0.0] * len(masks)
    for members, rewards, median in groups_of(batch):
        mad = statistics.median_low([abs(reward - median) for reward in rewards])
        scaled = [(reward - median) / (mad + settings.mad_epsilon) for reward in rewards]
        count = sum(abs(value) > 1e-6 for value in scaled)
        factor = len(members) / count if settings.rescale_nonzero and count else 1.0
        for row, value in zip(members, scaled, strict=True):
            values[row] = value * factor if abs(value) > 1e-6 else value
    return [[value if kept else 0.0 for kept in mask] for value, mask in zip(values, masks, strict=True)]


def keeps(batch: MethodBatch, settings: Any) -> list[list[bool]]:
    masks = batch.response_mask.tolist()
    kept = [True] * len(masks)
    for members, rewards, median in groups_of(batch):
        if len(members) > 1:
            at_median = [row for row, reward in zip(members, rewards, strict=True) if reward == median]
            kept[statistics.median_low((sum(masks[row]), row) for row in at_median)[1]] = False
    return [[own] * len(mask) for own, mask in zip(kept, masks, strict=True)]


def groups_of(batch: MethodBatch) -> list[tuple[list[int], list[float], float]]:
    """Rows, scores and median of each group."""
    scores = [sum(row) for row in batch.rewards.tolist()]
    members: dict[int, list[int]] = {}
    for row, group in enumerate(batch.groups.ids.tolist()):
        members.setdefault(group, []).append(row)
    rewards = {group: [scores[row] for row in rows] for group, rows in members.items()}
    return [(rows, rewards[group], statistics.median_low(rewards[group])) for group, rows in members.items()]
