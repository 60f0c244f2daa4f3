"""VESPO: the soft weight of a sequence by hand, a loss that is REINFORCE on the rollout policy, and its bounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.methods.made_loss import gradient, made_loss_batch
from verl_ispo.methods.method import LossBatch
from verl_ispo.methods.vespo import VESPOConfig, contradictions, sequence_log_weight, soft_weight, vespo_loss

CONFIG = VESPOConfig()


def loss(batch: LossBatch) -> torch.Tensor:
    return vespo_loss(batch, CONFIG).loss


def test_the_weight_by_hand() -> None:
    """W = 2: e^(3 - 6) 2^2 for a good response, e^(2 - 4) 2^3 for a bad one."""
    log_weight = torch.full((2,), math.log(2), dtype=torch.float64)
    found = soft_weight(log_weight, torch.tensor([True, False]), CONFIG)
    assert found.tolist() == pytest.approx([4 * math.exp(-3), 8 * math.exp(-2)])


def test_the_weight_is_1_on_the_rollout_policy_and_highest_at_k_over_lam() -> None:
    grid = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    for positive, ratio in ((True, 2 / 3), (False, 3 / 2)):
        weights = soft_weight(grid, torch.tensor(positive), CONFIG)
        assert weights[4000].item() == pytest.approx(1.0)
        assert grid[weights.argmax()].item() == pytest.approx(math.log(ratio), abs=1e-3)


def test_the_loss_by_hand() -> None:
    """Two tokens of log-ratio 0.3 and -0.1, so log W = 0.2; log p is -0.7 and -1.1; A = -2."""
    batch = made_loss_batch([[0.3, -0.1]], advantages=[-2.0])
    phi = math.exp(2 + 3 * 0.2 - 2 * math.exp(0.2))
    assert loss(batch)[0].tolist() == pytest.approx([2 * phi * -0.7, 2 * phi * -1.1])
    # phi is a constant
    assert gradient(loss, batch)[0].tolist() == pytest.approx([2 * phi] * 2)


def test_on_the_rollout_policy_it_is_reinforce() -> None:
    batch = made_loss_batch([[0.0, 0.0], [0.0], [0.0]], advantages=[0.7, -1.3, 0.0])
    expected = torch.where(batch.response_mask, -batch.advantages, 0.0)
    torch.testing.assert_close(gradient(loss, batch), expected)


def test_bounds_on_the_weight() -> None:
    """A far response keeps a weight of e^(3 - 2 20), or nothing; a term is bounded before the sum."""
    mask = torch.ones(2, 2, dtype=torch.bool)
    found = sequence_log_weight(torch.tensor([[-15.0, -15.0], [-100.0, 15.0]]), mask, 20.0)
    assert found.tolist() == [-20.0, -5.0]
    for far in (-1e4, 1e4):
        batch = made_loss_batch([[far, far], [far]], advantages=[1.0, -1.0])
        assert torch.isfinite(loss(batch)).all()
        assert torch.isfinite(gradient(loss, batch)).all()


def test_rows_without_tokens_have_no_loss() -> None:
    batch = made_loss_batch([[], [0.4]], advantages=[1.0, 1.0])
    assert loss(batch)[0].tolist() == [0.0]


def test_verls_importance_weights_are_refused() -> None:
    key = "algorithm.rollout_correction.rollout_is"
    assert list(contradictions({key: None}.get)) == []
    (found,) = contradictions({key: "token"}.get)
    assert (found.second, found.remedy) == (key, f"Set {key}=null.")


@pytest.mark.parametrize(
    ("key", "value"), [("k_positive", -1), ("lam_negative", 0), ("lam_positive", "3"), ("max_abs_log_weight", 100)]
)
def test_settings_out_of_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"algorithm\.vespo\.{key} must be a number in"):
        VESPOConfig.from_mapping({key: value})
