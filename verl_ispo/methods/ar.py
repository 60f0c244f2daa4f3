"""Advantage reweighting, AR (arXiv 2505.12929): tokens of low probability weigh less, A_t (a p_t + 1 - a).

A is GRPO's advantage and p_t the token's probability under the rollout policy.

Source: the authors' code (zhyang2226/AR-Lopti, commit cbeb333376de). a is 0.2 with AR alone and 0.3 with
Lopti. Lopti, two optimizer steps for each mini-batch, is not built here. All-correct and all-incorrect groups have a
GRPO advantage of 0; a single rollout keeps its score, as in verl's GRPO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.signals.checks import check_finite, check_same_shape

SECTION = "algorithm.ar"


@dataclass(frozen=True)
class ARConfig:
    """Settings of advantage reweighting, the keys of ``algorithm.ar``.

    Args:
        alpha (`float`, *optional*, defaults to `0.2`):
            a, the share of the weight that goes by probability. In [0, 1]; `0` is GRPO. Authors' code: 0.2.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.alpha", self.alpha, low=0, high=1)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> ARConfig:
        """Build from Hydra's ``algorithm.ar``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def probability_weight(log_prob: torch.Tensor, response_mask: torch.Tensor, alpha: float) -> torch.Tensor:
    """a p_t + 1 - a, between 1 - a and 1 (arXiv 2505.12929).

    Args:
        log_prob (`torch.Tensor` of shape `(batch, response_length)`): of the sampled tokens, rollout policy.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): 1 where the policy wrote the token.
        alpha (`float`): a, in [0, 1].

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, float64, detached; 0 where masked.

    Raises:
        SignalShapeError: shapes that do not fit.
        NonFiniteSignalError: a log-prob is NaN or infinite where the mask is not 0.
    """
    check_same_shape(tuple(response_mask.shape), log_prob=log_prob)
    mask = response_mask.bool()
    check_finite(mask, log_prob=log_prob)
    probability = log_prob.detach().double().clamp(max=0).exp()
    return torch.where(mask, alpha * probability + (1 - alpha), 0.0)


def _advantage(batch: MethodBatch, config: ARConfig) -> torch.Tensor:
    return batch.grpo_advantage.double() * probability_weight(batch.log_prob, batch.response_mask, config.alpha)


METHOD = Method(
    name="ar",
    advantage=_advantage,
    needs=frozenset({Need.LOG_PROB, Need.GRPO_ADVANTAGE}),
    settings=ARConfig.from_mapping,
)
