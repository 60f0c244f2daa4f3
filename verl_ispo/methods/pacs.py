"""PACS (arXiv 2509.02522): the verdict as the label of a classifier whose score is the rollout's log-ratio.

    psi_i = b (sum over tokens of log p_new - log p_old),  z_i = psi_i - mean over the group's others of psi
    L = mean over rollouts of w_i (-R_i log sigmoid(z_i) - (1 - R_i) log sigmoid(-z_i))

w_i = G / (2 n), n being how many of the group's G rollouts have the same outcome. No clip and no advantage.

Source: the authors' code (ritzz-ai/PACS at 4c987b470524), with its default score, centring and weights. R is the
verifier's verdict (ours).

Groups with a single outcome have w = 1. Their z add up to 0, so their first update has no gradient; later ones pull
the rollouts' psi together. A rollout alone in its group has no others and gets no loss (ours: the code divides by 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import softplus

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import LossBatch, Method, MethodBatch, Need, TokenLoss, spread_over_tokens
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.pacs"
CORRECT_COLUMN = "correct"


@dataclass(frozen=True)
class PACSConfig:
    """Settings of PACS, the keys of ``algorithm.pacs``.

    Args:
        beta (`float`, *optional*, defaults to `1.0`):
            b, the score per nat of log-ratio of the whole response. Above 0. Authors' code.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.beta", self.beta, low=0, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> PACSConfig:
        """Build from Hydra's ``algorithm.pacs``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def leave_one_out(values: torch.Tensor, groups: RolloutGroups) -> torch.Tensor:
    """A value minus the mean of the others in its group, `(batch,)`; 0 for a rollout alone."""
    others = (groups.size - 1)[groups.ids]
    total = values.new_zeros(groups.count).index_add(0, groups.ids, values)[groups.ids]
    return torch.where(others > 0, values - (total - values) / others.clamp(min=1), 0.0 * values)


def outcome_weight(correct: torch.Tensor, groups: RolloutGroups) -> torch.Tensor:
    """w: G / (2 n) in a group of both outcomes, 1 in one with a single outcome, 0 for a rollout alone.

    Args:
        correct (`torch.Tensor` of shape `(batch,)`, bool).
        groups (`RolloutGroups`): of the rows.

    Returns:
        `torch.Tensor` of shape `(batch,)`, float32.
    """
    size = groups.size[groups.ids]
    right = groups.reduce(correct.float(), "sum")[groups.ids]
    same = torch.where(correct, right, size - right)
    weight = torch.where(same == size, 1.0, size / (2 * same))
    return torch.where(size == 1, 0.0, weight)


def pacs_loss(batch: LossBatch, config: PACSConfig) -> TokenLoss:
    """Each rollout's cross-entropy, spread over its tokens."""
    mask, groups = batch.response_mask, batch.groups
    correct = batch.row_column(CORRECT_COLUMN) > 0.5
    psi = config.beta * torch.where(mask, batch.unclamped_log_ratio, 0.0).sum(dim=-1)
    score = leave_one_out(psi, groups)
    loss = outcome_weight(correct, groups) * softplus(torch.where(correct, -score, score))
    return TokenLoss(spread_over_tokens(loss, mask), torch.zeros_like(mask))


def _advantage(batch: MethodBatch, config: PACSConfig) -> torch.Tensor:
    # For the metrics alone: what the first update's gradient weights the responses' log-probs with, where z = 0.
    pull = outcome_weight(batch.correct, batch.groups) * (batch.correct.float() - 0.5)
    return config.beta * leave_one_out(pull, batch.groups)


METHOD = Method(
    name="pacs",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT}),
    settings=PACSConfig.from_mapping,
    token_loss=pacs_loss,
    loss_columns=lambda batch, settings, advantages: {CORRECT_COLUMN: batch.correct},
    whole_groups=True,
)
