"""NFT: both losses by hand, the floor that lets the gradient through, and the first update, which is Dr.GRPO's.

Not exercised: the trainer that hands the columns to the loss (tests/trainer).
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.methods.made_loss import gradient, made_loss_batch, slope
from verl_ispo.methods.method import LossBatch, MethodBatch
from verl_ispo.methods.nft import METHOD, NFTConfig, nft_loss
from verl_ispo.signals.groups import RolloutGroups


def batch_of(log_ratio: list[list[float]], correct: list[int], accuracy: list[float]) -> LossBatch:
    return made_loss_batch(log_ratio, columns={"correct": correct, "accuracy": accuracy})


def loss(batch: LossBatch, **settings: Any) -> torch.Tensor:
    return nft_loss(batch, NFTConfig(**settings)).loss


def test_both_losses_by_hand() -> None:
    """q = 1/4, weight 3/4. Correct, r = 2: -0.75 log 2. Incorrect, r = 1/2: -0.75 log((1 - 1/8) / (3/4))."""
    batch = batch_of([[math.log(2)], [math.log(0.5)]], [1, 0], [0.25, 0.25])
    expected = [-0.75 * math.log(2), -0.75 * math.log(7 / 6)]
    assert loss(batch).flatten().tolist() == pytest.approx(expected)
    odds = math.sqrt(3)
    assert loss(batch, prompt_weight="root_odds").flatten().tolist() == pytest.approx(
        [x * odds / 0.75 for x in expected]
    )
    unweighted = loss(batch, prompt_weight="none", incorrect_weight=0.5).flatten().tolist()
    assert unweighted == pytest.approx([-math.log(2), -0.5 * math.log(7 / 6)])


def test_below_the_floor_the_value_stays_and_the_gradient_goes_on() -> None:
    """q = 1/2, r = 3: (1 - 3/2) / (1/2) = -1, floored to 1: the loss is 0, its slope q r / (1 - q) = 3, times 1/2."""
    batch = batch_of([[math.log(3)]], [0], [0.5])
    found = nft_loss(batch, NFTConfig())
    assert found.loss.item() == 0.0
    assert found.clipped.item()
    assert gradient(loss, batch).item() == pytest.approx(1.5)


def test_the_first_update_is_dr_grpo() -> None:
    correct = torch.tensor([True, False, False, False, True, False])
    groups = RolloutGroups.from_labels(["a", "a", "a", "a", "b", "b"])
    rollouts = MethodBatch(rewards=torch.zeros(6, 1), response_mask=torch.ones(6, 1), groups=groups, correct=correct)
    dr_grpo = [0.75, -0.25, -0.25, -0.25, 0.5, -0.5]
    assert METHOD.advantage(rollouts, NFTConfig()).tolist() == pytest.approx(dr_grpo)
    accuracy = [0.25] * 4 + [0.5] * 2
    first = batch_of([[0.0]] * 6, correct.int().tolist(), accuracy)
    assert gradient(loss, first).flatten().tolist() == pytest.approx([-value for value in dr_grpo])


def test_the_gradient_against_finite_differences_above_the_floor() -> None:
    batch = batch_of([[0.3, -2.0, 9.0], [-0.2, -1.0, -5.0]], [1, 0], [0.25, 0.6])
    torch.testing.assert_close(gradient(loss, batch), slope(loss, batch), rtol=1e-6, atol=1e-8)


def test_bounds_on_accuracy_and_on_the_ratio() -> None:
    """1 of 100 correct: q = 0.02. Beyond 10 a log-ratio has no gradient."""
    batch = batch_of([[0.0], [12.0]], [0, 1], [0.01, 0.5])
    assert gradient(loss, batch).flatten().tolist() == pytest.approx([0.02, 0.0])
    assert loss(batch)[1].item() == pytest.approx(-5.0)


def test_groups_of_one_outcome_and_rows_without_tokens_have_no_loss() -> None:
    batch = batch_of([[0.5], [0.5], []], [1, 0, 0], [1.0, 0.0, 0.0])
    assert not loss(batch).any()
    assert not gradient(loss, batch).any()


def test_far_ratios_stay_finite() -> None:
    batch = batch_of([[-1e4, 1e4]] * 2, [1, 0], [0.98, 0.98])
    for far in (batch, made_loss_batch([[1e4]], columns={"correct": [0], "accuracy": [0.5]})):
        assert torch.isfinite(loss(far)).all()
        assert torch.isfinite(gradient(loss, far)).all()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("min_accuracy", 0),
        ("min_accuracy", 0.5),
        ("max_log_ratio", 100),
        ("min_implicit_ratio", 0),
        ("incorrect_weight", -1),
        ("prompt_weight", "odds"),
    ],
)
def test_settings_out_of_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"algorithm\.nft\.{key} must be"):
        NFTConfig.from_mapping({key: value})
