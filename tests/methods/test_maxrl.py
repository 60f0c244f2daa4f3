"""MaxRL: G/k - 1 for each of k correct rollouts among G, -1 for the others, nothing where k is 0 or G.

Not exercised: the effect on training.
"""

from __future__ import annotations

import pytest
import torch

from verl_ispo.methods.maxrl import maxrl_advantage
from verl_ispo.signals.groups import RolloutGroups, group_advantage


def advantage(*verdicts: int) -> list[float]:
    groups = RolloutGroups.from_labels(["q"] * len(verdicts))
    return maxrl_advantage(torch.tensor(verdicts).bool(), groups).tolist()


def test_by_hand() -> None:
    """One of four: mean 1/4, (1 - 1/4) / (1/4) = 3 and -1. Three of four: mean 3/4, 1/3 and -1."""
    assert advantage(1, 0, 0, 0) == [3.0, -1.0, -1.0, -1.0]
    assert advantage(1, 1, 1, 0) == pytest.approx([1 / 3, 1 / 3, 1 / 3, -1.0])


def test_groups_of_one_outcome_and_of_one_rollout_get_nothing() -> None:
    assert advantage(0, 0, 0) == advantage(1, 1, 1) == [0.0] * 3
    assert advantage(1) == advantage(0) == [0.0]


def test_it_is_dr_grpo_divided_by_the_accuracy() -> None:
    verdicts = torch.tensor([1, 0, 0, 1, 1, 0]).bool()
    groups = RolloutGroups.from_labels("aaabbb")
    centred = group_advantage(verdicts.double(), groups, normalize_by_std=False, min_group_std=0.0)
    accuracy = torch.tensor([1 / 3] * 3 + [2 / 3] * 3, dtype=torch.float64)
    torch.testing.assert_close(maxrl_advantage(verdicts, groups), centred / accuracy)
