"""GRPO-VPS (arXiv 2604.20659), token by token."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    scores, groups = batch.prefix_scores, batch.groups.ids.tolist()
    correct = [float(verdict) for verdict in batch.correct.tolist()]
    found = []
    for row, mask in enumerate(batch.response_mask.tolist()):
        of_group = [value for value, group in zip(correct, groups, strict=True) if group == groups[row]]
        outcome = correct[row] - statistics.fmean(of_group)
        tokens = int(scores.tokens[row])
        behind = [
            (cut, math.exp(mean * tokens))
            for cut, mean, scored in zip(
                scores.cuts[row].tolist(), scores.mean_log_prob[row].tolist(), scores.mask[row].tolist(), strict=True
            )
            if scored
        ]
        values = []
        for position, written in enumerate(mask):
            value = outcome if written else 0.0
            for (begin, before), (end, after) in pairwise(behind):
                if written and begin <= position < end:
                    value += settings.progress_weight * (after - before)
            values.append(value)
        found.append(values)
    return found
