"""CAPO: pairs weighted by confidence, by hand, in its limits, and the rollouts that the reference policy masks.

Not exercised: that the trainer hands over the reference's log-probs (tests/trainer).
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from verl_ispo.methods.capo import METHOD, CAPOConfig, is_trusted, mean_log_prob, pairwise_advantage
from verl_ispo.methods.method import MethodBatch
from verl_ispo.signals.checks import NonFiniteSignalError
from verl_ispo.signals.groups import RolloutGroups

GROUP = RolloutGroups.from_labels(["q"] * 3)
CORRECT = torch.tensor([True, False, False])


def advantage(confidence: list[float], correct: torch.Tensor = CORRECT, **settings: Any) -> list[float]:
    groups = RolloutGroups.from_labels(["q"] * len(confidence))
    return pairwise_advantage(torch.tensor(confidence), correct, groups, CAPOConfig(**settings)).tolist()


def test_a_group_by_hand() -> None:
    """tau = 0.5, c = -1 for the correct rollout, -1 and -0.5 for the others.

    sigmoid(0) = 1/2 and sigmoid(1) = 0.7311; divided by tau 1 and 1.4621.
    """
    high = 1 / (1 + math.exp(-1))
    found = advantage([-1.0, -1.0, -0.5], temperature=0.5)
    assert found == pytest.approx([1 + 2 * high, -1.0, -2 * high])
    found = advantage([-1.0, -1.0, -0.5], temperature=0.5, divide_by_temperature=False)
    assert found == pytest.approx([0.5 + high, -0.5, -high])


def test_a_confident_mistake_and_an_unsure_success_weigh_most() -> None:
    both = torch.tensor([True, True, False, False])
    sure, unsure, mild, confident = advantage([-0.1, -1.5, -1.5, -0.1], both)
    assert 0 < sure < unsure
    assert 0 > mild > confident


def test_equal_confidence_is_dr_grpo_times_half_the_group() -> None:
    correct = torch.tensor([True, False, True, False, False])
    found = advantage([-0.7] * 5, correct, divide_by_temperature=False)
    assert found == pytest.approx([5 / 2 * (float(verdict) - 2 / 5) for verdict in correct.tolist()])


def test_groups_of_one_outcome_and_single_rollouts_get_nothing() -> None:
    groups = RolloutGroups.from_labels(["right", "right", "wrong", "wrong", "one", "other"])
    correct = torch.tensor([True, True, False, False, True, False])
    assert not pairwise_advantage(-torch.rand(6), correct, groups, CAPOConfig()).any()


def test_the_reference_masks_lucky_successes_and_near_misses() -> None:
    """Bounds are on perplexity: log 2.5 = 0.9163 and log 1.05 = 0.0488; a bound itself is kept."""
    mean = torch.tensor([-0.91, -0.92, -0.05, -0.04, -0.04, -0.92])
    correct = torch.tensor([True, True, False, False, True, False])
    assert is_trusted(mean, correct, CAPOConfig()).tolist() == [True, False, True, False, True, True]
    certain = torch.tensor([0.0])
    assert is_trusted(certain, ~torch.ones(1).bool(), CAPOConfig(min_incorrect_perplexity=1)).tolist() == [True]


def test_a_masked_rollout_still_counts_for_the_others() -> None:
    mask = torch.tensor([[1, 1], [1, 0], [1, 1]])
    batch = MethodBatch(
        rewards=torch.zeros(3, 2),
        response_mask=mask,
        groups=GROUP,
        correct=CORRECT,
        log_prob=torch.tensor([[-0.5, -0.7], [-0.6, 99.0], [-0.2, -1.0]]),
        ref_log_prob=torch.tensor([[-0.5, -0.7], [-0.01, 99.0], [-0.2, -1.0]]),
    )
    found = METHOD.advantage(batch, CAPOConfig())
    assert found.tolist() == pytest.approx([1 / 0.6, 0.0, -0.5 / 0.6])


def test_rows_without_tokens_and_far_values() -> None:
    assert mean_log_prob(torch.full((1, 2), math.nan), torch.zeros(1, 2)).tolist() == [0.0]
    assert advantage([-1e6, -1e-6, -1e6]) == pytest.approx([1.5 / 0.6, -1 / 0.6, -0.5 / 0.6])
    with pytest.raises(NonFiniteSignalError, match="log_prob is nan at row 0, position 1"):
        mean_log_prob(torch.tensor([[-1.0, math.nan]]), torch.ones(1, 2))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", 0),
        ("temperature", math.nan),
        ("divide_by_temperature", 1),
        ("max_correct_perplexity", 0.9),
        ("min_incorrect_perplexity", "1.05"),
    ],
)
def test_settings_out_of_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"algorithm\.capo\.{key} must be"):
        CAPOConfig.from_mapping({key: value})
