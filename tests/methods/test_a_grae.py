"""A-GRAE: both divisions, their blend by the step's accuracy, and the damped positive advantages.

Not exercised: the effect on training.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from verl_ispo.methods.a_grae import AGRAEConfig, a_grae_advantage
from verl_ispo.signals.groups import RolloutGroups


def advantage(labels: str, verdicts: str, full_accuracy: float = 1.0, by_std: bool = False) -> list[float]:
    correct = torch.tensor([verdict == "1" for verdict in verdicts])
    groups, mask = RolloutGroups.from_labels(labels), torch.ones(len(labels), 1)
    return a_grae_advantage(correct, mask, groups, AGRAEConfig(full_accuracy), by_std).tolist()


def test_by_hand_without_the_std() -> None:
    """p = mu = 1/4, sqrt(p) = 1/2, so both divisors are 1: A = s, 3/4 and -1/4, and 3/4 is damped by 1/4."""
    assert advantage("aaaa", "1000") == pytest.approx([3 / 16, -1 / 4, -1 / 4, -1 / 4], abs=1e-5)
    assert advantage("aaaa", "1000", full_accuracy=0.25) == pytest.approx([3 / 4, -1 / 4, -1 / 4, -1 / 4], abs=1e-5)


def test_the_std_divides_s() -> None:
    """One of four: std = 1/2, so everything is twice as large."""
    assert advantage("aaaa", "1000", by_std=True) == pytest.approx([3 / 8, -1 / 2, -1 / 2, -1 / 2], abs=1e-5)


def test_the_steps_accuracy_blends_the_two() -> None:
    """p = 9/16 beside an all-correct prompt: mu = 25/32, and A = s (7/32 / (1/4) + 25/32 / (3/4)) / 2."""
    found = advantage("a" * 16 + "bb", "1" * 9 + "0" * 7 + "11", full_accuracy=0.5)
    factor = (7 / 32 / (1 / 4) + 25 / 32 / (3 / 4)) / 2
    assert found == pytest.approx([7 / 16 * factor] * 9 + [-9 / 16 * factor] * 7 + [0, 0], abs=1e-5)


def test_groups_of_one_outcome_and_single_rollouts_get_nothing() -> None:
    assert advantage("aaabbbcd", "11100010") == [0.0] * 8


def test_no_correct_rollout_in_the_step_is_no_positive_advantage_and_padding_is_no_prompt() -> None:
    assert advantage("aa", "00") == [0.0, 0.0]
    correct, groups = torch.tensor([True, False, False]), RolloutGroups.from_labels("aax")
    mask = torch.tensor([[1], [1], [0]])
    found = a_grae_advantage(correct, mask, groups, AGRAEConfig())
    assert found[:2].tolist() == advantage("aa", "10", by_std=True)
    nothing = a_grae_advantage(correct, torch.zeros(3, 1), groups, AGRAEConfig())
    assert torch.isfinite(nothing).all()


@pytest.mark.parametrize("value", [0, 1.1, -1, "1", None])
def test_an_accuracy_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"algorithm\.a_grae\.full_accuracy must be a number in \(0, 1\]"):
        AGRAEConfig.from_mapping({"full_accuracy": value})
