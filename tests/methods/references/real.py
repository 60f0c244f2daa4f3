"""REAL (arXiv 2602.05630): log(1 + sum over incorrect of exp(s / tau)) + log(1 + sum over correct of exp(-s / tau))."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    """The direction that is logged: -1 and 1 in groups of both outcomes."""
    groups, correct = batch.groups.ids.tolist(), batch.correct.tolist()
    found = []
    for row, mask in enumerate(batch.response_mask.tolist()):
        outcomes = {verdict for verdict, group in zip(correct, groups, strict=True) if group == groups[row]}
        value = 0.0 if len(outcomes) == 1 else 1.0 if correct[row] else -1.0
        found.append([value if token else 0.0 for token in mask])
    return found


def token_loss(batch: LossBatch, settings: Any) -> list[list[float]]:
    """Each rollout's tokens carry equal parts of its group's loss."""
    groups, correct = batch.groups.ids.tolist(), batch.row_column("correct").tolist()
    masks = batch.response_mask.tolist()
    scores: dict[int, float] = {}
    for row, (values, mask) in enumerate(zip(batch.unclamped_log_ratio.tolist(), masks, strict=True)):
        written = [value for value, token in zip(values, mask, strict=True) if token]
        if written:
            scores[row] = statistics.fmean(written)
    losses = [[0.0] * len(mask) for mask in masks]
    for group in set(groups):
        rows = [row for row in scores if groups[row] == group]
        right = [-scores[row] / settings.temperature for row in rows if correct[row] == 1]
        wrong = [scores[row] / settings.temperature for row in rows if correct[row] == 0]
        if not right or not wrong:
            continue
        loss = _log_one_plus_sum(wrong) + _log_one_plus_sum(right)
        for row in rows:
            losses[row] = [loss / sum(masks[row]) if token else 0.0 for token in masks[row]]
    return losses


def _log_one_plus_sum(exponents: list[float]) -> float:
    highest = max(0.0, *exponents)
    return highest + math.log(math.exp(-highest) + math.fsum(math.exp(value - highest) for value in exponents))
