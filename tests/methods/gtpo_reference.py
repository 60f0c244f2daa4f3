"""Random batches for GTPO and GRPO-S (arXiv 2508.04349), and what their reference gives on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from tests.methods.references.gtpo import entropy_advantages
from verl_ispo.signals.groups import RolloutGroups


@dataclass(frozen=True)
class EntropyRollout:
    group: str
    correct: bool
    entropy: tuple[float, ...]
    written: tuple[bool, ...]

    def tokens(self) -> list[int]:
        return [position for position, written in enumerate(self.written) if written]


def reference_advantage(batch: list[EntropyRollout], **settings: Any) -> list[dict[int, float]]:
    """From each row's positions to their advantages; with ``by_sequence`` the only position is 0."""
    entropies = [{position: rollout.entropy[position] for position in rollout.tokens()} for rollout in batch]
    return entropy_advantages(
        [rollout.group for rollout in batch], [rollout.correct for rollout in batch], entropies, **settings
    )


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
