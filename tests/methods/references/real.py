"""REAL (arXiv 2602.05630): the rollouts' mean log-ratios as logits that tell correct from incorrect ones."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    """Logged only: the direction in which a rollout of a mixed group is moved."""
    groups, correct = batch.groups.ids.tolist(), batch.correct.tolist()
    rows = []
    for row, mask in enumerate(batch.response_mask.tolist()):
        outcomes = {correct[other] for other, group in enumerate(groups) if group == groups[row]}
        value = 0.0 if len(outcomes) == 1 else 1.0 if correct[row] else -1.0
        rows.append([value * token for token in mask])
    return rows


def token_loss(batch: LossBatch, settings: Any) -> list[list[float]]:
    """Each group's loss on every one of its rollouts, in equal parts on the rollout's tokens."""
    masks, log_ratios = batch.response_mask.tolist(), batch.log_ratio.tolist()
    written = [[position for position, token in enumerate(mask) if token] for mask in masks]
    losses = [[0.0] * len(mask) for mask in masks]
    score, correct, group = {}, {}, {}
    for row, positions in enumerate(written):
        if positions:
            score[row] = statistics.fmean(log_ratios[row][position] for position in positions)
            correct[row] = batch.columns["correct"][row][positions[0]].item() > 0.5
            group[row] = batch.columns["group"][row][positions[0]].item()
    for one in set(group.values()):
        rows = [row for row in group if group[row] == one]
        right = [math.exp(-score[row] / settings.temperature) for row in rows if correct[row]]
        wrong = [math.exp(score[row] / settings.temperature) for row in rows if not correct[row]]
        loss = math.log1p(math.fsum(wrong)) + math.log1p(math.fsum(right)) if right and wrong else 0.0
        for row in rows:
            for position in written[row]:
                losses[row][position] = loss / len(written[row])
    return losses
