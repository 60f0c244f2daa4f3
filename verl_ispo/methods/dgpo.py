"""DGPO of MathForge (arXiv 2601.20614): the same total advantage in every mixed group, more on harder prompts.

A = G (R - mean) / (sum of abs(R - mean) + 1e-4), times the batch's tokens / tokens in groups whose R differ, times the
prompt's weight: over the n groups whose R differ, n softmax(-accuracy / 2), and 1 in the others.

Source: the authors' code (AMAP-ML/MathForge, commit 83edda024759). There a group without a correct rollout, whose R can
differ only through other rewards, enters the softmax with accuracy 1, so that it is not weighted up. R is the score;
the accuracy is the mean of the verifier's verdicts. In groups of equal R, all-correct, all-incorrect and single ones
among them, A is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.dgpo"


@dataclass(frozen=True)
class DGPOConfig:
    """Settings of DGPO, the keys of ``algorithm.dgpo``.

    Args:
        temperature (`float`, *optional*, defaults to `2.0`):
            Of the softmax over the prompts' negative accuracies; large values weight all prompts alike. Above 0.
            Authors' code: 2.
        epsilon (`float`, *optional*, defaults to `1e-4`):
            Added to the sum of the absolute differences. Above 0. Authors' code: 1e-4.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    temperature: float = 2.0
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.temperature", self.temperature, low=0, low_open=True)
        check_number(f"{SECTION}.epsilon", self.epsilon, low=0, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> DGPOConfig:
        """Build from Hydra's ``algorithm.dgpo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def absolute_deviation_advantage(rewards: torch.Tensor, groups: RolloutGroups, epsilon: float) -> torch.Tensor:
    """G (R - mean) / (sum of abs(R - mean) + epsilon) inside each group, `(batch,)`.

    Args:
        rewards (`torch.Tensor` of shape `(batch,)`, float64).
        groups (`RolloutGroups`).
        epsilon (`float`): above 0.
    """
    centred = rewards - groups.reduce(rewards, "mean")[groups.ids]
    total = groups.reduce(centred.abs(), "sum")
    return (groups.size / (total + epsilon))[groups.ids] * centred


def difficulty_weight(
    correct: torch.Tensor, differing: torch.Tensor, groups: RolloutGroups, temperature: float
) -> torch.Tensor:
    """n softmax(-accuracy / temperature) over the n differing groups, 1 in the others, `(count,)` float64.

    Args:
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict.
        differing (`torch.Tensor` of shape `(count,)`, bool): groups whose rewards are not all equal.
        groups (`RolloutGroups`).
        temperature (`float`): above 0.
    """
    accuracy = groups.reduce(correct.double(), "mean")
    accuracy = torch.where(groups.all_wrong(correct), 1.0, accuracy)
    weight = torch.ones_like(accuracy)
    weight[differing] = differing.sum() * torch.softmax(-accuracy[differing] / temperature, dim=0)
    return weight


def dgpo_advantage(
    rewards: torch.Tensor,
    correct: torch.Tensor,
    response_mask: torch.Tensor,
    groups: RolloutGroups,
    config: DGPOConfig,
) -> torch.Tensor:
    """The three factors together; rows without tokens that only pad the batch do not affect the others.

    Args:
        rewards (`torch.Tensor` of shape `(batch,)`): the scores.
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): 1 where the policy wrote the token.
        groups (`RolloutGroups`).
        config (`DGPOConfig`).

    Returns:
        `torch.Tensor` of shape `(batch,)`, float64.
    """
    rewards = rewards.double()
    differing = groups.spread(rewards) > 0
    tokens = response_mask.bool().sum(dim=-1).double()
    learning = tokens[differing[groups.ids]].sum()
    scale = tokens.sum() / learning if learning > 0 else 1.0
    weight = difficulty_weight(correct, differing, groups, config.temperature)
    advantage = absolute_deviation_advantage(rewards, groups, config.epsilon)
    # Exactly 0 where all rewards are equal, whatever the rounding of their mean.
    return torch.where(differing[groups.ids], scale * weight[groups.ids] * advantage, 0.0)


def _advantage(batch: MethodBatch, config: DGPOConfig) -> torch.Tensor:
    return dgpo_advantage(batch.rewards.sum(dim=-1), batch.correct, batch.response_mask, batch.groups, config)


METHOD = Method(name="dgpo", advantage=_advantage, needs=frozenset({Need.CORRECT}), settings=DGPOConfig.from_mapping)
