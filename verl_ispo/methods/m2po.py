"""M2PO (arXiv 2510.01161): the trust region is a bound on the mean of (log-ratio)^2, not on each token's ratio.

Only tokens that are being pushed away from the old policy count: A > 0 with r > 1, and A < 0 with r < 1. While the mean
of (log r)^2 over these is at most 0.04 the loss is -A r without a clip. Above it there are two readings.

- ``clip``, the authors' code: -min(A r, A clip(r, 1 - low, 1 + high)) with low = max(1 - exp(-tau), 0.3) and
  high = max(exp(tau) - 1, 0.5). tau is the largest of the |log r| such that the mean of min(|log r|, tau)^2 is below
  the bound, and 0 where there is none.
- ``mask``, the text: tokens leave the loss, largest |log r| first, until the mean over the rest is at most the bound.
  They still count in what the loss is divided by.

The mean is over the micro-batch, in the authors' code as here: the rule depends on how micro-batches are cut. The bound
does not pass any gradient.

Source: the authors' code (Infini-AI-Lab/M2PO at af54a3e8feff) and notes by others on the text. That tokens of equal
|log r| leave together under ``mask`` is ours. The authors' code tells A's sign by a row's first token; here it is each
token's own.

The advantage is GRPO's: 0 in all-correct and all-incorrect groups, and a single rollout keeps its reward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_choice, check_number, from_section
from verl_ispo.methods.method import LossBatch, Method, Need, TokenLoss

SECTION = "algorithm.m2po"
RULES = ("clip", "mask")


@dataclass(frozen=True)
class M2POConfig:
    """Settings of M2PO, the keys of ``algorithm.m2po``.

    Args:
        second_moment_bound (`float`, *optional*, defaults to `0.04`):
            Bound on the mean of (log r)^2 over the tokens that are pushed away. Authors' scripts. Above 0.
        rule (`str`, *optional*, defaults to `"clip"`):
            What happens above the bound: a clip range that follows from it (`"clip"`, authors' code), or tokens that
            leave the loss (`"mask"`, text).
        min_clip_low (`float`, *optional*, defaults to `0.3`):
            The clip is never below 1 - min_clip_low from below. Authors' code; read under `"clip"`. In [0, 1].
        min_clip_high (`float`, *optional*, defaults to `0.5`):
            Nor is it tighter than 1 + min_clip_high from above. Authors' code; read under `"clip"`. At least 0.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    second_moment_bound: float = 0.04
    rule: str = "clip"
    min_clip_low: float = 0.3
    min_clip_high: float = 0.5

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.second_moment_bound", self.second_moment_bound, low=0, low_open=True)
        check_choice(f"{SECTION}.rule", self.rule, RULES)
        check_number(f"{SECTION}.min_clip_low", self.min_clip_low, low=0, high=1)
        check_number(f"{SECTION}.min_clip_high", self.min_clip_high, low=0)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> M2POConfig:
        """Build from Hydra's ``algorithm.m2po``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def pushed_away(log_ratio: torch.Tensor, advantages: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """Tokens with A > 0 and r > 1, or A < 0 and r < 1, of the shape of all three, bool."""
    return response_mask & (advantages * log_ratio > 0)


def capping_threshold(squares: torch.Tensor, bound: float) -> float:
    """tau: the largest sqrt(v) with mean(min(v, tau^2)) below the bound; infinity where mean(v) is not above it.

    Args:
        squares (`torch.Tensor` of shape `(count,)`, float64): v = (log r)^2.
        bound (`float`): of their mean.

    Returns:
        `float`; 0 where no v is small enough.
    """
    if len(squares) == 0 or squares.mean() <= bound + 1e-12:
        return math.inf
    ascending = squares.sort().values
    above = torch.arange(len(ascending) - 1, -1, -1, device=squares.device)
    capped_mean = (ascending.cumsum(0) + ascending * above) / len(ascending)
    small = ascending[capped_mean < bound - 1e-12]
    return small[-1].sqrt().item() if len(small) else 0.0


def keeping_threshold(squares: torch.Tensor, bound: float) -> float:
    """The largest v such that the mean of all values up to it is at most the bound; -1 where there is none.

    Args:
        squares (`torch.Tensor` of shape `(count,)`, float64): v = (log r)^2.
        bound (`float`): of the mean of those that stay.

    Returns:
        `float`; infinity where all stay.
    """
    if len(squares) == 0 or squares.mean() <= bound:
        return math.inf
    ascending = squares.sort().values
    up_to = torch.searchsorted(ascending, ascending, right=True)
    small = ascending[ascending.cumsum(0)[up_to - 1] / up_to <= bound]
    return small[-1].item() if len(small) else -1.0


def m2po_loss(batch: LossBatch, config: M2POConfig) -> TokenLoss:
    """-A r within the bound on the micro-batch's second moment; above it clipped or masked, as configured."""
    away = pushed_away(batch.log_ratio.detach(), batch.advantages, batch.response_mask)
    squares = batch.log_ratio.detach().double().square()
    ratio = torch.where(batch.response_mask, batch.log_ratio, 0.0).exp()
    free = -batch.advantages * ratio
    if config.rule == "mask":
        left_out = away & (squares > keeping_threshold(squares[away], config.second_moment_bound))
        return TokenLoss(torch.where(left_out, 0.0, free), left_out)
    tau = capping_threshold(squares[away], config.second_moment_bound)
    low, high = max(-math.expm1(-tau), config.min_clip_low), max(math.expm1(tau), config.min_clip_high)
    bounded = -batch.advantages * ratio.clamp(1 - low, 1 + high)
    return TokenLoss(torch.maximum(free, bounded), bounded > free)


METHOD = Method(
    name="m2po",
    advantage=lambda batch, settings: batch.grpo_advantage,
    needs=frozenset({Need.GRPO_ADVANTAGE}),
    settings=M2POConfig.from_mapping,
    token_loss=m2po_loss,
)
