"""verl's policy loss ``grpo_s``: the clipped surrogate on a ratio of the whole sequence (arXiv 2508.04349)."""

from __future__ import annotations

from typing import Any

import torch
from verl.trainer.ppo.core_algos import agg_loss, register_policy_loss
from verl.utils.torch_functional import masked_mean
from verl.workers.config import ActorConfig

from verl_ispo.methods.grpo_s import clipped_surrogate_loss, sequence_ratio


@register_policy_loss("grpo_s")
def compute_grpo_s_policy_loss(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "seq-mean-token-mean",
    config: ActorConfig | None = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """-min(A s, A clip(s)) for each sequence, s being the mean of its token ratios.

    As in verl's ``gspo``, every token carries its sequence's loss into verl's aggregation, which divides by numbers of
    the global batch: loss and gradient do not depend on the split into micro-batches or on the number of workers.
    With ``seq-mean-token-mean`` it is the mean over sequences.

    Args:
        old_log_prob, log_prob, response_mask (`torch.Tensor` of shape `(batch, response_length)`).
        advantages (`torch.Tensor` of shape `(batch, response_length)`): the same on every token of a sequence (their
            mean is taken).
        loss_agg_mode (`str`, *optional*, defaults to `"seq-mean-token-mean"`): verl's.
        config (`ActorConfig`): verl's actor config; ``clip_ratio_low`` and ``clip_ratio_high`` bound s.
        rollout_is_weights (`torch.Tensor` of shape `(batch, response_length)`, *optional*): verl's.

    Returns:
        `(loss, metrics)` as verl's policy losses do.
    """
    low = config.clip_ratio if config.clip_ratio_low is None else config.clip_ratio_low
    high = config.clip_ratio if config.clip_ratio_high is None else config.clip_ratio_high
    mask = response_mask.bool()
    log_ratio = (log_prob - old_log_prob).clamp(-20.0, 20.0)  # verl's bounds
    advantage = torch.where(mask, advantages, 0).sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)
    loss, clipped = clipped_surrogate_loss(sequence_ratio(log_ratio, mask), advantage, low, high)

    token_loss = loss.unsqueeze(-1).expand(mask.shape)
    if rollout_is_weights is not None:
        token_loss = token_loss * rollout_is_weights
    aggregated = agg_loss(
        loss_mat=token_loss, loss_mask=response_mask, loss_agg_mode=loss_agg_mode, **config.global_batch_info
    )
    metrics = {
        "actor/pg_clipfrac": masked_mean(clipped.float().unsqueeze(-1).expand(mask.shape), mask).item(),
        "actor/ppo_kl": masked_mean(-log_ratio.detach(), mask).item(),
    }
    return aggregated, metrics
