"""DLER: verl's estimator under the preset, by hand, and the dual clip.

Not exercised: dynamic sampling and truncation (verl's), and the effect on training.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
from verl.utils.config import omega_conf_to_dataclass

from tests.composed import composed


def advantage(labels: str, verdicts: str, lengths: list[int]) -> list[float]:
    algorithm = composed("method=dler").algorithm
    mask = (torch.arange(4) < torch.tensor(lengths).unsqueeze(-1)).float()
    rewards = torch.zeros(mask.shape)
    rewards[:, 0] = torch.tensor([float(verdict) for verdict in verdicts])
    found, _ = get_adv_estimator_fn(algorithm.adv_estimator)(
        token_level_rewards=rewards, response_mask=mask, index=np.array(list(labels)), config=algorithm
    )
    return found[:, 0].tolist()


def test_advantage_by_hand() -> None:
    """R - mean is 1/2 on one token and -1/2 on three: mean -1/4, unbiased variance (0.75^2 + 3 * 0.25^2) / 3 = 1/4."""
    assert advantage("aa", "10", [1, 3]) == pytest.approx([1.5, -0.5], rel=1e-5)


def test_a_collapsed_group_is_moved_by_the_batchs_mean() -> None:
    """R - mean: 1/2 on 1 token, -1/2 on 3, 0 on 4: mean -1/8, variance (0.625^2 + 3 * 0.375^2 + 4 * 0.125^2) / 7."""
    std = math.sqrt((0.625**2 + 3 * 0.375**2 + 4 * 0.125**2) / 7)
    assert advantage("aabb", "1011", [1, 3, 2, 2]) == pytest.approx([x / std for x in (0.625, -0.375, 0.125, 0.125)])


@pytest.mark.parametrize(("ratio", "loss"), [(2.0, 2.0), (9.0, 9.0), (11.0, 10.0)])
def test_a_negative_advantage_counts_up_to_a_ratio_of_ten(ratio: float, loss: float) -> None:
    actor = omega_conf_to_dataclass(
        composed("method=dler", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1").actor_rollout_ref.actor
    )
    found, _ = get_policy_loss_fn(actor.policy_loss.loss_mode)(
        old_log_prob=torch.zeros(1, 1),
        log_prob=torch.tensor([[math.log(ratio)]]),
        advantages=torch.tensor([[-1.0]]),
        response_mask=torch.ones(1, 1),
        loss_agg_mode=actor.loss_agg_mode,
        config=actor,
    )
    assert found.item() == pytest.approx(loss, rel=1e-5)
