"""verl's policy loss ``ispo``: the clipped surrogate, and what an ISPO run wants to watch in it."""

from __future__ import annotations

from typing import Any

import torch
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla, register_policy_loss
from verl.workers.config import ActorConfig


@register_policy_loss("ispo")
def compute_ispo_policy_loss(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "token-mean",
    config: ActorConfig | None = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """The value and gradient of verl's ``vanilla`` loss (clip bounds ``clip_ratio_low``, ``clip_ratio_high``), and:

    - ``actor/zero_grad_frac``: share of tokens that pull no gradient, for a zero advantage, a clipped ratio, a
      log-ratio beyond verl's clamp at 20, or a rollout-correction weight of zero;
    - ``actor/pg_clipfrac/{positive,negative}_adv``: share of all tokens that are clipped and have an advantage of that
      sign; both add up to what is clipped;
    - ``actor/ppo_kl/{positive,negative}_adv``: those tokens' part of ``actor/ppo_kl``.

    Args:
        old_log_prob, log_prob, advantages, response_mask (`torch.Tensor` of shape `(batch, response_length)`).
        loss_agg_mode (`str`, *optional*, defaults to `"token-mean"`): verl's.
        config (`ActorConfig`): verl's actor config.
        rollout_is_weights (`torch.Tensor` of shape `(batch, response_length)`, *optional*): verl's.

    Returns:
        `(loss, metrics)` as verl's policy losses do.
    """
    loss, metrics = compute_policy_loss_vanilla(
        old_log_prob=old_log_prob,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=response_mask,
        loss_agg_mode=loss_agg_mode,
        config=config,
        rollout_is_weights=rollout_is_weights,
    )
    with torch.no_grad():
        metrics.update(_sign_metrics(old_log_prob, log_prob, advantages, response_mask, config, rollout_is_weights))
    return loss, metrics


def _sign_metrics(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    config: ActorConfig,
    rollout_is_weights: torch.Tensor | None,
) -> dict[str, float]:
    low = config.clip_ratio if config.clip_ratio_low is None else config.clip_ratio_low
    high = config.clip_ratio if config.clip_ratio_high is None else config.clip_ratio_high
    unclamped = log_prob - old_log_prob
    log_ratio = unclamped.clamp(-20.0, 20.0)
    ratio = log_ratio.exp()
    positive, negative = advantages > 0, advantages < 0
    # max() picks the clipped branch, which is constant, above the range for A > 0 and below it for A < 0; the dual
    # clip adds ratios above clip_ratio_c for A < 0.
    clipped_positive = positive & (ratio > 1 + high)
    clipped_negative = negative & ((ratio < 1 - low) | (ratio > config.get("clip_ratio_c", 3.0)))

    no_gradient = (advantages == 0) | clipped_positive | clipped_negative | (unclamped.abs() > 20.0)
    if rollout_is_weights is not None:
        no_gradient = no_gradient | (rollout_is_weights == 0)

    mask = response_mask.bool()
    tokens = mask.sum().clamp(min=1)

    def share(values: torch.Tensor) -> float:
        return float(torch.where(mask, values.float(), 0).sum() / tokens)

    return {
        "actor/zero_grad_frac": share(no_gradient),
        "actor/pg_clipfrac/positive_adv": share(clipped_positive),
        "actor/pg_clipfrac/negative_adv": share(clipped_negative),
        "actor/ppo_kl/positive_adv": share(torch.where(positive, -log_ratio, 0)),
        "actor/ppo_kl/negative_adv": share(torch.where(negative, -log_ratio, 0)),
    }
