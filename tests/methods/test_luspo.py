"""LUSPO: verl's GSPO under the preset is the length-weighted sequence loss, by hand and at its gradient.

Not exercised: the effect on training.
"""

from __future__ import annotations

import math

import pytest
import torch
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.utils.config import omega_conf_to_dataclass

from tests.composed import composed

LENGTHS = [1, 4]


def loss_and_gradient(method: str, log_ratio: torch.Tensor, advantage: list[float]) -> tuple[float, torch.Tensor]:
    actor = omega_conf_to_dataclass(
        composed(f"method={method}", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1").actor_rollout_ref.actor
    )
    mask = (torch.arange(4) < torch.tensor(LENGTHS).unsqueeze(-1)).double()
    log_prob = log_ratio.clone().requires_grad_()
    loss, _ = get_policy_loss_fn(actor.policy_loss.loss_mode)(
        old_log_prob=torch.zeros_like(log_ratio),
        log_prob=log_prob,
        advantages=torch.tensor(advantage, dtype=torch.float64).unsqueeze(-1) * mask,
        response_mask=mask,
        loss_agg_mode=actor.loss_agg_mode,
        config=actor,
    )
    loss.backward()
    return loss.item(), log_prob.grad


def test_by_hand() -> None:
    """Mean log-ratios 0.001 and -0.001, inside the clip: -(1 e^0.001 * 2 - 4 e^-0.001 * 1) / 2."""
    log_ratio = torch.tensor([[0.001, 9.0, 9.0, 9.0], [0.004, -0.008, 0.0, 0.0]], dtype=torch.float64)
    loss, _ = loss_and_gradient("luspo", log_ratio, [2.0, -1.0])
    assert loss == pytest.approx(-(2 * math.exp(0.001) - 4 * math.exp(-0.001)) / 2, rel=1e-6)


def test_a_sequence_beyond_the_clip_gets_no_gradient() -> None:
    """A mean log-ratio of 0.0026 is above log(1.0025), and one of -0.0021 below log(0.998)."""
    log_ratio = torch.tensor([[0.0026] * 4, [-0.0021] * 4], dtype=torch.float64)
    assert not loss_and_gradient("luspo", log_ratio, [1.0, -1.0])[1].any()
    inside = torch.tensor([[0.0024] * 4, [-0.0019] * 4], dtype=torch.float64)
    assert loss_and_gradient("luspo", inside, [1.0, -1.0])[1].abs().sum(dim=-1).gt(0).all()


def test_gradients_are_gspos_times_the_length() -> None:
    log_ratio = torch.full((2, 4), 0.0001, dtype=torch.float64)
    ours, gspos = (loss_and_gradient(method, log_ratio, [1.0, -1.0])[1] for method in ("luspo", "gspo"))
    torch.testing.assert_close(ours, gspos * torch.tensor(LENGTHS).unsqueeze(-1), rtol=1e-6, atol=1e-9)
