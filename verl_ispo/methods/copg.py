"""CoPG (arXiv 2406.19185): contrastive policy gradient, differences of regularized rewards within a group.

    L = mean over rollouts of the groups' 1 / (k - 1) sum over pairs of (Rb_i - Rb_j)^2
    Rb = R - b (sum over tokens of log p_new - log p_ref)

for a group of k rollouts. No clip, no ratio to the rollout policy and no advantage. On the rollout policy its gradient
is 2 b times that of RLOO on Rb.

Source: notes by others, on this paper and on a report that trains with it; no code. b is not given: ours is 0.1, under
which the optimum raises the odds of a correct response over an incorrect one by e^10. R is the score.

Groups of equal scores get the regularization alone, which draws their rollouts to one log-ratio; a rollout alone in
its group has no pair and no loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import LossBatch, Method, MethodBatch, Need, TokenLoss, spread_over_tokens
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.copg"
SCORE_COLUMN, REFERENCE_COLUMN = "score", "ref_log_prob"


@dataclass(frozen=True)
class CoPGConfig:
    """Settings of CoPG, the keys of ``algorithm.copg``.

    Args:
        beta (`float`, *optional*, defaults to `0.1`):
            b, the price of a nat of the response's log-ratio to the reference, in units of reward. Above 0. Ours.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.beta", self.beta, low=0, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> CoPGConfig:
        """Build from Hydra's ``algorithm.copg``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def regularized_reward(
    score: torch.Tensor, log_prob: torch.Tensor, ref_log_prob: torch.Tensor, response_mask: torch.Tensor, beta: float
) -> torch.Tensor:
    """Rb = R - b (sum over tokens of log p - log p_ref).

    Args:
        score (`torch.Tensor` of shape `(batch,)`): R.
        log_prob, ref_log_prob (`torch.Tensor` of shape `(batch, response_length)`).
        response_mask (`torch.Tensor` of shape `(batch, response_length)`, bool).
        beta (`float`): b.

    Returns:
        `torch.Tensor` of shape `(batch,)`.
    """
    return score - beta * torch.where(response_mask, log_prob - ref_log_prob, 0.0).sum(dim=-1)


def contrast(reward: torch.Tensor, groups: RolloutGroups, power: int) -> torch.Tensor:
    """1 / (k - 1) sum over the group's others of (Rb_i - Rb_j)^power, `(batch,)`; 0 for a rollout alone.

    With power 1 this is RLOO's advantage. With power 2 every pair is in the sums of both its rollouts.
    """
    found = 0.0 * reward
    for group in range(groups.count):
        rows = (groups.ids == group).nonzero().flatten()
        differences = reward[rows].unsqueeze(1) - reward[rows]
        found = found.index_add(0, rows, (differences**power).sum(dim=1) / max(len(rows) - 1, 1))
    return found


def copg_loss(batch: LossBatch, config: CoPGConfig) -> TokenLoss:
    """Half of its pairs' loss on each rollout, so that the sum over a group is that over its pairs."""
    mask = batch.response_mask
    log_prob = batch.old_log_prob + batch.unclamped_log_ratio
    score = batch.row_column(SCORE_COLUMN)
    reward = regularized_reward(score, log_prob, batch.columns[REFERENCE_COLUMN], mask, config.beta)
    return TokenLoss(spread_over_tokens(contrast(reward, batch.groups, 2) / 2, mask), torch.zeros_like(mask))


def _advantage(batch: MethodBatch, config: CoPGConfig) -> torch.Tensor:
    # For the metrics alone: RLOO's advantage on Rb, which the first update's gradient is in proportion to.
    reward = regularized_reward(
        batch.rewards.sum(dim=-1).double(),
        batch.log_prob.double(),
        batch.ref_log_prob.double(),
        batch.response_mask.bool(),
        config.beta,
    )
    return contrast(reward, batch.groups, 1)


METHOD = Method(
    name="copg",
    advantage=_advantage,
    needs=frozenset({Need.LOG_PROB, Need.REFERENCE_LOG_PROB}),
    settings=CoPGConfig.from_mapping,
    token_loss=copg_loss,
    loss_columns=lambda batch, settings, advantages: {
        SCORE_COLUMN: batch.rewards.sum(dim=-1),
        REFERENCE_COLUMN: batch.ref_log_prob,
    },
    whole_groups=True,
)
