"""The off-policy sequence mask: which rollouts it leaves out, by hand, what stays, and the settings.

Not exercised: the distance between rollout engine and training engine, and the effect on training.
"""

from __future__ import annotations

import math

import pytest
import torch

from verl_ispo.config.section import UnknownISPOKeyError
from verl_ispo.methods.clipped_loss import dual_clipped_loss
from verl_ispo.methods.deepseek_mask import DeepSeekMaskConfig, deepseek_mask_loss, divergence
from verl_ispo.methods.method import LossBatch


def batch(log_ratio: torch.Tensor, *advantages: float, lengths: tuple[int, ...] | None = None) -> LossBatch:
    lengths = lengths or (log_ratio.shape[1],) * len(log_ratio)
    return LossBatch(
        log_ratio=log_ratio,
        unclamped_log_ratio=log_ratio,
        advantages=torch.tensor(advantages, dtype=torch.float64).unsqueeze(-1).expand(log_ratio.shape),
        response_mask=torch.arange(log_ratio.shape[1]) < torch.tensor(lengths).unsqueeze(-1),
        clip_low=0.2,
        clip_high=0.28,
        dual_clip=3.0,
        importance_weights=None,
    )


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_divergence_by_hand() -> None:
    found = divergence(
        rows([-1.0, 0.4], [2.0, 5.0], [7.0, 7.0]), torch.tensor([[True, True], [True, False], [False] * 2])
    )
    assert found.tolist() == pytest.approx([0.3, -2.0, 0.0])


def test_who_is_left_out() -> None:
    """A < 0 and a mean above 0.5: the second row alone; 0.5 itself, A = 0, A > 0 and a rise in likelihood stay."""
    log_ratio = rows([-0.5, -0.5], [-1.2, 0.1], [-2.0, -2.0], [-2.0, -2.0], [2.0, 2.0])
    found = deepseek_mask_loss(batch(log_ratio, -1.0, -1.0, 1.0, 0.0, -1.0), DeepSeekMaskConfig())
    # the first row is clipped, as its ratio is below 0.8
    assert found.loss.tolist()[:2] == [[0.8, 0.8], [0.0, 0.0]]
    assert found.loss.tolist()[2] == pytest.approx([-math.exp(-2)] * 2)
    assert found.loss.tolist()[4] == [3.0, 3.0]
    assert found.clipped.tolist() == [[True] * 2, [True] * 2, [False] * 2, [False] * 2, [False] * 2]


def test_what_is_left_out_gets_no_gradient() -> None:
    log_ratio = rows([-1.2, 0.1], [0.0, 0.1]).requires_grad_()
    deepseek_mask_loss(batch(log_ratio, -1.0, -1.0), DeepSeekMaskConfig()).loss.sum().backward()
    assert not log_ratio.grad[0].any()
    assert log_ratio.grad[1].tolist() == pytest.approx([1.0, math.exp(0.1)])


def test_with_a_wide_bound_it_is_the_clipped_loss() -> None:
    given = batch(torch.linspace(-3, 3, 8, dtype=torch.float64).reshape(2, 4), -1.0, -2.0, lengths=(4, 3))
    found = deepseek_mask_loss(given, DeepSeekMaskConfig(max_divergence=50.0))
    torch.testing.assert_close(found.loss, dual_clipped_loss(given)[0])


def test_a_negative_bound_is_refused() -> None:
    with pytest.raises(ValueError, match=r"deepseek_mask\.max_divergence must be"):
        DeepSeekMaskConfig.from_mapping({"max_divergence": -0.1})


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(UnknownISPOKeyError, match="max_divergence"):
        DeepSeekMaskConfig.from_mapping({"delta": 0.5})
