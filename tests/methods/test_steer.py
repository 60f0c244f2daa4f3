"""STEER: the change of entropy and both mappings by hand, the limit in which it is verl's loss, and the settings.

Not exercised: the current policy's entropy in the trainer, and the effect on training.
"""

from __future__ import annotations

import math

import pytest
import torch
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla
from verl.utils.config import omega_conf_to_dataclass

from tests.composed import composed
from verl_ispo.config.section import UnknownISPOKeyError
from verl_ispo.methods.method import LossBatch
from verl_ispo.methods.steer import STEERConfig, entropy_change, steer_loss, token_weights


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def batch(log_ratio: torch.Tensor, advantages: torch.Tensor, entropy: torch.Tensor) -> LossBatch:
    return LossBatch(
        log_ratio=log_ratio,
        unclamped_log_ratio=log_ratio,
        advantages=advantages,
        response_mask=torch.ones(log_ratio.shape, dtype=torch.bool),
        clip_low=0.2,
        clip_high=0.28,
        dual_clip=3.0,
        importance_weights=None,
        old_log_prob=torch.full_like(log_ratio, math.log(0.5)),
        entropy=entropy,
    )


def test_change_by_hand() -> None:
    """p_old = 1/2 and p = 1/4: 2 A * 3/16 * (H - log 4). 0 at H = log 4, at A = 0 and (but for 1e-8) at p = 1."""
    quarter, half = numbers(0.25).log(), numbers(0.5).log()
    found = entropy_change(numbers(-2.0), half, quarter, numbers(1.0))
    assert found.item() == pytest.approx(2 * 2 * 3 / 16 * abs(1.0 - math.log(4)))
    for advantage, log_prob, entropy in ((1.0, quarter, math.log(4)), (0.0, quarter, 3.0), (1.0, numbers(0.0), 3.0)):
        assert entropy_change(numbers(advantage), half, log_prob, numbers(entropy)).item() == pytest.approx(0, abs=1e-7)


def test_exponential_weights_by_hand() -> None:
    """0.8^(change / 0.4); below 0.02 the scale stays at 0.02."""
    mask = torch.tensor([[True, True, True, False]])
    found = token_weights(numbers(0.0, 0.1, 0.4, 9.0), mask, STEERConfig())
    assert found.tolist()[0] == pytest.approx([1.0, 0.8**0.25, 0.8, 0.0])
    small = token_weights(numbers(0.0, 0.0025, 0.01, 9.0), mask, STEERConfig())
    assert small.tolist()[0] == pytest.approx([1.0, 0.8**0.125, 0.8**0.5, 0.0])


def test_linear_weights_by_hand() -> None:
    mask = torch.tensor([[True, True, True, False]])
    linear = STEERConfig(mapping="linear")
    assert token_weights(numbers(0.1, 0.2, 0.5, 9.0), mask, linear).tolist()[0] == pytest.approx([1.2, 1.1, 0.8, 0.0])
    assert token_weights(numbers(0.1, 0.1, 0.1, 9.0), mask, linear).tolist()[0] == pytest.approx([1.0] * 3 + [0.0])


@pytest.mark.parametrize("mapping", ["exponential", "linear"])
def test_rows_without_tokens_are_nothing(mapping: str) -> None:
    found = token_weights(numbers(3.0, 2.0), torch.zeros(1, 2, dtype=torch.bool), STEERConfig(mapping=mapping))
    assert not found.any()


def test_without_a_change_of_entropy_it_is_verls_loss() -> None:
    """Weights of 1 (min_weight 1): verl's vanilla, its dual clip included, and the same gradient."""
    overrides = ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",)
    config = omega_conf_to_dataclass(composed(*overrides).actor_rollout_ref.actor)
    log_ratio = torch.tensor([[-2.0, -0.3, 0.1], [0.2, 0.5, 2.0]], dtype=torch.float64)
    advantages = torch.tensor([[1.5] * 3, [-0.5] * 3], dtype=torch.float64)
    ours, verls = log_ratio.clone().requires_grad_(), log_ratio.clone().requires_grad_()
    loss = steer_loss(batch(ours, advantages, torch.ones_like(log_ratio)), STEERConfig(min_weight=1.0)).loss.mean()
    expected, _ = compute_policy_loss_vanilla(
        torch.zeros_like(verls), verls, advantages, torch.ones_like(verls), "token-mean", config
    )
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item())
    torch.testing.assert_close(ours.grad, verls.grad)


def test_the_weights_pass_no_gradient() -> None:
    """Inside the clip the gradient is -w A r, with w of the point: 1 for H = -log p and 0.8 for the other token."""
    log_ratio = numbers(0.0, 0.0).requires_grad_()
    steer_loss(batch(log_ratio, numbers(2.0, 2.0), numbers(math.log(2), 2.0)), STEERConfig()).loss.sum().backward()
    assert log_ratio.grad.tolist()[0] == pytest.approx([-2.0, -1.6])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mapping": "step"}, r"steer\.mapping must be one of"),
        ({"min_weight": 0.0}, r"steer\.min_weight must be a number in \(0, 1\]"),
        ({"max_weight": 0.9}, r"steer\.max_weight must be"),
        ({"min_scale": 0.0}, r"steer\.min_scale must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        STEERConfig.from_mapping(settings)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(UnknownISPOKeyError, match="mapping"):
        STEERConfig.from_mapping({"map": "linear"})
