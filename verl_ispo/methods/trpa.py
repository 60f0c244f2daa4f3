"""TRPA (arXiv 2504.04524): preferences between a group's rollouts, as in DPO, with a KL term to the rollout policy.

    L = mean over pairs (i better than j) of -log sigmoid(b f (g_i - g_j)) + k mean over tokens of KL(new, old)

g is the mean over a rollout's tokens of log p_new - log p_ref; f is 2.5 where i is of the top level and 1 otherwise;
KL is exp(-x) + x - 1 of x = log p_new - log p_old, at most 10. No clip and no advantage.

Source: the authors' code (XueruiSu/Trust-Region-Preference-Approximation at f372585ed6ec). Levels are ours, since
theirs come from their own scorer: 1 for a correct rollout by the verifier's verdict, then the group's incorrect ones
by their scores. Means are over all pairs and tokens of the step (ours): theirs are over those of a micro-batch, and
would depend on how it is cut.

Groups with a single level, and rollouts alone in their group, have no pairs and only the KL term. Where the step has
no pair at all, the loss is the mean over rollouts of -log sigmoid(g) for correct, -log sigmoid(-g) for incorrect ones.
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

SECTION = "algorithm.trpa"
LEVEL_COLUMN, REFERENCE_COLUMN = "level", "ref_log_prob"
PAIR_SCALE_COLUMN, TOKEN_SCALE_COLUMN = "pair_scale", "token_scale"
# as verl bounds its estimate of the KL
MAX_KL = 10.0


@dataclass(frozen=True)
class TRPAConfig:
    """Settings of TRPA, the keys of ``algorithm.trpa``.

    Args:
        beta (`float`, *optional*, defaults to `0.1`):
            b, the logit per nat of difference in g. Above 0. Authors' script.
        top_level_factor (`float`, *optional*, defaults to `2.5`):
            f, what the logit of a pair is multiplied by where its better rollout is correct. Above 0. Authors' script.
        kl_weight (`float`, *optional*, defaults to `0.001`):
            k, the weight of the KL term to the rollout policy. At least 0. Authors' script.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    beta: float = 0.1
    top_level_factor: float = 2.5
    kl_weight: float = 0.001

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.beta", self.beta, low=0, low_open=True)
        check_number(f"{SECTION}.top_level_factor", self.top_level_factor, low=0, low_open=True)
        check_number(f"{SECTION}.kl_weight", self.kl_weight, low=0)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> TRPAConfig:
        """Build from Hydra's ``algorithm.trpa``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def preference_levels(score: torch.Tensor, correct: torch.Tensor, groups: RolloutGroups) -> torch.Tensor:
    """1 for a correct rollout; 2, 3, ... for the group's incorrect ones, the highest score first.

    Args:
        score (`torch.Tensor` of shape `(batch,)`).
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict.
        groups (`RolloutGroups`).

    Returns:
        `torch.Tensor` of shape `(batch,)`, int64; equal scores share a level.
    """
    level = torch.ones_like(groups.ids)
    for group in range(groups.count):
        rows = (groups.ids == group) & ~correct
        ranks = torch.unique(-score[rows], return_inverse=True)[1]
        level[rows] = ranks + 2
    return level


def mean_drift(log_prob: torch.Tensor, ref_log_prob: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """g: mean over a rollout's tokens of log p - log p_ref, `(batch,)`; 0 for a row without tokens."""
    total = torch.where(response_mask, log_prob - ref_log_prob, 0.0).sum(dim=-1)
    return total / response_mask.sum(dim=-1).clamp(min=1)


def pair_logits(
    drift: torch.Tensor, level: torch.Tensor, config: TRPAConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The pairs of one group and their b f (g_i - g_j).

    Args:
        drift (`torch.Tensor` of shape `(rollouts,)`): g.
        level (`torch.Tensor` of shape `(rollouts,)`).
        config (`TRPAConfig`).

    Returns:
        better and worse, `(pairs,)` int64: indices of rollouts; logits, `(pairs,)`.
    """
    better, worse = (level.unsqueeze(1) < level).nonzero(as_tuple=True)
    factor = torch.where(level[better] == 1, config.top_level_factor, 1.0)
    return better, worse, config.beta * factor * (drift[better] - drift[worse])


def trpa_loss(batch: LossBatch, config: TRPAConfig) -> TokenLoss:
    """A pair's loss on its better rollout's tokens, so that the sum over rollouts is that over pairs, and the KL."""
    mask, groups = batch.response_mask, batch.groups
    level = batch.row_column(LEVEL_COLUMN).round()
    log_prob = batch.old_log_prob + batch.unclamped_log_ratio
    drift = mean_drift(log_prob, batch.columns[REFERENCE_COLUMN], mask)
    of_pairs = 0.0 * drift
    for group in range(groups.count):
        rows = (groups.ids == group).nonzero().flatten()
        better, _worse, logits = pair_logits(drift[rows], level[rows], config)
        of_pairs = of_pairs.index_add(0, rows[better], softplus(-logits))
    scale = batch.row_column(PAIR_SCALE_COLUMN)
    without_pairs = softplus(torch.where(level == 1, -drift, drift))
    preference = spread_over_tokens(torch.where(scale > 0, scale * of_pairs, without_pairs), mask)
    log_ratio = torch.where(mask, batch.log_ratio, 0.0)
    kl = ((-log_ratio).exp() + log_ratio - 1).clamp(max=MAX_KL)
    kl = torch.where(mask, config.kl_weight * batch.columns[TOKEN_SCALE_COLUMN] * kl, 0.0)
    return TokenLoss(preference + kl, torch.zeros_like(mask))


def _levels(batch: MethodBatch) -> torch.Tensor:
    return preference_levels(batch.rewards.sum(dim=-1), batch.correct, batch.groups)


def _pair_scale(level: torch.Tensor, batch: MethodBatch) -> float:
    """Rollouts of the step per pair, which makes a mean over rollouts one over pairs; 0 without pairs."""
    groups = batch.groups
    pairs = 0
    for group in range(groups.count):
        own = level[groups.ids == group]
        pairs += int((own.unsqueeze(1) < own).sum())
    rollouts = int(batch.response_mask.bool().any(dim=-1).sum())
    return rollouts / pairs if pairs else 0.0


def _advantage(batch: MethodBatch, config: TRPAConfig) -> torch.Tensor:
    # For the metrics alone: what the first update's gradient weights the rollouts' mean log-probs with.
    mask, groups, level = batch.response_mask.bool(), batch.groups, _levels(batch)
    drift = mean_drift(batch.log_prob.double(), batch.ref_log_prob.double(), mask)
    scale = _pair_scale(level, batch)
    if not scale:
        sign = torch.where(batch.correct, 1.0, -1.0)
        return torch.where(mask.any(dim=-1), sign * torch.sigmoid(-sign * drift), 0.0)
    advantage = torch.zeros_like(drift)
    for group in range(groups.count):
        rows = (groups.ids == group).nonzero().flatten()
        better, worse, logits = pair_logits(drift[rows], level[rows], config)
        factor = torch.where(level[rows][better] == 1, config.top_level_factor, 1.0)
        weight = scale * config.beta * factor * torch.sigmoid(-logits)
        advantage.index_add_(0, rows[better], weight).index_add_(0, rows[worse], -weight)
    return advantage


def _columns(batch: MethodBatch, config: TRPAConfig, advantages: torch.Tensor) -> dict[str, torch.Tensor]:
    mask, level = batch.response_mask.bool(), _levels(batch)
    rollouts, tokens = int(mask.any(dim=-1).sum()), int(mask.sum())
    rows = torch.ones(len(level), device=mask.device)
    return {
        LEVEL_COLUMN: level,
        REFERENCE_COLUMN: batch.ref_log_prob,
        PAIR_SCALE_COLUMN: rows * _pair_scale(level, batch),
        # makes the mean over rollouts of a sum over tokens one over tokens
        TOKEN_SCALE_COLUMN: rows * (rollouts / max(tokens, 1)),
    }


METHOD = Method(
    name="trpa",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT, Need.LOG_PROB, Need.REFERENCE_LOG_PROB}),
    settings=TRPAConfig.from_mapping,
    token_loss=trpa_loss,
    loss_columns=_columns,
    whole_groups=True,
)
