"""GTPO (arXiv 2508.04349), and what GRPO-S shares with it: rewards shaped by entropy, normalized apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Sequence
from typing import Any

from verl_ispo.methods.method import MethodBatch

Positions = dict[int, float]
"""Of one rollout: from the positions that it has written to a number."""


def shaped_rewards(values: Sequence[Positions], right: bool, outcome: float, weight: float) -> list[Positions]:
    """Rewards of one group's correct, or incorrect, rollouts, from their entropies."""
    rewards: list[Positions] = []
    for own in values:
        rewards.append({})
        for position in own:
            active = [other[position] for other in values if position in other]
            if right:
                total = sum(active)
                share = own[position] / total if total > 0 else 1 / len(active)
                rewards[-1][position] = outcome * 1 + weight * share * len(active)
            else:
                share = (1 / (own[position] + 1e-8)) / sum(1 / (h + 1e-8) for h in active)
                rewards[-1][position] = -outcome - weight * share * len(active)
    return rewards


def normalized(rewards: Sequence[Positions], together: bool, by_std: bool) -> list[Positions]:
    """(r - mean) / (std + 1e-6) over all of them; together, a rollout counts as one sample of the std."""
    pool = [reward for own in rewards for reward in own.values()]
    if not pool:
        return list(rewards)
    mean = math.fsum(pool) / len(pool)
    samples = sum(1 for own in rewards if own) if together else len(pool)
    square = math.fsum((reward - mean) ** 2 for reward in pool) / len(pool)
    std = math.sqrt(square * samples / (samples - 1)) if samples > 1 else math.sqrt(square)
    if max(pool) == min(pool):
        mean, std = pool[0], 0.0
    return [{p: (r - mean) / ((std + 1e-6) if by_std else 1.0) for p, r in own.items()} for own in rewards]


def entropy_advantages(
    groups: Sequence[Hashable],
    correct: Sequence[bool],
    entropies: Sequence[Positions],
    by_sequence: bool = False,
    outcome_weight: float = 1.0,
    entropy_weight: float = 0.1,
    normalization: str = "apart",
    all_wrong_groups: str = "off",
    by_std: bool = True,
) -> list[Positions]:
    """From each row's positions to their advantages; with ``by_sequence`` the only position is 0."""
    advantages: list[Positions] = [{} for _ in groups]
    if by_sequence:
        entropies = [{0: statistics.fmean(own.values())} if own else {} for own in entropies]
    for group in set(groups):
        rows = [row for row, its in enumerate(groups) if its == group]
        right = [row for row in rows if correct[row]]
        wrong = [row for row in rows if not correct[row]]
        shaped = {}
        for some, is_right in ((right, True), (wrong, False)):
            rewards = shaped_rewards([entropies[row] for row in some], is_right, outcome_weight, entropy_weight)
            shaped.update(zip(some, rewards, strict=True))
        for some in [right, wrong] if normalization == "apart" else [rows]:
            result = normalized([shaped[row] for row in some], normalization == "together", by_std)
            for row, own in zip(some, result, strict=True):
                gated = not right and all_wrong_groups == "off"
                advantages[row] = {position: 0.0 if gated else value for position, value in own.items()}
    return advantages


def of_batch(batch: MethodBatch, settings: Any, by_sequence: bool) -> list[Positions]:
    """`entropy_advantages` of a batch under a method's settings."""
    masks = batch.response_mask.tolist()
    entropies = [
        {position: row[position] for position, token in enumerate(mask) if token}
        for row, mask in zip(batch.entropy.tolist(), masks, strict=True)
    ]
    return entropy_advantages(
        batch.groups.ids.tolist(),
        batch.correct.tolist(),
        entropies,
        by_sequence=by_sequence,
        outcome_weight=settings.outcome_weight,
        entropy_weight=settings.entropy_weight,
        normalization=settings.normalization,
        all_wrong_groups=settings.all_wrong_groups,
        by_std=batch.normalize_by_std,
    )


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    length = batch.response_mask.shape[1]
    rows = of_batch(batch, settings, by_sequence=False)
    return [[row.get(position, 0.0) for position in range(length)] for row in rows]
