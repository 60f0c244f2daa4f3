"""CoPG: pairs of regularized rewards by hand, RLOO as its first update, and the optimum, where it has no gradient.

Not exercised: that the trainer keeps a prompt's rollouts in one micro-batch, and the reference's log-probs that it
hands over (tests/trainer).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.methods.made_loss import gradient, made_loss_batch, slope
from verl_ispo.methods.copg import METHOD, CoPGConfig, copg_loss
from verl_ispo.methods.method import LossBatch, MethodBatch
from verl_ispo.signals.groups import RolloutGroups

CONFIG = CoPGConfig(beta=0.5)


def loss(batch: LossBatch) -> torch.Tensor:
    return copg_loss(batch, CONFIG).loss


def batch_of(log_ratio: list[list[float]], groups: list[int], score: list[float], drift: float = 0.0) -> LossBatch:
    """The rollout policy is e^drift times as likely as the reference at every token."""
    batch = made_loss_batch(log_ratio, groups=groups, columns={"score": score})
    return replace(batch, columns=batch.columns | {"ref_log_prob": batch.old_log_prob - drift})


def test_a_group_by_hand() -> None:
    """b = 0.5, drift 0.2 per token: Rb = 1 - 0.5 (0.4 + 0.6), 0 - 0.5 (0.2 - 0.2), 0 - 0.5 (0.2 + 0.8).

    That is 0.5, 0, -0.5; pairs 0.25, 1, 0.25, each over k - 1 = 2, in halves on both rollouts.
    """
    batch = batch_of([[0.2, 0.4], [-0.2], [0.8]], [0, 0, 0], [1.0, 0.0, 0.0], drift=0.2)
    assert loss(batch).sum(dim=-1).tolist() == pytest.approx([1.25 / 4, 0.5 / 4, 1.25 / 4])
    assert loss(batch)[0].tolist() == pytest.approx([1.25 / 8] * 2)


def test_the_first_update_is_2_b_times_rloo_which_is_logged() -> None:
    rollouts = MethodBatch(
        rewards=torch.tensor([[1.0], [0.0], [0.0], [1.0]]),
        response_mask=torch.ones(4, 1),
        groups=RolloutGroups.from_labels(["a", "a", "a", "b"]),
        log_prob=torch.full((4, 1), -1.0),
        ref_log_prob=torch.full((4, 1), -1.0),
    )
    rloo = [1.0, -0.5, -0.5, 0.0]
    assert METHOD.advantage(rollouts, CONFIG).tolist() == pytest.approx(rloo)
    first = batch_of([[0.0]] * 4, [0, 0, 0, 1], [1.0, 0.0, 0.0, 1.0])
    assert gradient(loss, first).flatten().tolist() == pytest.approx([-2 * 0.5 * value for value in rloo])


def test_at_the_optimum_there_is_no_gradient() -> None:
    """log p - log p_ref = R / b + constant: Rb is the same for all, with any constant."""
    batch = batch_of([[2.0 + 0.3], [0.3], [2.0, 0.3]], [0, 0, 0], [1.0, 0.0, 1.0])
    assert loss(batch).abs().max().item() < 1e-12
    assert gradient(loss, batch).abs().max().item() < 1e-12


def test_equal_scores_are_drawn_to_one_log_ratio() -> None:
    batch = batch_of([[0.4], [-0.4]], [0, 0], [1.0, 1.0])
    down, up = gradient(loss, batch).flatten().tolist()
    assert down > 0 > up


def test_the_gradient_against_finite_differences() -> None:
    batch = batch_of([[0.2, 0.4], [-0.2], [0.8], [1.5], [0.1]], [0, 0, 0, 1, 1], [1.0, 0.0, 0.25, 0.0, 0.0])
    torch.testing.assert_close(gradient(loss, batch), slope(loss, batch), rtol=1e-6, atol=1e-8)


def test_single_rollouts_and_rows_without_tokens() -> None:
    batch = batch_of([[0.5], []], [0, 0], [1.0, 0.0])
    assert loss(batch).tolist() == [[0.0], [0.0]]
    assert gradient(loss, batch).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("value", [0, -0.1, math.inf, "0.1", None])
def test_a_beta_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"algorithm\.copg\.beta must be a number in \(0, inf\)"):
        CoPGConfig.from_mapping({"beta": value})
