"""ASPO: which entropies are low, the four branches by hand with their gradients, and the settings.

Not exercised: the current policy's entropy in the trainer, and the effect on training.
"""

from __future__ import annotations

import math

import pytest
import torch

from verl_ispo.config.section import UnknownISPOKeyError
from verl_ispo.methods.aspo import ASPOConfig, aspo_loss, low_entropy
from verl_ispo.methods.method import LossBatch

LOG_OLD = -2.0


def batch(ratios: torch.Tensor, advantage: float, entropy: torch.Tensor) -> LossBatch:
    log_ratio = ratios.log().requires_grad_()
    return LossBatch(
        log_ratio=log_ratio,
        unclamped_log_ratio=log_ratio,
        advantages=torch.full_like(ratios, advantage),
        response_mask=torch.ones(ratios.shape, dtype=torch.bool),
        clip_low=0.2,
        clip_high=0.28,
        dual_clip=3.0,
        importance_weights=None,
        old_log_prob=torch.full_like(ratios, LOG_OLD),
        entropy=entropy,
    )


def loss_and_gradient(ratio: float, advantage: float, low: bool) -> tuple[float, float]:
    """Of the first of two tokens, which has the lower or the higher entropy."""
    given = batch(
        torch.tensor([[ratio, 1.0]], dtype=torch.float64), advantage, torch.tensor([[1.0, 2.0 if low else 0.5]])
    )
    loss = aspo_loss(given, ASPOConfig()).loss[0, 0]
    loss.backward()
    return loss.item(), given.log_ratio.grad[0, 0].item()


def test_low_entropies_by_hand() -> None:
    """Of 1 to 6 the 0.8 quantile is 5; of 1 and 2 it is 1.8; a response of one token is at its own quantile."""
    entropy = torch.tensor([[6.0, 5, 4, 3, 2, 1], [2, 1, 9, 9, 9, 9], [7, 9, 9, 9, 9, 9], [9] * 6])
    mask = torch.arange(6) < torch.tensor([6, 2, 1, 0]).unsqueeze(-1)
    found = low_entropy(entropy, mask, 0.8)
    assert found.tolist()[0] == [False] + [True] * 5
    assert found.tolist()[1] == [False, True] + [False] * 4
    assert found.tolist()[2] == [True] + [False] * 5
    assert not found[3].any()


@pytest.mark.parametrize(
    ("ratio", "low", "loss", "gradient"),
    [
        (1.0, True, 2.0, 2.0),
        (0.7, True, 1.6, 0.0),
        (0.7, False, 1.4, 1.4),
        (0.5, False, 1.2, 0.0),
        (2.5, True, 5.0, 5.0),
        (4.0, True, 6 * (LOG_OLD + math.log(4)), 6.0),
    ],
)
def test_negative_advantages_by_hand(ratio: float, low: bool, loss: float, gradient: float) -> None:
    """A = -2: 2 r with r at least 0.8 or 0.6, and 6 log p above a ratio of 3."""
    assert loss_and_gradient(ratio, -2.0, low) == pytest.approx((loss, gradient))


@pytest.mark.parametrize(
    ("ratio", "low", "loss", "gradient"),
    [
        (1.0, True, -2.0, -2.0),
        (1.3, True, -2 / 1.2, 0.0),
        (1.3, False, -2 / 1.3, -2 / 1.3),
        (1.5, False, -2 / 1.4, 0.0),
        (0.5, True, -4.0, -4.0),
        (0.25, True, -6 * (LOG_OLD + math.log(0.25)), -6.0),
    ],
)
def test_positive_advantages_by_hand(ratio: float, low: bool, loss: float, gradient: float) -> None:
    """A = 2: -2 / r with r at most 1.2 or 1.4, and -6 log p below a ratio of 1/3."""
    assert loss_and_gradient(ratio, 2.0, low) == pytest.approx((loss, gradient))


@pytest.mark.parametrize("advantage", [1.5, -1.5])
def test_at_the_old_policy_the_gradient_is_grpos(advantage: float) -> None:
    given = batch(torch.ones(2, 3, dtype=torch.float64), advantage, torch.rand(2, 3))
    found = aspo_loss(given, ASPOConfig())
    found.loss.sum().backward()
    torch.testing.assert_close(given.log_ratio.grad, torch.full((2, 3), -advantage, dtype=torch.float64))
    assert not found.clipped.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"entropy_quantile": 1.1}, r"aspo\.entropy_quantile must be a number in \[0, 1\]"),
        ({"low_entropy_clip": 1.0}, r"aspo\.low_entropy_clip must be a number in \[0, 1\)"),
        ({"high_entropy_clip": -0.1}, r"aspo\.high_entropy_clip must be"),
        ({"max_weight": 1.0}, r"aspo\.max_weight must be a number in \(1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ASPOConfig.from_mapping(settings)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(UnknownISPOKeyError, match="entropy_quantile"):
        ASPOConfig.from_mapping({"quantile": 0.8})
