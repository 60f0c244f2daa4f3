"""PACS: the verdict against a centred log-ratio, by hand, and what is left in groups with a single outcome.

Not exercised: that the trainer keeps a prompt's rollouts in one micro-batch (tests/trainer).
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.methods.made_loss import gradient, made_loss_batch, slope
from verl_ispo.methods.method import LossBatch, MethodBatch
from verl_ispo.methods.pacs import METHOD, PACSConfig, leave_one_out, outcome_weight, pacs_loss
from verl_ispo.signals.groups import RolloutGroups

CONFIG = PACSConfig()


def loss(batch: LossBatch) -> torch.Tensor:
    return pacs_loss(batch, CONFIG).loss


def test_a_group_by_hand() -> None:
    """psi = 0.5, 0.2, -0.1; z = 0.45, 0, -0.45. One correct (w = 3/2), two incorrect (w = 3/4)."""
    batch = made_loss_batch([[0.2, 0.3], [0.2], [-0.3, 0.2]], groups=[0, 0, 0], columns={"correct": [1, 0, 0]})
    low, zero = math.log(1 + math.exp(-0.45)), math.log(2)
    assert loss(batch).sum(dim=-1).tolist() == pytest.approx([1.5 * low, 0.75 * zero, 0.75 * low])
    assert loss(batch)[0].tolist() == pytest.approx([0.75 * low] * 2)


def test_weights_balance_the_outcomes_of_a_group() -> None:
    correct = torch.tensor([True, False, False, False, True, True, True])
    groups = RolloutGroups.from_labels(["a", "a", "a", "a", "b", "b", "c"])
    weight = outcome_weight(correct, groups)
    assert weight.tolist() == pytest.approx([2.0, 2 / 3, 2 / 3, 2 / 3, 1.0, 1.0, 0.0])
    assert leave_one_out(torch.arange(7.0), groups).tolist() == pytest.approx([-2, -2 / 3, 2 / 3, 2, -1, 1, 0])


def test_the_first_update_is_what_is_logged() -> None:
    """w (R - 1/2) times 1 + 1 / (G - 1): 2/2 4/3 and -1/3 4/3; nothing where all are correct or one is alone."""
    correct = torch.tensor([True, False, False, False, True, True, True])
    labels = [0, 0, 0, 0, 1, 1, 2]
    rollouts = MethodBatch(
        rewards=torch.zeros(7, 1),
        response_mask=torch.ones(7, 1),
        groups=RolloutGroups.from_labels(labels),
        correct=correct,
    )
    expected = [4 / 3, -4 / 9, -4 / 9, -4 / 9, 0.0, 0.0, 0.0]
    assert METHOD.advantage(rollouts, CONFIG).tolist() == pytest.approx(expected)
    first = made_loss_batch([[0.0]] * 7, groups=labels, columns={"correct": correct.int().tolist()})
    assert gradient(loss, first).flatten().tolist() == pytest.approx([-value for value in expected])


def test_a_group_of_one_outcome_pulls_its_rollouts_together() -> None:
    for verdict in (0, 1):
        batch = made_loss_batch([[0.4], [-0.4]], groups=[0, 0], columns={"correct": [verdict] * 2})
        down, up = gradient(loss, batch).flatten().tolist()
        assert down > 0 > up
        assert down == pytest.approx(-up)


def test_the_gradient_against_finite_differences() -> None:
    batch = made_loss_batch(
        [[0.2, 0.3], [0.2], [-0.3, 0.2], [1.5, 2.0], [-2.0], [0.3]],
        groups=[0, 0, 0, 1, 1, 2],
        columns={"correct": [1, 0, 0, 1, 1, 1]},
    )
    torch.testing.assert_close(gradient(loss, batch), slope(loss, batch), rtol=1e-6, atol=1e-8)


def test_single_rollouts_padding_and_far_scores() -> None:
    batch = made_loss_batch([[0.5], [], [-1e4], [1e4]], groups=[0, 0, 1, 1], columns={"correct": [1, 0, 1, 0]})
    assert loss(batch)[:, 0].tolist() == pytest.approx([0.0, 0.0, 2e4, 2e4])
    assert gradient(loss, batch).flatten().tolist() == pytest.approx([0.0, 0.0, -2.0, 2.0])


def test_a_micro_batch_of_single_rollouts_can_be_differentiated() -> None:
    batch = made_loss_batch([[0.5], [0.1]], groups=[0, 1], columns={"correct": [1, 0]})
    assert not gradient(loss, batch).any()


@pytest.mark.parametrize("value", [0, -1.0, math.inf, "1", None])
def test_a_beta_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"algorithm\.pacs\.beta must be a number in \(0, inf\)"):
        PACSConfig.from_mapping({"beta": value})
