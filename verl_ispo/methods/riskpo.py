"""RiskPO (arXiv 2510.00911): bundles of prompts, and an advantage that weighs the low quantiles of their scores.

S_j is the sum of the j-th rollouts' scores over the prompts of a bundle. With quantiles q_d and q_u of S,

    A_mid  = (max(S - q_d, 0) - max(S - q_u, 0) + q_d - q_u) / (alpha_u - alpha_d + 1e-6)
    A_tail = -max(q_d - S, 0) / (alpha_d + 1e-6)
    A      = (w A_tail + A_mid) / (w + 1) / (std of the bundle's S + 1e-6)

A goes to the rollouts of S_j divided by the std of their prompt's scores, in proportion to R - mean, or as it is.

Source: the authors' code (RTkenny/RiskPO, commit 65ec40c935f5), the mixed risk measure with tracked quantiles. At the
first step q_d and q_u are the batch's own quantiles of S; at every later one q <- q + 0.1 (alpha - share of S < q)
before the advantage. The authors bundle prompts as the data loader gives them; here bundles are consecutive prompts by
their first row in verl's batch, and the j-th rollout is the j-th row (ours), so another order of rows gives other
bundles. R is the score. The last bundle may be smaller. A prompt with more rollouts than another of its bundle has 0 on
those in excess. All-correct, all-incorrect and single groups take part like others: their std counts as 1. Where all S
of a bundle are equal, A is divided by 1e-6 alone, as in the formula, and then only the clipped gradient is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_choice, check_number, from_section
from verl_ispo.methods.method import Method, MethodBatch, MethodState
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.riskpo"
CREDITS = ("std", "sum-mean", "uniform")
EPSILON = 1e-6
SMALLEST_STD = 1e-3


@dataclass(frozen=True)
class RiskPOConfig:
    """Settings of RiskPO, the keys of ``algorithm.riskpo``; the defaults are those of the authors' script for MATH.

    Args:
        bundle_size (`int`, *optional*, defaults to `5`):
            Prompts of a bundle. At least 1.
        alpha_low (`float`, *optional*, defaults to `0.2`):
            alpha_d, the level of the lower quantile. In (0, 1).
        alpha_high (`float`, *optional*, defaults to `0.9`):
            alpha_u, the level of the upper quantile. Above alpha_d and below 1. For DAPO-Math 0.8.
        tail_weight (`float`, *optional*, defaults to `1.5`):
            w, the weight of the tail. At least 0.
        quantile_rate (`float`, *optional*, defaults to `0.1`):
            How far a quantile moves in one step, in units of score. Above 0.
        credit (`str`, *optional*, defaults to `"std"`):
            How A goes to a bundle's rollouts: `"std"`, `"sum-mean"` (for DAPO-Math) or `"uniform"`.
        natural_baseline (`bool`, *optional*, defaults to `True`):
            Whether q_d - q_u is added in A_mid. For DAPO-Math `False`.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    bundle_size: int = 5
    alpha_low: float = 0.2
    alpha_high: float = 0.9
    tail_weight: float = 1.5
    quantile_rate: float = 0.1
    credit: str = "std"
    natural_baseline: bool = True

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.bundle_size", self.bundle_size, low=1)
        if self.bundle_size != int(self.bundle_size):
            raise ValueError(f"{SECTION}.bundle_size must be a whole number, got {self.bundle_size!r}")
        check_number(f"{SECTION}.alpha_low", self.alpha_low, low=0, high=1, low_open=True, high_open=True)
        check_number(f"{SECTION}.alpha_high", self.alpha_high, self.alpha_low, 1, low_open=True, high_open=True)
        check_number(f"{SECTION}.tail_weight", self.tail_weight, low=0)
        check_number(f"{SECTION}.quantile_rate", self.quantile_rate, low=0, low_open=True)
        check_choice(f"{SECTION}.credit", self.credit, CREDITS)
        check_choice(f"{SECTION}.natural_baseline", self.natural_baseline, (True, False))

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> RiskPOConfig:
        """Build from Hydra's ``algorithm.riskpo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


@dataclass(frozen=True)
class RiskQuantiles:
    """The tracked quantiles of a bundle's score; `None` before the first step.

    Attributes:
        low: q_d.
        high: q_u.
    """

    low: float | None = None
    high: float | None = None


def bundled_rollouts(response_mask: torch.Tensor, groups: RolloutGroups, bundle_size: int) -> list[torch.Tensor]:
    """The rows that are summed up, `(sums, prompts)` int64 for each bundle: as many sums as its smallest group allows.

    Args:
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): groups without tokens are left out.
        groups (`RolloutGroups`).
        bundle_size (`int`): prompts of a bundle, the last one excepted.
    """
    rows = torch.arange(len(groups.ids))
    first_row = groups.reduce(rows, "amin")
    with_tokens = groups.with_tokens(response_mask).tolist()
    prompts = [group for group in first_row.argsort().tolist() if with_tokens[group]]
    members = [rows[groups.ids == group] for group in prompts]
    bundles = [members[start : start + bundle_size] for start in range(0, len(members), bundle_size)]
    return [torch.stack([rows[: min(map(len, bundle))] for rows in bundle], dim=-1) for bundle in bundles]


def tracked_quantiles(before: RiskQuantiles, sums: torch.Tensor, config: RiskPOConfig) -> RiskQuantiles:
    """q_d and q_u that this step's advantage is computed with.

    Args:
        before (`RiskQuantiles`): of the step before.
        sums (`torch.Tensor` of shape `(sums,)`, float64): S of all bundles of the step; without any, nothing changes.
        config (`RiskPOConfig`).
    """
    if not len(sums):
        return before
    if before.low is None or before.high is None:
        levels = sums.new_tensor([config.alpha_low, config.alpha_high])
        return RiskQuantiles(*torch.quantile(sums, levels).tolist())

    def moved(quantile: float, level: float) -> float:
        return quantile + config.quantile_rate * (level - float((sums < quantile).double().mean()))

    return RiskQuantiles(moved(before.low, config.alpha_low), moved(before.high, config.alpha_high))


def risk_advantage(
    sums: torch.Tensor, quantiles: RiskQuantiles, config: RiskPOConfig, normalize_by_std: bool = True
) -> torch.Tensor:
    """A of one bundle's sums, `(sums,)` float64.

    Args:
        sums (`torch.Tensor` of shape `(sums,)`, float64): S of the bundle.
        quantiles (`RiskQuantiles`): of this step.
        config (`RiskPOConfig`).
        normalize_by_std (`bool`, *optional*, defaults to `True`): `False` leaves the std of S out; of a single sum it
            is 1.
    """
    low, high = quantiles.low, quantiles.high
    middle = (sums - low).clamp(min=0) - (sums - high).clamp(min=0)
    if config.natural_baseline:
        middle = middle + (low - high)
    middle = middle / (config.alpha_high - config.alpha_low + EPSILON)
    tail = -(low - sums).clamp(min=0) / (config.alpha_low + EPSILON)
    advantage = (config.tail_weight * tail + middle) / (config.tail_weight + 1)
    if not normalize_by_std:
        return advantage
    return advantage / ((sums.std() if len(sums) > 1 else 1.0) + EPSILON)


def credited(advantage: torch.Tensor, deviation: torch.Tensor, prompt_std: torch.Tensor, credit: str) -> torch.Tensor:
    """A of each sum on its rollouts.

    Args:
        advantage (`torch.Tensor` of shape `(sums,)`, float64): A.
        deviation (`torch.Tensor` of shape `(sums, prompts)`, float64): R - mean of the prompt.
        prompt_std (`torch.Tensor` of shape `(sums, prompts)`, float64): std of the prompt's scores.
        credit (`str`): `"std"`, `"sum-mean"` or `"uniform"`.

    Returns:
        `torch.Tensor` of shape `(sums, prompts)`, float64.
    """
    advantage = advantage.unsqueeze(-1).expand_as(deviation)
    if credit == "uniform":
        return advantage
    if credit == "std":
        return advantage / (torch.where(prompt_std > SMALLEST_STD, prompt_std, 1.0) + EPSILON)
    total = deviation.sum(dim=-1, keepdim=True)
    has_share = total.abs() > EPSILON
    share = torch.where(has_share, deviation / total.where(has_share, 1.0), 1 / deviation.shape[-1])
    return advantage * share


def riskpo_advantage(
    scores: torch.Tensor,
    response_mask: torch.Tensor,
    groups: RolloutGroups,
    before: RiskQuantiles,
    config: RiskPOConfig,
    normalize_by_std: bool = True,
) -> torch.Tensor:
    """A on every rollout of a bundle, 0 on the others.

    Args:
        scores (`torch.Tensor` of shape `(batch,)`).
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): 1 where the policy wrote the token.
        groups (`RolloutGroups`).
        before (`RiskQuantiles`): of the step before.
        config (`RiskPOConfig`).
        normalize_by_std (`bool`, *optional*, defaults to `True`): of the bundle, not of its prompts.

    Returns:
        `torch.Tensor` of shape `(batch,)`, float64.
    """
    scores = scores.double()
    bundles = bundled_rollouts(response_mask, groups, config.bundle_size)
    quantiles = tracked_quantiles(before, bundle_sums(scores, bundles), config)
    deviation = scores - groups.reduce(scores, "mean")[groups.ids]
    prompt_std = (groups.reduce(deviation**2, "sum") / (groups.size - 1).clamp(min=1)).sqrt()[groups.ids]
    advantage = torch.zeros_like(scores)
    for rows in bundles:
        own = risk_advantage(scores[rows].sum(dim=-1), quantiles, config, normalize_by_std)
        advantage[rows] = credited(own, deviation[rows], prompt_std[rows], config.credit)
    return advantage


def bundle_sums(scores: torch.Tensor, bundles: list[torch.Tensor]) -> torch.Tensor:
    """S of all bundles, one after the other, `(sums,)`."""
    return torch.cat([scores[rows].sum(dim=-1) for rows in bundles]) if bundles else scores[:0]


def next_quantiles(before: RiskQuantiles, batch: MethodBatch, config: RiskPOConfig) -> RiskQuantiles:
    """The quantiles of this step, for the next. With verl's KL penalty in the reward, they follow the plain scores."""
    bundles = bundled_rollouts(batch.response_mask, batch.groups, config.bundle_size)
    return tracked_quantiles(before, bundle_sums(batch.rewards.sum(dim=-1).double(), bundles), config)


def _advantage(batch: MethodBatch, config: RiskPOConfig) -> torch.Tensor:
    before = batch.state or RiskQuantiles()
    scores = batch.rewards.sum(dim=-1)
    return riskpo_advantage(scores, batch.response_mask, batch.groups, before, config, batch.normalize_by_std)


METHOD = Method(
    name="riskpo",
    advantage=_advantage,
    settings=RiskPOConfig.from_mapping,
    state=MethodState(name="risk_quantiles", kind=RiskQuantiles, update=next_quantiles),
)
