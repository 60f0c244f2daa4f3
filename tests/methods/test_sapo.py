"""SAPO: verl's loss under the preset, by hand, and its limit at the old policy.

Not exercised: the effect on training.
"""

from __future__ import annotations

import math

import pytest
import torch
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.utils.config import omega_conf_to_dataclass

from tests.composed import composed


def loss_and_gradient(ratio: list[float], advantage: list[float]) -> tuple[float, list[float]]:
    """Of one-token sequences, whose mean is the mean over tokens."""
    actor = omega_conf_to_dataclass(
        composed("method=sapo", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1").actor_rollout_ref.actor
    )
    log_prob = torch.tensor(ratio, dtype=torch.float64).log().unsqueeze(-1).requires_grad_()
    loss, _ = get_policy_loss_fn(actor.policy_loss.loss_mode)(
        old_log_prob=torch.zeros_like(log_prob),
        log_prob=log_prob,
        advantages=torch.tensor(advantage, dtype=torch.float64).unsqueeze(-1),
        response_mask=torch.ones_like(log_prob),
        loss_agg_mode=actor.loss_agg_mode,
        config=actor,
    )
    loss.backward()
    return loss.item(), log_prob.grad.squeeze(-1).tolist()


def test_the_gate_by_hand() -> None:
    """r = 2, A = 1: -4 sigmoid(1); A = -1: 4 / 1.05 sigmoid(1.05)."""
    expected = {1.0: -4 / (1 + math.exp(-1)), -1.0: 4 / 1.05 / (1 + math.exp(-1.05))}
    for advantage, value in expected.items():
        assert loss_and_gradient([2.0], [advantage])[0] == pytest.approx(value, rel=1e-6)


def test_at_the_old_policy_the_gradient_is_grpos() -> None:
    """The derivative of 4 / tau sigmoid(tau (r - 1)) at r = 1 is 1 for every tau, so -A over two sequences."""
    assert loss_and_gradient([1.0, 1.0], [1.5, -0.5])[1] == pytest.approx([-0.75, 0.25], rel=1e-6)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_far_from_the_old_policy_the_gradient_fades(advantage: float) -> None:
    near, far = (abs(loss_and_gradient([ratio], [advantage])[1][0]) for ratio in (1.2, 12.0))
    assert far < 0.01 * near
