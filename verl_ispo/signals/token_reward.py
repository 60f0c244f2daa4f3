"""Token signal: the directional reward on critical tokens (eq. 7)."""

from __future__ import annotations

import torch

from verl_ispo.signals.masked import masked_row_mean


def hinge(entropy: torch.Tensor, entropy_floor: float) -> torch.Tensor:
    """max(0, tau_H - H_t), in nats: how far the entropy lies under the floor (second term of eq. 7)."""
    return (entropy_floor - entropy).clamp(min=0)


def directional_token_reward(
    log_prob: torch.Tensor,
    entropy: torch.Tensor,
    critical_mask: torch.Tensor,
    correct: torch.Tensor,
    entropy_floor: float,
    entropy_bonus: float,
    hinge_weight: float,
    symmetric: bool = False,
) -> torch.Tensor:
    """R_token of eq. 7, one number a rollout.

    A right rollout gets the mean of log p(y_t) over its critical tokens, a wrong one the mean of
    alpha * H_t - beta * max(0, tau_H - H_t). Without critical tokens it is 0.

    Args:
        log_prob (`torch.Tensor` of shape `(batch, response_length)`): of the sampled tokens, nats.
        entropy (`torch.Tensor` of shape `(batch, response_length)`): nats.
        critical_mask (`torch.Tensor` of shape `(batch, response_length)`, bool).
        correct (`torch.Tensor` of shape `(batch,)`, bool).
        entropy_floor, entropy_bonus, hinge_weight (`float`): tau_H, alpha, beta.
        symmetric (`bool`, *optional*, defaults to `False`): the ablation; a wrong rollout gets the negative of a
            right one's reward (ours, the paper gives no formula).

    Returns:
        `torch.Tensor` of shape `(batch,)`, float32.
    """
    right_reward = masked_row_mean(log_prob, critical_mask)
    if symmetric:
        return torch.where(correct, right_reward, -right_reward)
    wrong_reward = masked_row_mean(
        entropy_bonus * entropy - hinge_weight * hinge(entropy, entropy_floor), critical_mask
    )
    return torch.where(correct, right_reward, wrong_reward)
