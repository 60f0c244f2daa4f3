"""REAL (arXiv 2602.05630): a rollout's log-ratio as a score that tells correct from incorrect ones in its group.

    L = (1 / prompts) sum over mixed groups of
        log(1 + sum over incorrect of exp(s / tau)) + log(1 + sum over correct of exp(-s / tau))

where s is the mean over a rollout's tokens of log p_new - log p_old. No clip and no advantage.

Source: the authors' code (Red-RL/REAL at 1c30726a1c76). "prompts" counts those of the mini-batch, groups with a single
outcome included; these, and a rollout alone in its group, get no gradient. R is the verifier's verdict (ours).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import LossBatch, Method, MethodBatch, Need, TokenLoss, spread_over_tokens
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.real"
CORRECT_COLUMN = "correct"


@dataclass(frozen=True)
class REALConfig:
    """Settings of REAL, the keys of ``algorithm.real``.

    Args:
        temperature (`float`, *optional*, defaults to `0.5`):
            tau, what the scores are divided by. Authors' code. Above 0.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    temperature: float = 0.5

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.temperature", self.temperature, low=0, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> REALConfig:
        """Build from Hydra's ``algorithm.real``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def sequence_score(log_ratio: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """s: mean over a rollout's tokens of log p_new - log p_old, `(batch,)`; 0 for a row without tokens."""
    total = torch.where(response_mask, log_ratio, 0.0).sum(dim=-1)
    return total / response_mask.sum(dim=-1).clamp(min=1)


def group_loss(score: torch.Tensor, correct: torch.Tensor, groups: RolloutGroups, temperature: float) -> torch.Tensor:
    """The two terms of each group, `(groups,)`; 0 for a group with a single outcome.

    Args:
        score (`torch.Tensor` of shape `(batch,)`): s.
        correct (`torch.Tensor` of shape `(batch,)`, bool).
        groups (`RolloutGroups`): of the rows.
        temperature (`float`): tau.

    Returns:
        `torch.Tensor` of shape `(groups.count,)`.
    """
    logits = torch.where(correct, -score, score) / temperature
    losses = []
    for group in range(groups.count):
        rows = groups.ids == group
        right, wrong = logits[rows & correct], logits[rows & ~correct]
        if not len(right) or not len(wrong):
            # 0 with a gradient of 0: verl calls backward on every micro-batch, also on one of such groups alone
            losses.append(0.0 * logits[rows].sum())
            continue
        # log(1 + sum of e^x), without overflow
        one = logits.new_zeros(1)
        losses.append(torch.logsumexp(torch.cat([one, wrong]), 0) + torch.logsumexp(torch.cat([one, right]), 0))
    return torch.stack(losses)


def real_loss(batch: LossBatch, config: REALConfig) -> TokenLoss:
    """Each group's loss on its rollouts' tokens, so that the mean over rollouts is the mean over prompts."""
    mask, groups = batch.response_mask, batch.groups
    score = sequence_score(batch.unclamped_log_ratio, mask)
    loss = group_loss(score, batch.row_column(CORRECT_COLUMN) > 0.5, groups, config.temperature)
    return TokenLoss(spread_over_tokens(loss[groups.ids], mask), torch.zeros_like(mask))


def _advantage(batch: MethodBatch, config: REALConfig) -> torch.Tensor:
    # For the metrics alone: -1 and 1, the direction in which REAL moves a rollout of a mixed group.
    correct, groups = batch.correct, batch.groups
    collapsed = groups.all_wrong(correct) | groups.all_right(correct)
    return torch.where(collapsed[groups.ids], 0.0, 2.0 * correct.float() - 1.0)


METHOD = Method(
    name="real",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT}),
    settings=REALConfig.from_mapping,
    token_loss=real_loss,
    loss_columns=lambda batch, settings, advantages: {CORRECT_COLUMN: batch.correct},
    whole_groups=True,
)
