"""SPAE (arXiv 2601.03823) with the confidence at the ground truth's tokens, token by token."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from typing import Any

from verl_ispo.methods.method import MethodBatch


def potentials(batch: MethodBatch, row: int, settings: Any) -> list[tuple[int, float]]:
    """Each cut of a rollout with its Phi."""
    scores = batch.prefix_scores
    found = []
    for cut, log_prob, entropy, scored in zip(
        scores.cuts[row].tolist(),
        scores.mean_log_prob[row].tolist(),
        scores.mean_entropy[row].tolist(),
        scores.mask[row].tolist(),
        strict=True,
    ):
        if scored:
            right, sure = math.exp(log_prob), math.exp(-max(entropy, 0.0))
            both = settings.joint_weight * right * sure
            found.append((cut, both + settings.accuracy_weight * right - settings.confidence_weight * sure))
    return found


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    groups = batch.groups.ids.tolist()
    correct = [float(verdict) for verdict in batch.correct.tolist()]
    of_rows = [potentials(batch, row, settings) for row in range(len(groups))]
    changes = [after - before for row in of_rows for (_, before), (_, after) in pairwise(row)]

    def raised(change: float) -> float:
        spread = max(changes) - min(changes)
        return math.exp((change - min(changes)) / spread) if spread else 1.0

    mean_raised = statistics.fmean(map(raised, changes)) if changes else 0.0
    masks = batch.response_mask.tolist()
    values = []
    for row, mask in enumerate(masks):
        of_group = [value for value, group in zip(correct, groups, strict=True) if group == groups[row]]
        outcome = correct[row] - statistics.fmean(of_group)
        line = []
        for position in range(len(mask)):
            solved = sum(
                end <= position and potential > settings.saturation_threshold for end, potential in of_rows[row][1:]
            )
            value = outcome * (1 - settings.saturation_penalty * (1 - math.exp(-solved)))
            for (begin, before), (end, after) in pairwise(of_rows[row]):
                if begin <= position < end:
                    value += settings.shaping_weight * (raised(after - before) - mean_raised)
            line.append(value)
        values.append(line)
    written = [
        value for line, mask in zip(values, masks, strict=True) for value, one in zip(line, mask, strict=True) if one
    ]
    mean = statistics.fmean(written)
    std = statistics.stdev(written) if len(written) > 1 and max(written) > min(written) else 0.0
    return [
        [(value - mean) / (std + 1e-8) if one and std else 0.0 for value, one in zip(line, mask, strict=True)]
        for line, mask in zip(values, masks, strict=True)
    ]
