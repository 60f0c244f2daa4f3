"""CoPG (arXiv 2406.19185) in loops over pairs of a group: 1 / (k - 1) (Rb_i - Rb_j)^2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    """What is logged: RLOO's advantage on Rb under the rollout policy."""
    groups, masks = batch.groups.ids.tolist(), batch.response_mask.tolist()
    scores = [math.fsum(row) for row in batch.rewards.tolist()]
    rewards = _regularized(scores, batch.log_prob.tolist(), batch.ref_log_prob.tolist(), masks, settings)
    found = []
    for row, mask in enumerate(masks):
        others = [rewards[j] for j, group in enumerate(groups) if group == groups[row] and j != row]
        value = rewards[row] - math.fsum(others) / len(others) if others else 0.0
        found.append([value if token else 0.0 for token in mask])
    return found


def token_loss(batch: LossBatch, settings: Any) -> list[list[float]]:
    """A pair's loss in equal halves on its rollouts, a rollout's in equal parts on its tokens."""
    groups, masks = batch.groups.ids.tolist(), batch.response_mask.tolist()
    old, log_ratios = batch.old_log_prob.tolist(), batch.unclamped_log_ratio.tolist()
    new = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(old, log_ratios, strict=True)]
    rewards = _regularized(
        batch.row_column("score").tolist(), new, batch.columns["ref_log_prob"].tolist(), masks, settings
    )
    losses = [0.0] * len(masks)
    for i in range(len(masks)):
        for j in range(i + 1, len(masks)):
            if groups[i] == groups[j]:
                pair = (rewards[i] - rewards[j]) ** 2 / (groups.count(groups[i]) - 1)
                losses[i] += pair / 2
                losses[j] += pair / 2
    return [[losses[row] / sum(mask) if token else 0.0 for token in mask] for row, mask in enumerate(masks)]


def _regularized(
    scores: Sequence[float],
    log_prob: Sequence[Sequence[float]],
    ref_log_prob: Sequence[Sequence[float]],
    masks: Sequence[Sequence[int]],
    settings: Any,
) -> list[float]:
    found = []
    for score, ours, its, mask in zip(scores, log_prob, ref_log_prob, masks, strict=True):
        drift = math.fsum(a - b for a, b, token in zip(ours, its, mask, strict=True) if token)
        found.append(score - settings.beta * drift)
    return found
