"""PACS (arXiv 2509.02522) in loops: cross-entropy of the verdict against leave-one-out centred log-ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    """What is logged: minus the slope of the sum of losses in a rollout's summed log-prob, where all z are 0."""
    groups, correct = batch.groups.ids.tolist(), batch.correct.tolist()
    found = []
    for row, mask in enumerate(batch.response_mask.tolist()):
        rows = [other for other, group in enumerate(groups) if group == groups[row]]
        value = 0.0
        if len(rows) > 1:
            for other in rows:
                # d loss / d z at 0 is w (1/2 - R); d z_other / d psi_row is 1 or -1 / (G - 1)
                slope = _weight(other, rows, correct) * (0.5 - correct[other])
                value -= settings.beta * slope * (1 if other == row else -1 / (len(rows) - 1))
        found.append([value if token else 0.0 for token in mask])
    return found


def token_loss(batch: LossBatch, settings: Any) -> list[list[float]]:
    """Each rollout's tokens carry equal parts of its loss."""
    groups, masks = batch.groups.ids.tolist(), batch.response_mask.tolist()
    correct = [verdict == 1 for verdict in batch.row_column("correct").tolist()]
    psi = [
        settings.beta * math.fsum(value for value, token in zip(values, mask, strict=True) if token)
        for values, mask in zip(batch.unclamped_log_ratio.tolist(), masks, strict=True)
    ]
    losses = []
    for row, mask in enumerate(masks):
        rows = [other for other, group in enumerate(groups) if group == groups[row]]
        loss = 0.0
        if len(rows) > 1:
            z = psi[row] - math.fsum(psi[other] for other in rows if other != row) / (len(rows) - 1)
            against = -z if correct[row] else z
            # log(1 + e^x)
            entropy = max(against, 0.0) + math.log1p(math.exp(-abs(against)))
            loss = _weight(row, rows, correct) * entropy
        losses.append([loss / sum(mask) if token else 0.0 for token in mask])
    return losses


def _weight(row: int, rows: Sequence[int], correct: Sequence[bool]) -> float:
    same = sum(1 for other in rows if correct[other] == correct[row])
    return 1.0 if same == len(rows) else len(rows) / (2 * same)
