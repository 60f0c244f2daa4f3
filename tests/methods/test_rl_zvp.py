"""RL-ZVP: entropy as the advantage where a group has one outcome, GRPO elsewhere.

Not exercised: that the trainer hands over the right entropies (tests/trainer).
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from verl_ispo.methods.rl_zvp import METHOD, RLZVPConfig, rl_zvp_advantage, zero_variance_advantage
from verl_ispo.signals.checks import NonFiniteSignalError, SignalShapeError
from verl_ispo.signals.groups import RolloutGroups

ENTROPY = torch.tensor([[0.5, 2.0, 9.0], [0.5, 2.0, 1.0]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


def test_both_kinds_of_groups_by_hand() -> None:
    """a = 0.1. Correct: 0.05, 0.2. Incorrect, max H = 2: -0.15, 0, -0.1. The masked entropy of 9 plays no part."""
    right = zero_variance_advantage(ENTROPY, MASK, torch.tensor([True, True]), RLZVPConfig())
    wrong = zero_variance_advantage(ENTROPY, MASK, torch.tensor([False, False]), RLZVPConfig())
    assert right[0].tolist() == pytest.approx([0.05, 0.2, 0.0])
    assert wrong[0].tolist() == pytest.approx([-0.15, 0.0, 0.0])
    assert wrong[1].tolist() == pytest.approx([-0.15, 0.0, -0.1])


def test_a_mixed_group_is_grpo_and_no_token_of_another_group_is() -> None:
    correct = torch.tensor([True, False, True, False])
    groups = RolloutGroups.from_labels(["mixed", "mixed", "right", "wrong"])
    grpo, zero_variance = torch.full((4, 2), 7.0), torch.full((4, 2), 3.0)
    found = rl_zvp_advantage(grpo, zero_variance, correct, groups)
    assert found.tolist() == [[7.0, 7.0]] * 2 + [[3.0, 3.0]] * 2


def test_certain_tokens_leave_nothing_and_the_highest_entropy_is_never_punished() -> None:
    for verdict in (True, False):
        certain = zero_variance_advantage(torch.zeros(1, 3), torch.ones(1, 3), torch.tensor([verdict]), RLZVPConfig())
        assert not certain.any()
    found = zero_variance_advantage(torch.rand(4, 5), torch.ones(4, 5), torch.zeros(4, dtype=torch.bool), RLZVPConfig())
    assert found.amax(dim=-1).tolist() == [0.0] * 4


def test_rows_without_tokens_and_rounding_below_0() -> None:
    empty = zero_variance_advantage(torch.zeros(2, 0), torch.zeros(2, 0), torch.tensor([True, False]), RLZVPConfig())
    assert empty.shape == (2, 0)
    entropy = torch.tensor([[-1e-7, 1.0], [math.nan, math.nan]])
    mask = torch.tensor([[1, 1], [0, 0]])
    found = zero_variance_advantage(entropy, mask, torch.tensor([True, False]), RLZVPConfig())
    assert found.tolist() == [[0.0, pytest.approx(0.1)], [0.0, 0.0]]


def test_the_entropy_is_a_constant() -> None:
    entropy = ENTROPY.clone().requires_grad_()
    assert not zero_variance_advantage(entropy, MASK, torch.tensor([True, False]), RLZVPConfig()).requires_grad


def test_bad_input_is_named() -> None:
    correct = torch.tensor([True, True])
    with pytest.raises(NonFiniteSignalError, match="entropy is nan at row 1, position 0"):
        zero_variance_advantage(torch.tensor([[1.0], [math.nan]]), torch.ones(2, 1), correct, RLZVPConfig())
    with pytest.raises(SignalShapeError, match="correct"):
        zero_variance_advantage(ENTROPY, MASK, torch.tensor([True]), RLZVPConfig())


@pytest.mark.parametrize("value", [0, -0.1, math.nan, "0.1", None])
def test_a_weight_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"algorithm\.rl_zvp\.entropy_weight must be a number in \(0, inf\)"):
        RLZVPConfig.from_mapping({"entropy_weight": value})


def test_the_group_filter_is_refused() -> None:
    (found,) = METHOD.contradictions({"algorithm.filter_groups.enable": True}.get)
    assert found.second == "algorithm.filter_groups.enable"
    assert not list(METHOD.contradictions({}.get))
