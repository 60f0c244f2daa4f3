"""EP-GRPO (arXiv 2605.04960), token by token."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch


def sign(value: float) -> float:
    return float((value > 0) - (value < 0))


def z_score(value: float, values: list[float]) -> float:
    if len(values) < 2 or max(values) == min(values):
        return 0.0
    return (value - statistics.fmean(values)) / (statistics.stdev(values) + 1e-6)


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    groups, masks = batch.groups.ids.tolist(), batch.response_mask.tolist()
    entropy, grpo = batch.entropy.tolist(), batch.grpo_advantage.tolist()
    rewards = [math.fsum(row) for row in batch.rewards.tolist()]
    policy, reference = batch.log_prob.tolist(), batch.ref_log_prob.tolist()
    written = {(row, position) for row, mask in enumerate(masks) for position, one in enumerate(mask) if one}
    all_entropy = [entropy[row][position] for row, position in sorted(written)]

    drift: dict[tuple[int, int], float] = {}
    bucket: dict[tuple[int, int], tuple[int, int]] = {}
    for row, position in sorted(written):
        own = [other for its, other in written if its == row]
        of_group = [reward for reward, group in zip(rewards, groups, strict=True) if group == groups[row]]
        is_mixed = max(of_group) > min(of_group)
        direction = sign(grpo[row][position]) if is_mixed else sign(rewards[row] - settings.reward_threshold)
        drift[row, position] = direction * settings.drift_scale * (policy[row][position] - reference[row][position])
        total = sum(max(entropy[row][other], 0.0) for other in own)
        spent = sum(max(entropy[row][other], 0.0) for other in own if other <= position)
        place = min(int(settings.buckets * spent / total), settings.buckets - 1) if total > 0 else 0
        bucket[row, position] = groups[row], place

    found = [[0.0] * len(mask) for mask in masks]
    for row, position in written:
        same = [drift[at] for at in sorted(written) if bucket[at] == bucket[row, position]]
        gate = 1 / (1 + math.exp(-settings.gate_slope * z_score(entropy[row][position], all_entropy)))
        progress = settings.progress_weight * z_score(drift[row, position], same)
        found[row][position] = grpo[row][position] * gate + progress
    return found
