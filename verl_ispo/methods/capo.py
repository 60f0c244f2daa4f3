"""CAPO (arXiv 2604.12632): each pair of a correct and an incorrect rollout, weighted by how wrong its confidence is.

    correct i:   A_i =  sum over the group's incorrect j of sigmoid(-(c_i - c_j) / tau) / tau
    incorrect j: A_j = -sum over the group's correct i   of sigmoid(-(c_i - c_j) / tau) / tau

where c is the rollout's mean log-prob under the rollout policy, a constant. A correct rollout of high perplexity under
the reference, and an incorrect one of low perplexity, has A = 0.

Source: detailed notes by others, no code. They write the derivative of log(1 + exp(-t / tau)) without its 1 / tau, so
whether the paper has it is open: a key, by default on. R is the verifier's verdict, and a rollout whose own A is
masked still counts in the sums of the others, as the notes' formula has it (which the notes do not say in words).

Groups with a single outcome, and rollouts alone in their group, get 0. Where all c are equal it is Dr.GRPO's advantage
times G / 2 (without the 1 / tau).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.signals.checks import check_finite, check_same_shape
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.signals.masked import masked_row_mean

SECTION = "algorithm.capo"


@dataclass(frozen=True)
class CAPOConfig:
    """Settings of CAPO, the keys of ``algorithm.capo``.

    Args:
        temperature (`float`, *optional*, defaults to `0.6`):
            tau, what differences in mean log-prob are divided by. Above 0. Notes: 0.6 for a model of 1.5B, 0.5 for 7B.
        divide_by_temperature (`bool`, *optional*, defaults to `True`):
            Whether advantages are divided by tau too, as the surrogate's derivative is. Ours: the notes leave it open.
        max_correct_perplexity (`float`, *optional*, defaults to `2.5`):
            A correct rollout of more than this under the reference policy has A = 0. At least 1. Notes.
        min_incorrect_perplexity (`float`, *optional*, defaults to `1.05`):
            An incorrect rollout of less than this under the reference policy has A = 0. At least 1, which masks none.
            Notes.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    temperature: float = 0.6
    divide_by_temperature: bool = True
    max_correct_perplexity: float = 2.5
    min_incorrect_perplexity: float = 1.05

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.temperature", self.temperature, low=0, low_open=True)
        if not isinstance(self.divide_by_temperature, bool):
            raise ValueError(
                f"{SECTION}.divide_by_temperature must be true or false, got {self.divide_by_temperature!r}"
            )
        check_number(f"{SECTION}.max_correct_perplexity", self.max_correct_perplexity, low=1)
        check_number(f"{SECTION}.min_incorrect_perplexity", self.min_incorrect_perplexity, low=1)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> CAPOConfig:
        """Build from Hydra's ``algorithm.capo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def mean_log_prob(log_prob: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """c: mean log-prob of a rollout's tokens, `(batch,)` float32; 0 for a row without tokens.

    Raises:
        SignalShapeError: shapes that do not fit.
        NonFiniteSignalError: NaN or infinity where the mask is not 0.
    """
    check_same_shape(tuple(response_mask.shape), log_prob=log_prob)
    mask = response_mask.bool()
    check_finite(mask, log_prob=log_prob)
    return masked_row_mean(log_prob, mask)


@torch.no_grad()
def pairwise_advantage(
    confidence: torch.Tensor, correct: torch.Tensor, groups: RolloutGroups, config: CAPOConfig
) -> torch.Tensor:
    """The sums over a rollout's pairs, before any rollout is masked.

    Args:
        confidence (`torch.Tensor` of shape `(batch,)`): c, nats per token.
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict.
        groups (`RolloutGroups`).
        config (`CAPOConfig`).

    Returns:
        `torch.Tensor` of shape `(batch,)`, float64; it adds up to 0 in each group.
    """
    confidence, correct = confidence.double(), correct.bool()
    advantage = torch.zeros_like(confidence)
    for group in range(groups.count):
        right = ((groups.ids == group) & correct).nonzero().flatten()
        wrong = ((groups.ids == group) & ~correct).nonzero().flatten()
        weight = torch.sigmoid(-(confidence[right].unsqueeze(1) - confidence[wrong]) / config.temperature)
        if config.divide_by_temperature:
            weight = weight / config.temperature
        advantage[right], advantage[wrong] = weight.sum(dim=1), -weight.sum(dim=0)
    return advantage


def is_trusted(mean_ref_log_prob: torch.Tensor, correct: torch.Tensor, config: CAPOConfig) -> torch.Tensor:
    """m: whether a rollout's verdict agrees with its perplexity under the reference, exp(-mean log-prob).

    Args:
        mean_ref_log_prob (`torch.Tensor` of shape `(batch,)`): under the reference policy.
        correct (`torch.Tensor` of shape `(batch,)`, bool).
        config (`CAPOConfig`).

    Returns:
        `torch.Tensor` of shape `(batch,)`, bool.
    """
    perplexity = (-mean_ref_log_prob).exp()
    return torch.where(
        correct.bool(),
        perplexity <= config.max_correct_perplexity,
        perplexity >= config.min_incorrect_perplexity,
    )


def _advantage(batch: MethodBatch, config: CAPOConfig) -> torch.Tensor:
    confidence = mean_log_prob(batch.log_prob, batch.response_mask)
    advantage = pairwise_advantage(confidence, batch.correct, batch.groups, config)
    trusted = is_trusted(mean_log_prob(batch.ref_log_prob, batch.response_mask), batch.correct, config)
    return torch.where(trusted, advantage, 0.0)


METHOD = Method(
    name="capo",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT, Need.LOG_PROB, Need.REFERENCE_LOG_PROB}),
    settings=CAPOConfig.from_mapping,
)
