"""PACR (arXiv 2510.22255), step by step."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from verl_ispo.methods.method import MethodBatch

Step = tuple[int, int, float]


def steps_of(batch: MethodBatch, row: int, gamma: float) -> list[Step]:
    """Begin, end and G of each step of a rollout."""
    scores = batch.prefix_scores
    tokens = int(scores.tokens[row])
    cuts = [
        (cut, mean * tokens)
        for cut, mean, scored in zip(
            scores.cuts[row].tolist(), scores.mean_log_prob[row].tolist(), scores.mask[row].tolist(), strict=True
        )
        if scored
    ]
    gains = [(begin, end, after - before) for (begin, before), (end, after) in pairwise(cuts)]
    return [
        (begin, end, sum(gamma ** (later - step) * gains[later][2] for later in range(step, len(gains))))
        for step, (begin, end, _) in enumerate(gains)
    ]


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    groups = batch.groups.ids.tolist()
    steps = [steps_of(batch, row, settings.gamma) for row in range(len(groups))]
    found = []
    for row, mask in enumerate(batch.response_mask.tolist()):
        of_group = [
            value for group, its in zip(groups, steps, strict=True) if group == groups[row] for _, _, value in its
        ]
        values = []
        for position, written in enumerate(mask):
            value = settings.outcome_weight * float(batch.grpo_advantage[row, position])
            for begin, end, total in steps[row]:
                if begin <= position < end and max(of_group) > min(of_group):
                    scaled = (total - min(of_group)) / (max(of_group) - min(of_group))
                    value += settings.progress_weight * scaled
            values.append(value if written else 0.0)
        found.append(values)
    return found
