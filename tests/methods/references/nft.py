"""NFT (arXiv 2505.18116) in loops: -log r, and -log max((1 - q r) / (1 - q), 1) with a gradient below the floor."""

from __future__ import annotations

import math
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    """What is logged: minus the slope of the loss in a token's log-prob where r = 1."""
    groups, correct = batch.groups.ids.tolist(), batch.correct.tolist()
    found = []
    for row, mask in enumerate(batch.response_mask.tolist()):
        outcomes = [verdict for verdict, group in zip(correct, groups, strict=True) if group == groups[row]]
        value = 0.0
        if len(set(outcomes)) == 2:
            q = _bounded(sum(outcomes) / len(outcomes), settings)
            value = _weight(q, settings) * (1 if correct[row] else -settings.incorrect_weight * q / (1 - q))
        found.append([value if token else 0.0 for token in mask])
    return found


def token_loss(batch: LossBatch, settings: Any, point: LossBatch | None = None) -> list[list[float]]:
    """Around `point` an incorrect token's loss is a straight line: the floor has no slope of its own."""
    correct, accuracy = batch.row_column("correct").tolist(), batch.row_column("accuracy").tolist()
    log_ratios, masks = batch.unclamped_log_ratio.tolist(), batch.response_mask.tolist()
    around = (point or batch).unclamped_log_ratio.tolist()
    losses = []
    for row, mask in enumerate(masks):
        losses.append([0.0] * len(mask))
        if not 0 < accuracy[row] < 1:
            continue
        q = _bounded(accuracy[row], settings)
        for position, token in enumerate(mask):
            if not token:
                continue
            here = min(log_ratios[row][position], settings.max_log_ratio)
            at = min(around[row][position], settings.max_log_ratio)
            if correct[row] == 1:
                loss = -here
            else:
                floored = max((1 - q * math.exp(at)) / (1 - q), settings.min_implicit_ratio)
                change = -q * (math.exp(here) - math.exp(at)) / (1 - q)
                loss = -settings.incorrect_weight * (math.log(floored) + change / floored)
            losses[row][position] = _weight(q, settings) * loss
    return losses


def _bounded(accuracy: float, settings: Any) -> float:
    return min(max(accuracy, settings.min_accuracy), 1 - settings.min_accuracy)


def _weight(q: float, settings: Any) -> float:
    return {"incorrect_rate": 1 - q, "root_odds": math.sqrt((1 - q) / q), "none": 1.0}[settings.prompt_weight]
