"""Token signal: the directional reward on critical tokens (eq. 7)."""

from __future__ import annotations

import torch

from verl_ispo.signals.masked import masked_row_mean


def hinge(entropy: torch.Tensor, entropy_floor: float) -> torch.Tensor:
    """max(0, tau_H - H_t), in nats: how far the entropy lies under the floor (second term of eq. 7)."""
    return (entropy_floor - entropy).clamp(min=0)


def token_reward_terms(
    log_prob: torch.Tensor,
    entropy: torch.Tensor,
    correct: torch.Tensor,
    entropy_floor: float,
    entropy_bonus: float,
    hinge_weight: float,
    symmetric: bool = False,
) -> torch.Tensor:
    """What each token adds to the mean of eq. 7 if it is critical.

    log p(y_t) in a correct rollout, alpha * H_t - beta * max(0, tau_H - H_t) in an incorrect one.

    Args:
        log_prob (`torch.Tensor` of shape `(batch, response_length)`): of the sampled tokens, nats.
        entropy (`torch.Tensor` of shape `(batch, response_length)`): nats.
        correct (`torch.Tensor` of shape `(batch,)`, bool).
        entropy_floor, entropy_bonus, hinge_weight (`float`): tau_H, alpha, beta.
        symmetric (`bool`, *optional*, defaults to `False`): the ablation; an incorrect rollout's terms are the negative
            of a correct one's (ours, the paper gives no formula).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`.
    """
    directional = entropy_bonus * entropy - hinge_weight * hinge(entropy, entropy_floor)
    return torch.where(correct.unsqueeze(-1), log_prob, -log_prob if symmetric else directional)


def directional_token_reward(terms: torch.Tensor, critical_mask: torch.Tensor) -> torch.Tensor:
    """R_token of eq. 7, one number per rollout: the mean of its critical tokens' terms, 0 without critical tokens.

    Args:
        terms (`torch.Tensor` of shape `(batch, response_length)`): of `token_reward_terms`.
        critical_mask (`torch.Tensor` of shape `(batch, response_length)`, bool).

    Returns:
        `torch.Tensor` of shape `(batch,)`, float32.
    """
    return masked_row_mean(terms, critical_mask)
