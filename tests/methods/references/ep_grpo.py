"""EP-GRPO (arXiv 2605.04960), token by token."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch


def sign(value: float) -> float:
    return float((value > 0) - (value < 0))


def z_scores(values: list[float]) -> list[float]:
    if len(values) < 2 or max(values) == min(values):
        return [0.0] * len(values)
    mean, std = statistics.fmean(values), statistics.stdev(values)
    return [(value - mean) / (std + 1e-6) for value in values]


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

    progress: dict[tuple[int, int], float] = {}
    for one in set(bucket.values()):
        same = [at for at in sorted(written) if bucket[at] == one]
        progress |= dict(zip(same, z_scores([drift[at] for at in same]), strict=True))

    found = [[0.0] * len(mask) for mask in masks]
    for (row, position), score in zip(sorted(written), z_scores(all_entropy), strict=True):
        gate = 1 / (1 + math.exp(-settings.gate_slope * score))
        found[row][position] = grpo[row][position] * gate + settings.progress_weight * progress[row, position]
    return found
