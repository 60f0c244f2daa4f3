"""REAL: scores of a group's rollouts against its outcomes, by hand and by finite differences.

Not exercised: that the trainer keeps a prompt's rollouts in one micro-batch (tests/trainer).
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.methods.made_loss import gradient, made_loss_batch, slope
from verl_ispo.methods.method import LossBatch, MethodBatch
from verl_ispo.methods.real import METHOD, REALConfig, real_loss
from verl_ispo.signals.groups import RolloutGroups

CONFIG = REALConfig()
MIXED = made_loss_batch(
    [[0.3, -0.1], [0.2, 0.4, 0.6], [-0.5], [0.7, 0.1]],
    groups=[0, 0, 0, 0],
    columns={"correct": [1, 0, 0, 1]},
)


def loss(batch: LossBatch) -> torch.Tensor:
    return real_loss(batch, CONFIG).loss


def test_a_group_by_hand() -> None:
    """tau = 0.5. Scores: correct 0.1 and 0.4, incorrect 0.4 and -0.5.

    log(1 + e^0.8 + e^-1) + log(1 + e^-0.2 + e^-0.8), on each row in equal parts.
    """
    expected = math.log(1 + math.exp(0.8) + math.exp(-1)) + math.log(1 + math.exp(-0.2) + math.exp(-0.8))
    assert loss(MIXED).sum(dim=-1).tolist() == pytest.approx([expected] * 4)
    assert loss(MIXED)[1].tolist() == pytest.approx([expected / 3] * 3)
    assert loss(MIXED)[2].tolist() == pytest.approx([expected, 0.0, 0.0])


def test_the_first_update_by_hand() -> None:
    """All scores 0, one correct and two incorrect: the loss is log 2 + log 3.

    Its slope in a score is -1 / (2 tau) for the correct rollout, 1 / (3 tau) for an incorrect one; the group's loss
    stands on three rows, and each of a rollout's two tokens has half of its score.
    """
    first = made_loss_batch([[0.0, 0.0]] * 3, groups=[0, 0, 0], columns={"correct": [1, 0, 0]})
    assert loss(first).sum(dim=-1).tolist() == pytest.approx([math.log(6)] * 3)
    found = gradient(loss, first)[:, 0]
    assert found.tolist() == pytest.approx([-3 / (2 * 2 * 0.5), 3 / (2 * 3 * 0.5), 3 / (2 * 3 * 0.5)])


def test_the_gradient_against_finite_differences() -> None:
    torch.testing.assert_close(gradient(loss, MIXED), slope(loss, MIXED), rtol=1e-6, atol=1e-7)


def test_groups_of_one_outcome_single_rollouts_and_padding_have_no_loss() -> None:
    batch = made_loss_batch(
        [[0.5], [0.1], [0.3], [0.2], [0.9], [], [0.1], [0.2]],
        groups=[0, 0, 1, 1, 2, 0, 3, 3],
        columns={"correct": [1, 1, 0, 0, 1, 0, 1, 0]},
    )
    assert not loss(batch)[:6].any()
    assert not gradient(loss, batch)[:6].any()
    assert loss(batch)[6:].all()


def test_a_micro_batch_without_a_mixed_group_can_be_differentiated() -> None:
    """verl calls backward on every micro-batch."""
    batch = made_loss_batch([[0.5], [0.1]], groups=[0, 0], columns={"correct": [1, 1]})
    assert not gradient(loss, batch).any()


def test_a_group_does_not_see_another() -> None:
    two = made_loss_batch([[0.3], [0.2], [0.4], [-0.1]], groups=[5, 5, 9, 9], columns={"correct": [1, 0, 1, 0]})
    one = made_loss_batch([[0.4], [-0.1]], groups=[9, 9], columns={"correct": [1, 0]})
    torch.testing.assert_close(loss(two)[2:], loss(one))


def test_large_scores_do_not_overflow() -> None:
    far = made_loss_batch([[-20.0], [20.0]], groups=[0, 0], columns={"correct": [1, 0]})
    assert loss(far).sum(dim=-1).tolist() == pytest.approx([80.0, 80.0])
    assert torch.isfinite(gradient(loss, far)).all()


def test_what_is_logged_as_the_advantage() -> None:
    batch = MethodBatch(
        rewards=torch.zeros(5, 2),
        response_mask=torch.ones(5, 2),
        groups=RolloutGroups.from_labels(["mixed", "mixed", "right", "right", "alone"]),
        correct=torch.tensor([True, False, True, True, False]),
    )
    assert METHOD.advantage(batch, CONFIG).tolist() == [1.0, -1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("value", [0, -0.5, math.nan, "0.5", None])
def test_a_temperature_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"algorithm\.real\.temperature must be a number in \(0, inf\)"):
        REALConfig.from_mapping({"temperature": value})
