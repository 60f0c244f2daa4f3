"""M2PO: both readings by hand, the limits in which nothing is bounded, and the settings.

Not exercised: stale data, which it is made for, and the effect on training.
"""

from __future__ import annotations

import math

import pytest
import torch

from verl_ispo.config.section import UnknownISPOKeyError
from verl_ispo.methods.m2po import M2POConfig, capping_threshold, keeping_threshold, m2po_loss, pushed_away
from verl_ispo.methods.method import LossBatch

# (log r)^2 = 0.01, 0.04, 0.25, 1.00 where A > 0, and a token that is pulled back
LOG_RATIO = [0.1, 0.2, 0.5, 1.0, -2.0]


def batch(log_ratio: torch.Tensor, advantages: torch.Tensor | None = None) -> LossBatch:
    return LossBatch(
        log_ratio=log_ratio,
        unclamped_log_ratio=log_ratio,
        advantages=torch.ones_like(log_ratio) if advantages is None else advantages,
        response_mask=torch.ones(log_ratio.shape, dtype=torch.bool),
        clip_low=0.2,
        clip_high=0.28,
        dual_clip=3.0,
        importance_weights=None,
    )


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_only_what_is_pushed_away_counts() -> None:
    mask = torch.tensor([[True, True, True, True, True, False]])
    found = pushed_away(row(1, -1, 1, -1, 1, 1), row(1, 1, -1, -1, 0, 1), mask)
    assert found.tolist() == [[True, False, False, True, False, False]]


def test_thresholds_by_hand() -> None:
    """Capped at 0.04 the mean is 0.13 / 4 = 0.0325, at 0.25 it is 0.14; of the two smallest alone it is 0.025."""
    squares = torch.tensor([1.0, 0.01, 0.25, 0.04], dtype=torch.float64)
    assert capping_threshold(squares, 0.04) == pytest.approx(0.2)
    assert capping_threshold(squares, 0.15) == pytest.approx(0.5)
    assert capping_threshold(squares, 0.005) == 0.0
    assert keeping_threshold(squares, 0.04) == 0.04
    assert keeping_threshold(squares, 0.1) == 0.25
    assert keeping_threshold(squares, 0.005) == -1.0
    for threshold in (capping_threshold, keeping_threshold):
        assert math.isinf(threshold(squares, 0.325))
        assert math.isinf(threshold(squares[:0], 0.04))


def test_equal_ratios_leave_together() -> None:
    """Of 0.01, 0.09 and 0.09 one 0.09 could stay under a bound of 0.05; which one is not for the order to say."""
    assert keeping_threshold(torch.tensor([0.09, 0.01, 0.09], dtype=torch.float64), 0.05) == 0.01


def test_the_losses_by_hand() -> None:
    """tau = 0.2: r up to e^0.2 = 1.22, which the least width widens to 1.5; the last token is not pushed away."""
    ratio = [math.exp(value) for value in LOG_RATIO]
    clipped = [min(r, 1.5) for r in ratio[:4]] + [ratio[4]]
    found = m2po_loss(batch(row(*LOG_RATIO)), M2POConfig())
    assert found.loss.tolist()[0] == pytest.approx([-r for r in clipped])
    assert found.clipped.tolist() == [[False, False, True, True, False]]
    narrow = m2po_loss(batch(row(*LOG_RATIO)), M2POConfig(min_clip_high=0.0))
    assert narrow.loss.tolist()[0][2:4] == pytest.approx([-math.exp(0.2)] * 2)
    masked = m2po_loss(batch(row(*LOG_RATIO)), M2POConfig(rule="mask"))
    assert masked.loss.tolist()[0] == pytest.approx([-ratio[0], -ratio[1], 0.0, 0.0, -ratio[4]])
    assert masked.clipped.tolist() == [[False, False, True, True, False]]


@pytest.mark.parametrize("rule", ["clip", "mask"])
def test_within_the_bound_it_is_the_unclipped_ratio(rule: str) -> None:
    """Also far outside of GRPO's clip: 99 tokens at r = 1.001 make room for one at r = e^1.9."""
    log_ratio = torch.tensor([[0.001] * 99 + [1.9]], dtype=torch.float64)
    found = m2po_loss(batch(log_ratio), M2POConfig(rule=rule))
    torch.testing.assert_close(found.loss, -log_ratio.exp())
    assert not found.clipped.any()


@pytest.mark.parametrize("rule", ["clip", "mask"])
def test_what_is_bounded_gets_no_gradient(rule: str) -> None:
    log_ratio = row(*LOG_RATIO).requires_grad_()
    m2po_loss(batch(log_ratio), M2POConfig(rule=rule)).loss.sum().backward()
    expected = [-math.exp(LOG_RATIO[0]), -math.exp(LOG_RATIO[1]), 0.0, 0.0, -math.exp(LOG_RATIO[4])]
    assert log_ratio.grad.tolist()[0] == pytest.approx(expected)


@pytest.mark.parametrize("rule", ["clip", "mask"])
def test_at_the_old_policy_it_is_reinforce(rule: str) -> None:
    log_ratio = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([[2.0] * 3, [-1.0] * 3], dtype=torch.float64)
    m2po_loss(batch(log_ratio, advantages), M2POConfig(rule=rule)).loss.sum().backward()
    assert torch.equal(log_ratio.grad, -advantages)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"second_moment_bound": 0.0}, r"m2po\.second_moment_bound must be a number in \(0"),
        ({"rule": "cap"}, r"m2po\.rule must be one of"),
        ({"min_clip_low": 1.5}, r"m2po\.min_clip_low must be a number in \[0, 1\]"),
        ({"min_clip_high": -0.1}, r"m2po\.min_clip_high must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        M2POConfig.from_mapping(settings)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(UnknownISPOKeyError, match="second_moment_bound"):
        M2POConfig.from_mapping({"second_moment": 0.04})
