"""TRPA (arXiv 2504.04524) in loops over pairs: -log sigmoid(b f (g_i - g_j)), and a KL term to the old policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    """What is logged: minus the slope of rollouts x loss in a rollout's mean log-prob, without the KL term."""
    groups, correct, masks = batch.groups.ids.tolist(), batch.correct.tolist(), batch.response_mask.tolist()
    drifts = _drifts(batch.log_prob.tolist(), batch.ref_log_prob.tolist(), masks)
    scores = [math.fsum(row) for row in batch.rewards.tolist()]
    pairs = []
    for i, right in enumerate(correct):
        for j, other in enumerate(correct):
            better = (right and not other) or (not right and not other and scores[i] > scores[j])
            if groups[i] == groups[j] and better:
                pairs.append((i, j))
    rollouts = sum(1 for mask in masks if any(mask))
    found = [0.0] * len(groups)
    for i, j in pairs:
        slope = settings.beta * (settings.top_level_factor if correct[i] else 1)
        weight = slope * _sigmoid(-slope * (drifts[i] - drifts[j])) * rollouts / len(pairs)
        found[i] += weight
        found[j] -= weight
    if not pairs:
        found = [_sigmoid(-g) if right else -_sigmoid(g) for g, right in zip(drifts, correct, strict=True)]
    return [[found[row] if token else 0.0 for token in mask] for row, mask in enumerate(masks)]


def token_loss(batch: LossBatch, settings: Any) -> list[list[float]]:
    """Columns: the level, the reference's log-probs, rollouts per pair and per token of the step."""
    groups, masks = batch.groups.ids.tolist(), batch.response_mask.tolist()
    levels, scales = batch.row_column("level").tolist(), batch.row_column("pair_scale").tolist()
    old, log_ratios = batch.old_log_prob.tolist(), batch.unclamped_log_ratio.tolist()
    new = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(old, log_ratios, strict=True)]
    drifts = _drifts(new, batch.columns["ref_log_prob"].tolist(), masks)
    losses = []
    for i, mask in enumerate(masks):
        loss = 0.0
        for j in range(len(masks)):
            if groups[i] == groups[j] and round(levels[i]) < round(levels[j]):
                factor = settings.beta * (settings.top_level_factor if round(levels[i]) == 1 else 1)
                loss += scales[i] * -_log_sigmoid(factor * (drifts[i] - drifts[j]))
        if scales[i] == 0:
            loss = -_log_sigmoid(drifts[i] if round(levels[i]) == 1 else -drifts[i])
        losses.append([0.0] * len(mask))
        for position, token in enumerate(mask):
            if token:
                ratio = min(max(log_ratios[i][position], -20.0), 20.0)
                kl = min(math.exp(-ratio) + ratio - 1, 10.0)
                of_kl = settings.kl_weight * batch.columns["token_scale"][i, position].item() * kl
                losses[-1][position] = loss / sum(mask) + of_kl
    return losses


def _drifts(
    log_prob: Sequence[Sequence[float]], ref_log_prob: Sequence[Sequence[float]], masks: Sequence[Sequence[int]]
) -> list[float]:
    found = []
    for ours, its, mask in zip(log_prob, ref_log_prob, masks, strict=True):
        differences = [a - b for a, b, token in zip(ours, its, mask, strict=True) if token]
        found.append(math.fsum(differences) / len(differences) if differences else 0.0)
    return found


def _sigmoid(x: float) -> float:
    return math.exp(_log_sigmoid(x))


def _log_sigmoid(x: float) -> float:
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))
