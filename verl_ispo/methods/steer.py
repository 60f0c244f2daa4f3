"""STEER (arXiv 2510.10150): GRPO's clipped loss, with less weight on tokens that would change the entropy most.

A token's change of entropy is Omega = A / p_old p (1 - p) (log p + H), with p and H of the current policy. The loss is
multiplied by w = exp(-k |Omega|) in [0.8, 1], k = -log(0.8) / max(M, 0.02), where M is the largest |Omega|: the token
that would change the entropy most has 0.8, one that would not has 1.

Source: the authors' code (zz-haooo/STEER at b31df71652cd). Its other mapping is `mapping="linear"`: w falls in a
straight line from 1.2 at the smallest |Omega| to 0.8 at the largest, and is 1.0 where all are equal. The authors' runs
set the exponential one; the code's own default is the linear one. p is bounded to [1e-8, 1 - 1e-8], p_old to [1e-8, 1].

M is the largest of a micro-batch, in the authors' code as here: the weights depend on how micro-batches are cut. The
weights pass no gradient.

The advantage is GRPO's: 0 in all-correct and all-incorrect groups, and a single rollout keeps its reward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_choice, check_number, from_section
from verl_ispo.methods.clipped_loss import dual_clipped_loss
from verl_ispo.methods.method import LossBatch, Method, Need, TokenLoss

SECTION = "algorithm.steer"
MAPPINGS = ("exponential", "linear")


@dataclass(frozen=True)
class STEERConfig:
    """Settings of STEER, the keys of ``algorithm.steer``.

    Args:
        mapping (`str`, *optional*, defaults to `"exponential"`):
            From |Omega| to the weight: `"exponential"` (authors' runs) or `"linear"`.
        min_weight (`float`, *optional*, defaults to `0.8`):
            Of the token with the largest |Omega|. Authors' code. In (0, 1].
        max_weight (`float`, *optional*, defaults to `1.2`):
            Of the token with the smallest |Omega| under `"linear"`; under `"exponential"` it is 1. Authors' code. At
            least 1.
        min_scale (`float`, *optional*, defaults to `0.02`):
            Under `"exponential"`, what M is at least, so that small changes are not weighted down. Authors' code.
            Above 0.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    mapping: str = "exponential"
    min_weight: float = 0.8
    max_weight: float = 1.2
    min_scale: float = 0.02

    def __post_init__(self) -> None:
        check_choice(f"{SECTION}.mapping", self.mapping, MAPPINGS)
        check_number(f"{SECTION}.min_weight", self.min_weight, low=0, high=1, low_open=True)
        check_number(f"{SECTION}.max_weight", self.max_weight, low=1)
        check_number(f"{SECTION}.min_scale", self.min_scale, low=0, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> STEERConfig:
        """Build from Hydra's ``algorithm.steer``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def entropy_change(
    advantages: torch.Tensor,
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    entropy: torch.Tensor,
    smallest: float = 1e-8,
) -> torch.Tensor:
    """|Omega| = |A / p_old p (1 - p) (log p + H)|, of the shape of all four, float64.

    Args:
        advantages, old_log_prob, log_prob, entropy (`torch.Tensor` of one shape): H in nats, of the current policy.
        smallest (`float`, *optional*, defaults to `1e-8`): bound on p, 1 - p and p_old. Authors' code.
    """
    p = log_prob.double().exp().clamp(smallest, 1 - smallest)
    p_old = old_log_prob.double().exp().clamp(smallest, 1.0)
    return (advantages.double() / p_old * p * (1 - p) * (p.log() + entropy.double())).abs()


def token_weights(change: torch.Tensor, response_mask: torch.Tensor, config: STEERConfig) -> torch.Tensor:
    """w of every token, from |Omega| and its extremes over the masked tokens; 0 where not masked.

    Args:
        change (`torch.Tensor` of shape `(batch, response_length)`): |Omega|.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`, bool).
        config (`STEERConfig`).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`.
    """
    change = torch.where(response_mask, change, 0.0)
    largest = change.amax()
    if config.mapping == "exponential":
        k = -math.log(config.min_weight) / largest.clamp(min=config.min_scale)
        weight = (-k * change).exp().clamp(config.min_weight, 1.0)
    else:
        low, high = config.min_weight, config.max_weight
        smallest = torch.where(response_mask, change, largest).amin()
        spread = largest - smallest
        fall = (high - low) * (change - smallest) / spread.where(spread > 0, 1.0)
        weight = torch.where(spread > 0, (high - fall).clamp(low, high), (low + high) / 2)
    return torch.where(response_mask, weight, 0.0)


def steer_loss(batch: LossBatch, config: STEERConfig) -> TokenLoss:
    """verl's clipped loss times the weights of the micro-batch's tokens."""
    loss, clipped = dual_clipped_loss(batch)
    log_prob = batch.old_log_prob + batch.unclamped_log_ratio.detach()
    change = entropy_change(batch.advantages, batch.old_log_prob, log_prob, batch.entropy)
    weight = token_weights(change, batch.response_mask, config)
    return TokenLoss(loss * weight.to(loss.dtype), clipped)


METHOD = Method(
    name="steer",
    advantage=lambda batch, settings: batch.grpo_advantage,
    needs=frozenset({Need.GRPO_ADVANTAGE}),
    settings=STEERConfig.from_mapping,
    token_loss=steer_loss,
    loss_needs_entropy=True,
)
