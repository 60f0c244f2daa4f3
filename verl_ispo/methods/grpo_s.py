"""GRPO-S (arXiv 2508.04349): GTPO's reward per rollout, from its mean entropy, and a ratio of the whole sequence.

Source: as for `verl_ispo.methods.gtpo`. That the sequence's ratio is the arithmetic mean of its token ratios comes from
re-implementations too. The weights are GTPO's, since no others are known. No dual clip: no source names one.
"""

from __future__ import annotations

import torch

from verl_ispo.methods.clipped_loss import clipped_surrogate_loss
from verl_ispo.methods.gtpo import EntropyRewardConfig, entropy_rewards, normalized_rewards
from verl_ispo.methods.method import LossBatch, Method, MethodBatch, Need, TokenLoss
from verl_ispo.signals.checks import check_finite, check_same_shape
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.signals.masked import masked_row_mean


class GRPOSConfig(EntropyRewardConfig):
    """Keys of ``algorithm.grpo_s``, those of `EntropyRewardConfig`."""

    section = "algorithm.grpo_s"


def grpo_s_advantage(
    entropy: torch.Tensor,
    response_mask: torch.Tensor,
    correct: torch.Tensor,
    groups: RolloutGroups,
    config: GRPOSConfig,
    normalize_by_std: bool = True,
) -> torch.Tensor:
    """GRPO-S's advantage of every rollout; rows without tokens get 0 and do not affect the others.

    Args:
        entropy (`torch.Tensor` of shape `(batch, response_length)`): of the old policy, nats; taken as a constant.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`).
        correct (`torch.Tensor` of shape `(batch,)`, bool).
        groups (`RolloutGroups`): of the batch.
        config (`GRPOSConfig`).
        normalize_by_std (`bool`, *optional*, defaults to `True`): `False` (ours, as in Dr.GRPO) only subtracts means.

    Returns:
        `torch.Tensor` of shape `(batch,)`, float64; finite.

    Raises:
        SignalShapeError: shapes contradict each other.
        NonFiniteSignalError: an entropy is NaN or infinite where the mask is not 0.
    """
    check_same_shape(tuple(response_mask.shape), entropy=entropy)
    check_same_shape((response_mask.shape[0],), correct=correct, group_ids=groups.ids)
    mask = response_mask.bool()
    check_finite(mask, entropy=entropy)
    # Here a whole rollout is one "token" of GTPO, active if it has any token.
    mean_entropy = masked_row_mean(entropy.detach(), mask).unsqueeze(-1)
    active = mask.any(dim=-1, keepdim=True)
    rewards = entropy_rewards(mean_entropy, active, correct, groups, config)
    return normalized_rewards(rewards, active, correct, groups, config, normalize_by_std).squeeze(-1)


def sequence_ratio(log_ratio: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """Mean over a sequence's tokens of exp(log-ratio); 0 for a row without tokens.

    Args:
        log_ratio (`torch.Tensor` of shape `(batch, response_length)`): log p_new - log p_old of the sampled tokens.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`, bool).

    Returns:
        `torch.Tensor` of shape `(batch,)`.
    """
    # Masked before exp as well, where an infinity would turn the gradient into NaN.
    ratio = torch.where(response_mask, torch.where(response_mask, log_ratio, 0.0).exp(), 0.0)
    return ratio.sum(dim=-1) / response_mask.sum(dim=-1).clamp(min=1)


def grpo_s_loss(batch: LossBatch, config: GRPOSConfig) -> TokenLoss:
    """-min(A s, A clip(s)) for each sequence, s being the mean of its token ratios; on every token of the sequence.

    As in verl's ``gspo``, every token carries its sequence's loss into verl's aggregation, which divides by numbers of
    the global batch: loss and gradient do not depend on the split into micro-batches or on the number of workers.
    With ``loss_agg_mode=seq-mean-token-mean`` it is the mean over sequences. The advantage is the same on every token
    of a sequence; their mean is taken.
    """
    mask = batch.response_mask
    advantage = torch.where(mask, batch.advantages, 0).sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)
    ratio = sequence_ratio(batch.log_ratio, mask)
    loss, clipped = clipped_surrogate_loss(ratio, advantage, batch.clip_low, batch.clip_high)
    return TokenLoss(loss.unsqueeze(-1).expand(mask.shape), clipped.unsqueeze(-1).expand(mask.shape))


def _advantage(batch: MethodBatch, config: GRPOSConfig) -> torch.Tensor:
    return grpo_s_advantage(
        batch.entropy, batch.response_mask, batch.correct, batch.groups, config, batch.normalize_by_std
    )


METHOD = Method(
    name="grpo_s",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT, Need.ENTROPY}),
    settings=GRPOSConfig.from_mapping,
    token_loss=grpo_s_loss,
)
