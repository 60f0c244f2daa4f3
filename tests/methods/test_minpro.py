"""MinPRO: the smallest earlier ratio and the loss by hand, and its limit at the old policy.

Not exercised: the effect on training.
"""

from __future__ import annotations

import math

import pytest
import torch

from verl_ispo.methods.method import LossBatch
from verl_ispo.methods.minpro import minpro_loss, smallest_earlier


def batch(log_ratio: torch.Tensor, mask: torch.Tensor | None = None, advantage: float = 1.0) -> LossBatch:
    return LossBatch(
        log_ratio=log_ratio.clamp(-20, 20),
        unclamped_log_ratio=log_ratio,
        advantages=torch.full_like(log_ratio, advantage),
        response_mask=torch.ones(log_ratio.shape, dtype=torch.bool) if mask is None else mask,
        clip_low=0.2,
        clip_high=0.28,
        dual_clip=3.0,
        importance_weights=None,
        old_log_prob=torch.full_like(log_ratio, -1.0),
    )


def logs(*ratios: float) -> torch.Tensor:
    return torch.tensor([ratios], dtype=torch.float64).log()


def test_the_smallest_earlier_ratio_by_hand() -> None:
    """The third token is not the policy's: neither it nor its tiny ratio counts."""
    mask = torch.tensor([[True, True, False, True, True]])
    found = smallest_earlier(logs(1.2, 0.9, 0.01, 1.1, 0.5), mask).exp()
    assert found.tolist()[0] == pytest.approx([1.0, 1.2, 0.9, 0.9, 0.9])


def test_the_loss_by_hand() -> None:
    """w = 1.2, 1.1 * 1.2 = 1.32 (above 1.28), 0.8 * 1.1 = 0.88 and 0.9 * 0.8 = 0.72 (below 0.8)."""
    ratios = (1.2, 1.1, 0.8, 0.9)
    found = minpro_loss(batch(logs(*ratios)), None)
    expected = [-w * (-1 + math.log(r)) for w, r in zip((1.2, 1.28, 0.88, 0.8), ratios, strict=True)]
    assert found.loss.tolist()[0] == pytest.approx(expected)
    assert found.clipped.tolist() == [[False, True, False, True]]


@pytest.mark.parametrize("advantage", [2.0, -0.5])
def test_the_weight_is_a_constant_and_every_token_keeps_a_gradient(advantage: float) -> None:
    log_ratio = logs(1.2, 1.1, 0.8, 0.9).requires_grad_()
    minpro_loss(batch(log_ratio, advantage=advantage), None).loss.sum().backward()
    assert log_ratio.grad.tolist()[0] == pytest.approx([-w * advantage for w in (1.2, 1.28, 0.88, 0.8)])


def test_at_the_old_policy_it_is_reinforce() -> None:
    log_ratio = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    found = minpro_loss(batch(log_ratio), None)
    found.loss.sum().backward()
    assert torch.equal(log_ratio.grad, -torch.ones(2, 3, dtype=torch.float64))
    assert not found.clipped.any()


def test_a_row_without_tokens_gets_nothing() -> None:
    found = minpro_loss(batch(logs(1.5, 0.5), torch.zeros(1, 2, dtype=torch.bool)), None)
    assert not found.loss.any()
    assert not found.clipped.any()
