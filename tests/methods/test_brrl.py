"""BRRL: targets from the group's median, the loss on both sides of a target, and single rollouts.

Not exercised: the trainer that hands the targets to the loss (tests/trainer).
"""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
import torch

from tests.methods.made_loss import gradient, made_loss_batch, slope
from verl_ispo.methods.brrl import METHOD, BRRLConfig, brrl_loss, place_in_range
from verl_ispo.methods.method import LossBatch, MethodBatch
from verl_ispo.signals.groups import RolloutGroups


def loss(batch: LossBatch) -> torch.Tensor:
    return brrl_loss(batch, BRRLConfig()).loss


def place(scores: list[float], temperature: float, by_std: bool = True) -> list[float]:
    groups = RolloutGroups.from_labels(["q"] * len(scores))
    return place_in_range(torch.tensor(scores), groups, temperature, by_std).tolist()


def test_a_small_temperature_gives_the_ends_and_the_middle() -> None:
    """Median 0 of 1, 0, 0; 1/2 of 1, 1, 0, 0; 1 of 1, 1, 0."""
    assert place([1.0, 0.0, 0.0], 1e-4) == pytest.approx([1.0, 0.5, 0.5])
    assert place([1.0, 1.0, 0.0, 0.0], 1e-4) == pytest.approx([1.0, 1.0, 0.0, 0.0])
    assert place([1.0, 1.0, 0.0], 1e-4) == pytest.approx([0.5, 0.5, 0.0])


def test_a_large_temperature_by_hand() -> None:
    """T = 2. Scores 1, 0, 0.25, 0: median 0.125, and 0.875 / std / 2 for the first."""
    scores = [1.0, 0.0, 0.25, 0.0]
    std = statistics.stdev(scores) + 1e-6
    expected = [1 / (1 + math.exp(-(score - 0.125) / std / 2)) for score in scores]
    assert place(scores, 2.0) == pytest.approx(expected)
    expected = [1 / (1 + math.exp(-(score - 0.125) / 2)) for score in scores]
    assert place(scores, 2.0, by_std=False) == pytest.approx(expected)


def test_equal_scores_and_single_rollouts() -> None:
    assert place([1.0, 1.0], 1e-4) == [0.5, 0.5]
    assert place([1.0], 1.0) == pytest.approx([1 / (1 + math.exp(-1))], abs=1e-6)
    assert place([0.0], 1e-4) == [0.5]


def test_the_loss_by_hand() -> None:
    """Range [0.8, 1.28]; targets 1.28, 0.8, 1.04. |(1 - 1.28) 2| = 0.56, |(1.5 - 0.8) -1| = 0.7, |(1 - 1.04) 0.5|."""
    batch = made_loss_batch(
        [[0.0], [math.log(1.5)], [0.0]], columns={"place": [1.0, 0.0, 0.5]}, advantages=[2.0, -1.0, 0.5]
    )
    found = brrl_loss(batch, BRRLConfig())
    assert found.loss.flatten().tolist() == pytest.approx([0.56, 0.7, 0.02])
    assert found.clipped.flatten().tolist() == [False, True, False]


def test_a_ratio_beyond_its_target_is_drawn_back() -> None:
    batch = made_loss_batch([[0.0, 0.5]], columns={"place": [1.0]}, advantages=[1.0])
    before, beyond = gradient(loss, batch)[0].tolist()
    assert before < 0 < beyond


def test_on_policy_the_gradient_is_minus_the_advantage_where_targets_are_ends() -> None:
    batch = made_loss_batch([[0.0], [0.0]], columns={"place": [1.0, 0.0]}, advantages=[0.7, -0.9])
    assert gradient(loss, batch).flatten().tolist() == pytest.approx([-0.7, 0.9])


def test_the_gradient_against_finite_differences() -> None:
    batch = made_loss_batch(
        [[0.3, -2.0], [0.1], [0.9, 0.4]], columns={"place": [1.0, 0.0, 0.3]}, advantages=[0.5, -1.5, 2.0]
    )
    torch.testing.assert_close(gradient(loss, batch), slope(loss, batch), rtol=1e-6, atol=1e-8)


def test_the_advantage_is_grpos_and_the_column_goes_by_the_score() -> None:
    grpo = torch.tensor([[0.7], [-0.7]])
    batch = MethodBatch(
        rewards=torch.tensor([[1.0], [0.0]]),
        response_mask=torch.ones(2, 1),
        groups=RolloutGroups.from_labels(["q", "q"]),
        grpo_advantage=grpo,
    )
    assert METHOD.advantage(batch, BRRLConfig()) is grpo
    assert METHOD.loss_columns(batch, BRRLConfig(), grpo)["place"].tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("value", [0, -1.0, math.nan, "1", None])
def test_a_temperature_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"algorithm\.brrl\.temperature must be a number in \(0, inf\)"):
        BRRLConfig.from_mapping({"temperature": value})
