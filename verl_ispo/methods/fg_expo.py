"""FG-ExPO (arXiv 2605.11403): a KL term that grows with accuracy, and more weight on prompts of medium accuracy.

- KL: b = 0.02 (tanh(accuracy) + 1) / 2, with the accuracy of all rollouts of the step, times verl's low-variance
  estimate k3 = exp(d) - d - 1, d = log p_ref - log p_new.
- Prompts: a Gaussian of a prompt's accuracy p around 0.5, exp(-(p - 0.5)^2 / (2 width^2)).

The loss of a token is w (clipped loss + b k3): w is the Gaussian divided by its mean over the step's prompts.

Source: facts from the full text and its abstract. The paper draws its prompts by these weights, from accuracies that
it has seen; here they weigh the step's own prompts (ours), which needs no other sampler. The width is not known (ours).

All-correct and all-incorrect groups have A = 0, as in GRPO, and are held to the reference by the KL term. A single
rollout keeps its reward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.clipped_loss import dual_clipped_loss
from verl_ispo.methods.method import LossBatch, Method, MethodBatch, Need, TokenLoss
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.fg_expo"
REFERENCE_COLUMN, KL_COLUMN = "ref_log_prob", "kl_weight"


@dataclass(frozen=True)
class FGExPOConfig:
    """Settings of FG-ExPO, the keys of ``algorithm.fg_expo``.

    Args:
        kl_coefficient (`float`, *optional*, defaults to `0.02`):
            What (tanh(accuracy) + 1) / 2 is multiplied by. Full text. At least 0.
        weight_center (`float`, *optional*, defaults to `0.5`):
            Accuracy of the prompts with the largest weight. Full text. In [0, 1].
        weight_width (`float`, *optional*, defaults to `0.25`):
            Standard deviation of the Gaussian, in accuracy (ours). Above 0.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    kl_coefficient: float = 0.02
    weight_center: float = 0.5
    weight_width: float = 0.25

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.kl_coefficient", self.kl_coefficient, low=0)
        check_number(f"{SECTION}.weight_center", self.weight_center, low=0, high=1)
        check_number(f"{SECTION}.weight_width", self.weight_width, low=0, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> FGExPOConfig:
        """Build from Hydra's ``algorithm.fg_expo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def scaled_coefficient(correct: torch.Tensor, has_tokens: torch.Tensor, coefficient: float) -> float:
    """b = coefficient (tanh(accuracy) + 1) / 2; accuracy 0 where no row has tokens.

    Args:
        correct (`torch.Tensor` of shape `(batch,)`, bool).
        has_tokens (`torch.Tensor` of shape `(batch,)`, bool): rows without tokens do not count.
        coefficient (`float`).
    """
    accuracy = (correct & has_tokens).sum().item() / max(1, has_tokens.sum().item())
    return coefficient * (math.tanh(accuracy) + 1) / 2


def prompt_weights(
    correct: torch.Tensor, has_tokens: torch.Tensor, groups: RolloutGroups, center: float, width: float
) -> torch.Tensor:
    """The Gaussian of every row's prompt, divided by its mean over the prompts, `(batch,)` float64.

    Args:
        correct, has_tokens (`torch.Tensor` of shape `(batch,)`, bool): rows without tokens get 0 and do not count.
        groups (`RolloutGroups`): of the rows.
        center, width (`float`): of the Gaussian, in accuracy.
    """
    rows = groups.reduce(has_tokens.double(), "sum")
    accuracy = groups.reduce((correct & has_tokens).double(), "sum") / rows.clamp(min=1)
    exponent = torch.where(rows > 0, -((accuracy - center) ** 2) / (2 * width**2), -math.inf)
    # The softmax is the same after a shift, so that not even a narrow Gaussian underflows for every prompt.
    weight = exponent.softmax(dim=0) * (rows > 0).sum() if (rows > 0).any() else torch.zeros_like(rows)
    return torch.where(has_tokens, weight[groups.ids], 0.0)


def low_variance_kl(log_prob: torch.Tensor, ref_log_prob: torch.Tensor) -> torch.Tensor:
    """exp(d) - d - 1 with d = log p_ref - log p_new in [-20, 20], at most 10: verl's ``low_var_kl``."""
    difference = (ref_log_prob - log_prob).clamp(-20.0, 20.0)
    return (difference.exp() - difference - 1).clamp(max=10.0)


def fg_expo_loss(batch: LossBatch, config: FGExPOConfig) -> TokenLoss:
    """verl's clipped loss, whose advantages carry w, plus w b k3."""
    loss, clipped = dual_clipped_loss(batch)
    log_prob = torch.where(batch.response_mask, batch.old_log_prob + batch.unclamped_log_ratio, 0.0)
    reference = torch.where(batch.response_mask, batch.columns[REFERENCE_COLUMN], 0.0)
    return TokenLoss(loss + batch.columns[KL_COLUMN] * low_variance_kl(log_prob, reference), clipped)


def _weights(batch: MethodBatch, config: FGExPOConfig) -> torch.Tensor:
    has_tokens = batch.response_mask.bool().any(dim=-1)
    return prompt_weights(batch.correct, has_tokens, batch.groups, config.weight_center, config.weight_width)


def _advantage(batch: MethodBatch, config: FGExPOConfig) -> torch.Tensor:
    return batch.grpo_advantage * _weights(batch, config).unsqueeze(-1)


def _columns(batch: MethodBatch, config: FGExPOConfig, advantages: torch.Tensor) -> dict[str, torch.Tensor]:
    has_tokens = batch.response_mask.bool().any(dim=-1)
    coefficient = scaled_coefficient(batch.correct, has_tokens, config.kl_coefficient)
    return {REFERENCE_COLUMN: batch.ref_log_prob, KL_COLUMN: coefficient * _weights(batch, config)}


METHOD = Method(
    name="fg_expo",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT, Need.GRPO_ADVANTAGE, Need.REFERENCE_LOG_PROB}),
    settings=FGExPOConfig.from_mapping,
    token_loss=fg_expo_loss,
    loss_columns=_columns,
)
