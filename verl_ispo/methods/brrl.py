"""BRRL's GBPO (arXiv 2604.18578): the ratio of every token is drawn to a target on the side of the group's median.

    L_t = |(r_t - r*) A|,  r* = 1 - c_low + (c_high + c_low) sigmoid(((R - median) / (std + 1e-6)) / T)

A is GRPO's advantage and [1 - c_low, 1 + c_high] verl's clip range. With a small T the target is the upper end for a
score above the group's median, the lower end below it and the middle at it.

Source: the authors' code (bounded-ratio-rl/bounded_ratio_rl at 64ff1cdfb2bc). R is the score; the std is unbiased, and
verl's ``norm_adv_by_std_in_grpo: false`` leaves it out of r* too.

Groups of equal scores have A = 0 and get no loss. A rollout alone in its group has verl's A = R, median 0 and std 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import LossBatch, Method, MethodBatch, Need, TokenLoss
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.brrl"
PLACE_COLUMN = "place"


@dataclass(frozen=True)
class BRRLConfig:
    """Settings of BRRL, the keys of ``algorithm.brrl``.

    Args:
        temperature (`float`, *optional*, defaults to `1e-4`):
            T. Above 0. Authors' scripts; the default of their config is 1.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    temperature: float = 1e-4

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.temperature", self.temperature, low=0, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> BRRLConfig:
        """Build from Hydra's ``algorithm.brrl``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def place_in_range(
    score: torch.Tensor,
    groups: RolloutGroups,
    temperature: float,
    normalize_by_std: bool = True,
    epsilon: float = 1e-6,
) -> torch.Tensor:
    """sigmoid(((R - median) / (std + epsilon)) / T): where in the clip range the target lies, from 0 to 1.

    Args:
        score (`torch.Tensor` of shape `(batch,)`): R.
        groups (`RolloutGroups`).
        temperature (`float`): T.
        normalize_by_std (`bool`, *optional*, defaults to `True`): `False` leaves the division by the std out.
        epsilon (`float`, *optional*, defaults to `1e-6`): as verl's GRPO has it.

    Returns:
        `torch.Tensor` of shape `(batch,)`, float64.
    """
    score = score.double()
    distance = torch.zeros_like(score)
    for group in range(groups.count):
        rows = groups.ids == group
        own = score[rows]
        # quantile takes the mean of the two middle scores of an even number
        median, std = (own.quantile(0.5), own.std()) if len(own) > 1 else (own.new_zeros(()), own.new_ones(()))
        distance[rows] = (own - median) / (std + epsilon) if normalize_by_std else own - median
    return torch.sigmoid(distance / temperature)


def brrl_loss(batch: LossBatch, config: BRRLConfig) -> TokenLoss:
    """|(r - r*) A| of every token; a ratio outside the clip range counts as clipped, though its gradient stays."""
    mask = batch.response_mask
    ratio = torch.where(mask, batch.log_ratio, 0.0).exp()
    low, high = 1 - batch.clip_low, 1 + batch.clip_high
    target = low + (high - low) * batch.columns[PLACE_COLUMN]
    advantages = torch.where(mask, batch.advantages, 0.0)
    loss = torch.where(mask, ((ratio - target) * advantages).abs(), 0.0)
    outside = (ratio > high) | (ratio < low)
    return TokenLoss(loss, mask & outside)


def _columns(batch: MethodBatch, config: BRRLConfig, advantages: torch.Tensor) -> dict[str, torch.Tensor]:
    score = batch.rewards.sum(dim=-1)
    return {PLACE_COLUMN: place_in_range(score, batch.groups, config.temperature, batch.normalize_by_std)}


METHOD = Method(
    name="brrl",
    advantage=lambda batch, settings: batch.grpo_advantage,
    needs=frozenset({Need.GRPO_ADVANTAGE}),
    settings=BRRLConfig.from_mapping,
    token_loss=brrl_loss,
    loss_columns=_columns,
)
