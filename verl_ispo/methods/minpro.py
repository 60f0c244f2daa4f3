"""MinPRO (arXiv 2601.22718): each token's ratio times the smallest earlier ratio of its response, as a constant weight.

w_t = r_t min over s < t of r_s, where the first token has w_0 = r_0; the loss is -sg(clip(w_t, 1 - low, 1 + high)) A
log p. The smallest earlier ratio stands for the product of all of them, which is what a token's prefix would need.

Source: notes by others and re-implementations, which agree on the rule; no authors' code was found. The clip range is
not published: ``actor.clip_ratio_low`` and ``actor.clip_ratio_high`` of all methods of this comparison are ours here.
Tokens that the policy did not write are skipped, so that "earlier" means earlier tokens of its own (ours).

The weight is clipped as a constant, so every token keeps a gradient. The advantage is GRPO's: 0 in all-correct and
all-incorrect groups, and a single rollout keeps its reward. At the policy that wrote the rollouts it is REINFORCE.
"""

from __future__ import annotations

import math

import torch

from verl_ispo.methods.method import LossBatch, Method, Need, TokenLoss


def smallest_earlier(log_ratio: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """min over s < t of log r_s over a row's masked tokens; 0, a ratio of 1, where there is none.

    Args:
        log_ratio (`torch.Tensor` of shape `(batch, response_length)`).
        response_mask (`torch.Tensor` of shape `(batch, response_length)`, bool).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`.
    """
    running = torch.where(response_mask, log_ratio, math.inf).cummin(dim=-1).values
    earlier = torch.nn.functional.pad(running[:, :-1], (1, 0), value=math.inf)
    return torch.where(earlier.isinf(), 0.0, earlier)


def minpro_loss(batch: LossBatch, settings: None) -> TokenLoss:
    """-sg(clip(w)) A log p; clipped where w is outside the range."""
    mask = batch.response_mask
    log_ratio = torch.where(mask, batch.log_ratio.detach(), 0.0)
    weight = (log_ratio + smallest_earlier(log_ratio, mask)).exp()
    bounded = weight.clamp(1 - batch.clip_low, 1 + batch.clip_high)
    log_prob = torch.where(mask, batch.old_log_prob + batch.unclamped_log_ratio, 0.0)
    return TokenLoss(-bounded * batch.advantages * log_prob, mask & (bounded != weight))


METHOD = Method(
    name="minpro",
    advantage=lambda batch, settings: batch.grpo_advantage,
    needs=frozenset({Need.GRPO_ADVANTAGE}),
    token_loss=minpro_loss,
)
