"""PREPO's weight in the loss.

That a weight on the advantage is a weight on the clipped loss is shown on verl's `vanilla`, which multiplies each
token's clipped loss by `rollout_is_weights`: same loss, same gradient, dual clip included, off the kinks. The gradient
is also checked numerically, and loss and gradient do not depend on the split into micro-batches and workers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from verl.trainer.ppo.core_algos import (
    compute_grpo_outcome_advantage,
    compute_policy_loss_vanilla,
)
from verl.workers.config import ActorConfig

from tests.methods.test_prepo import advantages_of
from verl_ispo.methods.prepo import relative_entropy_weight

LOSS_AGG_MODES = ["token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"]


def actor(**global_batch_info: Any) -> ActorConfig:
    return ActorConfig(
        strategy="fsdp2",
        rollout_n=4,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio_low=0.2,
        clip_ratio_high=0.28,
        clip_ratio_c=3.0,
        global_batch_info=global_batch_info,
    )


@dataclasses.dataclass(frozen=True)
class Update:
    """8 rollouts of two groups, the last one a padding row, in float64; ratios on each side of each bound, off it."""

    old_log_prob: torch.Tensor
    log_prob: torch.Tensor
    entropy: torch.Tensor
    response_mask: torch.Tensor
    grpo: torch.Tensor
    prepo: torch.Tensor

    @classmethod
    def draw(cls, seed: int) -> Update:
        generator = torch.Generator().manual_seed(seed)
        mask = (torch.arange(6) < torch.tensor([6, 3, 5, 1, 6, 2, 4, 0]).unsqueeze(-1)).long()
        mask[0, 2] = 0
        ratios = torch.tensor([0.5, 0.78, 0.82, 0.95, 1.05, 1.26, 1.3, 2.9, 3.1, 4.0], dtype=torch.float64)
        ratio = ratios[torch.randint(len(ratios), mask.shape, generator=generator)]
        old_log_prob = -torch.rand(mask.shape, generator=generator, dtype=torch.float64)
        entropy = torch.rand(mask.shape, generator=generator, dtype=torch.float64)
        rewards = torch.zeros(mask.shape, dtype=torch.float64)
        rewards[:, 0] = torch.tensor([1.0, 0, 0, 1, 0, 0, 1, 0])
        batch = {
            "token_level_rewards": rewards,
            "response_mask": mask,
            "index": np.array([*"aaaabbb", "padding"], dtype=object),
        }
        return cls(
            old_log_prob=old_log_prob,
            log_prob=old_log_prob + ratio.log(),
            entropy=entropy,
            response_mask=mask,
            grpo=compute_grpo_outcome_advantage(**batch)[0],
            prepo=advantages_of(batch, entropy),
        )

    def loss(
        self,
        advantages: torch.Tensor,
        rows: slice = slice(None),
        mode: str = "token-mean",
        weight: Any = None,
        **info: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """verl's clipped loss on some of the rows, and its gradient at the log-probs of all."""
        log_prob = self.log_prob.clone().requires_grad_()
        loss, _ = compute_policy_loss_vanilla(
            old_log_prob=self.old_log_prob[rows],
            log_prob=log_prob[rows],
            advantages=advantages[rows],
            response_mask=self.response_mask[rows],
            loss_agg_mode=mode,
            config=actor(**info),
            rollout_is_weights=weight,
        )
        loss.backward()
        return loss.detach(), log_prob.grad


@pytest.mark.parametrize("mode", LOSS_AGG_MODES)
@pytest.mark.parametrize("seed", range(5))
def test_a_weight_on_the_advantage_is_a_weight_on_the_clipped_loss(seed: int, mode: str) -> None:
    update = Update.draw(seed)
    weight = relative_entropy_weight(update.entropy, update.response_mask).unsqueeze(-1)
    loss, gradient = update.loss(update.prepo, mode=mode)
    expected_loss, expected_gradient = update.loss(update.grpo, mode=mode, weight=weight)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-14)
    plain_loss, plain_gradient = update.loss(update.grpo, mode=mode)
    assert not torch.allclose(loss, plain_loss)
    assert not torch.allclose(gradient, plain_gradient)


def test_every_branch_of_the_loss_was_met() -> None:
    """Each sign of the advantage with each side of each bound, so that the test above has seen the dual clip."""
    met = set()
    for seed in range(5):
        update = Update.draw(seed)
        ratio = (update.log_prob - update.old_log_prob).exp()
        for position in update.response_mask.nonzero().tolist():
            bounds = sum(ratio[tuple(position)].item() > bound for bound in (0.8, 1.28, 3.0))
            met.add((update.prepo[tuple(position)].item() > 0, bounds))
    assert met == {(positive, bounds) for positive in (True, False) for bounds in range(4)}


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_the_numerical_one(seed: int) -> None:
    update = Update.draw(seed)

    def weighted_loss(log_prob: torch.Tensor) -> torch.Tensor:
        return compute_policy_loss_vanilla(
            old_log_prob=update.old_log_prob,
            log_prob=log_prob,
            advantages=update.prepo,
            response_mask=update.response_mask,
            config=actor(),
        )[0]

    assert torch.autograd.gradcheck(weighted_loss, (update.log_prob.clone().requires_grad_(),), eps=1e-6, atol=1e-8)


@pytest.mark.parametrize("mode", LOSS_AGG_MODES)
@pytest.mark.parametrize("micro_batches", [1, 2, 4])
@pytest.mark.parametrize("workers", [1, 2])
def test_micro_batches_and_workers_change_nothing(mode: str, micro_batches: int, workers: int) -> None:
    """Each worker sums over its micro-batches, and the workers' gradients are averaged."""
    update = Update.draw(0)
    info = {"batch_num_tokens": int(update.response_mask.sum()), "global_batch_size": 7, "loss_scale_factor": 6}
    whole_loss, whole_gradient = update.loss(update.prepo, mode=mode, dp_size=1, **info)
    size = 8 // (workers * micro_batches)
    parts = [
        update.loss(update.prepo, slice(start, start + size), mode, dp_size=workers, **info)
        for start in range(0, 8, size)
    ]
    torch.testing.assert_close(sum(loss for loss, _ in parts) / workers, whole_loss, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(sum(gradient for _, gradient in parts) / workers, whole_gradient, rtol=1e-12, atol=1e-14)


def test_weights_taken_after_the_split_would_be_others() -> None:
    """So the test above depends on the weights being those of the whole batch."""
    update = Update.draw(0)
    whole = relative_entropy_weight(update.entropy, update.response_mask)
    halves = [
        relative_entropy_weight(update.entropy[rows], update.response_mask[rows]) for rows in (slice(4), slice(4, 8))
    ]
    assert not torch.allclose(whole, torch.cat(halves), rtol=1e-2)
