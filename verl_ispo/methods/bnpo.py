"""BNPO (arXiv 2506.02864): rewards normalized by a Beta density that is fitted to the prompts' accuracies.

A = (R - p) w, p the group's mean and w = min(1 / BetaPDF(p; alpha, beta), 1e6). From the mean mu and the unbiased
variance v of p over the prompts: a = (mu (1 - mu) / v - 1) mu, b = (mu (1 - mu) / v - 1) (1 - mu),
alpha = max(1 + a / 3, 1), beta = max(1 + b / 3, 1).

Source: the authors' code (changyi7231/BNPO, commit a9c51b984828). It maps the scores to [0, 1]; here R is the
verifier's verdict (ours), the same for two-valued scores. As there, p of a group of one rollout is 0, so that a correct
one keeps its whole R times w (up to 1e6 beside other prompts), and with a single prompt w is 1. Ours: w is also 1 where
all prompts have the same accuracy, for which v is 0. All-correct and all-incorrect groups have R - p = 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.bnpo"


@dataclass(frozen=True)
class BNPOConfig:
    """Settings of BNPO, the keys of ``algorithm.bnpo``.

    Args:
        shrinkage (`float`, *optional*, defaults to `3.0`):
            What a and b are divided by. Above 0. Authors' code: 3.
        max_weight (`float`, *optional*, defaults to `1e6`):
            Upper bound on w. Above 0. Authors' code: 1e6.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    shrinkage: float = 3.0
    max_weight: float = 1e6

    def __post_init__(self) -> None:
        for name in ("shrinkage", "max_weight"):
            check_number(f"{SECTION}.{name}", getattr(self, name), low=0, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> BNPOConfig:
        """Build from Hydra's ``algorithm.bnpo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def beta_parameters(accuracy: torch.Tensor, shrinkage: float) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha and beta by the moments of the prompts' accuracies, shrunk towards the uniform density.

    Args:
        accuracy (`torch.Tensor` of shape `(prompts,)`, float64): p, in [0, 1].
        shrinkage (`float`): what a and b are divided by.

    Returns:
        Two `torch.Tensor` without dimensions, float64, at least 1; both 1 for fewer than two prompts, and where all
        accuracies are equal (ours).
    """
    uniform = accuracy.new_ones(())
    if accuracy.numel() < 2 or accuracy.max() == accuracy.min():
        return uniform, uniform
    mean, variance = accuracy.mean(), accuracy.var()
    total = mean * (1 - mean) / variance - 1
    return (1 + total * mean / shrinkage).clamp(min=1), (1 + total * (1 - mean) / shrinkage).clamp(min=1)


def inverse_beta_density(
    accuracy: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor, max_weight: float
) -> torch.Tensor:
    """min(1 / BetaPDF(p; alpha, beta), max_weight), shape of ``accuracy``; ``max_weight`` where the density is 0."""
    log_normalizer = torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(alpha + beta)
    log_density = torch.xlogy(alpha - 1, accuracy) + torch.xlogy(beta - 1, 1 - accuracy) - log_normalizer
    return (-log_density).exp().clamp(max=max_weight)


def bnpo_advantage(
    correct: torch.Tensor, response_mask: torch.Tensor, groups: RolloutGroups, config: BNPOConfig
) -> torch.Tensor:
    """(R - p) min(1 / BetaPDF(p), max_weight); groups without tokens pad the batch and are no prompts.

    Args:
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict, R.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): 1 where the policy wrote the token.
        groups (`RolloutGroups`).
        config (`BNPOConfig`).

    Returns:
        `torch.Tensor` of shape `(batch,)`, float64; finite.
    """
    outcome = correct.double()
    accuracy = torch.where(groups.size == 1, 0.0, groups.reduce(outcome, "mean"))
    alpha, beta = beta_parameters(accuracy[groups.with_tokens(response_mask)], config.shrinkage)
    weight = inverse_beta_density(accuracy, alpha, beta, config.max_weight)
    return (outcome - accuracy[groups.ids]) * weight[groups.ids]


def _advantage(batch: MethodBatch, config: BNPOConfig) -> torch.Tensor:
    return bnpo_advantage(batch.correct, batch.response_mask, batch.groups, config)


METHOD = Method(name="bnpo", advantage=_advantage, needs=frozenset({Need.CORRECT}), settings=BNPOConfig.from_mapping)
