"""GTPO and GRPO-S (arXiv 2508.04349) in plain Python loops over tokens, and random batches for them.

Written from the formulas alone; shares no code with verl_ispo.methods.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from verl_ispo.signals.groups import RolloutGroups


@dataclass(frozen=True)
class EntropyRollout:
    group: str
    correct: bool
    entropy: tuple[float, ...]
    written: tuple[bool, ...]

    def tokens(self) -> list[int]:
        return [position for position, written in enumerate(self.written) if written]


def shaped_rewards(
    values: list[dict[int, float]], right: bool, outcome: float, weight: float
) -> list[dict[int, float]]:
    """Rewards of one group's correct, or incorrect, rollouts; each a dict from its active positions to entropies."""
    rewards = []
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


def normalized(rewards: list[dict[int, float]], together: bool, by_std: bool) -> list[dict[int, float]]:
    pool = [reward for own in rewards for reward in own.values()]
    if not pool:
        return rewards
    mean = math.fsum(pool) / len(pool)
    samples = sum(1 for own in rewards if own) if together else len(pool)
    square = math.fsum((reward - mean) ** 2 for reward in pool) / len(pool)
    std = math.sqrt(square * samples / (samples - 1)) if samples > 1 else math.sqrt(square)
    if max(pool) == min(pool):
        mean, std = pool[0], 0.0
    return [{p: (r - mean) / ((std + 1e-6) if by_std else 1.0) for p, r in own.items()} for own in rewards]


def reference_advantage(
    batch: list[EntropyRollout],
    by_sequence: bool = False,
    outcome_weight: float = 1.0,
    entropy_weight: float = 0.1,
    normalization: str = "apart",
    all_wrong_groups: str = "off",
    by_std: bool = True,
) -> list[dict[int, float]]:
    """From each row's positions to their advantages; with ``by_sequence`` the only position is 0."""
    advantages: list[dict[int, float]] = [{} for _ in batch]
    for group in {rollout.group for rollout in batch}:
        rows = [row for row, rollout in enumerate(batch) if rollout.group == group]
        values = {}
        for row in rows:
            entropies = {position: batch[row].entropy[position] for position in batch[row].tokens()}
            if by_sequence:
                entropies = {0: statistics.fmean(entropies.values())} if entropies else {}
            values[row] = entropies
        right = [row for row in rows if batch[row].correct]
        wrong = [row for row in rows if not batch[row].correct]
        shaped = {}
        for some, is_right in ((right, True), (wrong, False)):
            rewards = shaped_rewards([values[row] for row in some], is_right, outcome_weight, entropy_weight)
            shaped.update(zip(some, rewards, strict=True))
        for some in [right, wrong] if normalization == "apart" else [rows]:
            result = normalized([shaped[row] for row in some], normalization == "together", by_std)
            for row, own in zip(some, result, strict=True):
                gated = not right and all_wrong_groups == "off"
                advantages[row] = {position: 0.0 if gated else value for position, value in own.items()}
    return advantages


# Multiples of 1/16 make equal entropies frequent and means exact; 0 is frequent too.
ENTROPIES = st.one_of(st.just(0.0), st.integers(0, 48).map(lambda count: count / 16))


@st.composite
def rollouts(draw: st.DrawFn) -> EntropyRollout:
    length = draw(st.integers(0, 6))
    return EntropyRollout(
        group=draw(st.sampled_from(["a", "b", "c"])),
        correct=draw(st.booleans()),
        entropy=tuple(draw(st.lists(ENTROPIES, min_size=length, max_size=length))),
        written=tuple(draw(st.lists(st.sampled_from([True, True, True, False]), min_size=length, max_size=length))),
    )


BATCHES = st.lists(rollouts(), min_size=1, max_size=10)
SETTINGS = st.fixed_dictionaries(
    {
        "outcome_weight": st.sampled_from([0.0, 0.5, 1.0]),
        "entropy_weight": st.sampled_from([0.0, 0.1, 1.0]),
        "normalization": st.sampled_from(["apart", "together"]),
        "all_wrong_groups": st.sampled_from(["off", "paper"]),
    }
)


def tensors(batch: list[EntropyRollout], padding: int = 0, junk: float = 0.0) -> dict[str, Any]:
    """Arguments of the advantage functions; ``junk`` stands wherever no token is written."""
    width = max(len(rollout.entropy) for rollout in batch) + padding
    entropy = torch.full((len(batch), width), junk)
    response_mask = torch.zeros(len(batch), width, dtype=torch.int64)
    for row, rollout in enumerate(batch):
        for position in rollout.tokens():
            entropy[row, position] = rollout.entropy[position]
            response_mask[row, position] = 1
    return {
        "entropy": entropy,
        "response_mask": response_mask,
        "correct": torch.tensor([rollout.correct for rollout in batch], dtype=torch.bool),
        "groups": RolloutGroups.from_labels([rollout.group for rollout in batch]),
    }
