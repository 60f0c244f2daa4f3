"""BNPO: the moments, the Beta density, and the cases in which nothing but R - mean is left.

Not exercised: the effect on training.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from verl_ispo.methods.bnpo import BNPOConfig, beta_parameters, bnpo_advantage, inverse_beta_density
from verl_ispo.signals.groups import RolloutGroups


def accuracies(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def advantage(labels: str, verdicts: str, config: BNPOConfig | None = None) -> list[float]:
    correct = torch.tensor([verdict == "1" for verdict in verdicts])
    mask = torch.ones(len(labels), 2)
    return bnpo_advantage(correct, mask, RolloutGroups.from_labels(labels), config or BNPOConfig()).tolist()


def test_moments_by_hand() -> None:
    """p = 1/4 and 3/4: mu = 1/2, v = 1/8, so mu (1 - mu) / v - 1 = 1, a = b = 1/2, alpha = beta = 1 + 1/6."""
    alpha, beta = beta_parameters(accuracies(0.25, 0.75), 3.0)
    assert alpha.item() == beta.item() == pytest.approx(7 / 6)


def test_a_spread_beyond_the_uniform_density_is_taken_as_uniform() -> None:
    """p = 0 and 1: v = 1/2, so a and b are negative and both parameters stay at 1."""
    assert [parameter.item() for parameter in beta_parameters(accuracies(0.0, 1.0), 3.0)] == [1.0, 1.0]


def test_density_by_hand() -> None:
    """Beta(2, 2) has the density 6 p (1 - p): 3/2 at 1/2 and 0 at both ends."""
    two = torch.tensor(2.0, dtype=torch.float64)
    found = inverse_beta_density(accuracies(0.5, 0.0, 1.0), two, two, 1e6)
    assert found.tolist() == pytest.approx([2 / 3, 1e6, 1e6])


def test_two_prompts_by_hand() -> None:
    """alpha = beta = 7/6 as above; the density at 1/4 and 3/4 is (3/16)^(1/6) / B(7/6, 7/6)."""
    density = (3 / 16) ** (1 / 6) * math.gamma(7 / 3) / math.gamma(7 / 6) ** 2
    expected = [0.75 / density, -0.25 / density, -0.25 / density, -0.25 / density]
    expected += [0.25 / density] * 3 + [-0.75 / density]
    assert advantage("aaaabbbb", "10001110") == pytest.approx(expected)


@pytest.mark.parametrize("labels", ["aaaa", "aabb"])
def test_one_prompt_or_equal_accuracies_leave_the_outcome_less_its_mean(labels: str) -> None:
    assert advantage(labels, "1010") == [0.5, -0.5, 0.5, -0.5]


def test_groups_of_one_outcome_get_nothing_beside_others() -> None:
    found = advantage("aaabbbccc", "111000110")
    assert found[:6] == [0.0] * 6
    assert all(found[6:])


def test_a_single_rollout_has_mean_0_as_in_the_authors_code() -> None:
    """p = 0, 1/3 and 2/3: alpha = beta at 5/3 and more, the density at 0 is 0, so the single correct one gets 1e6."""
    found = advantage("abbbccc", "1100110")
    assert found[0] == 1e6
    assert max(map(abs, found[1:])) < 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shrinkage": 0}, r"algorithm\.bnpo\.shrinkage must be a number in \(0, inf\), got 0"),
        ({"max_weight": math.inf}, r"algorithm\.bnpo\.max_weight .* got inf"),
        ({"weight": 1}, r"'weight' \(under algorithm\.bnpo\)"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BNPOConfig.from_mapping(settings)
