"""The clipped loss, with and without verl's dual clip, for methods that change what goes in or what becomes of it."""

from __future__ import annotations

import torch

from verl_ispo.methods.method import LossBatch


def clipped_surrogate_loss(
    ratio: torch.Tensor, advantage: torch.Tensor, clip_low: torch.Tensor | float, clip_high: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """-min(A s, A clip(s, 1 - low, 1 + high)), and whether the clipped branch is the one taken.

    Args:
        ratio, advantage (`torch.Tensor` of one shape).
        clip_low, clip_high (`float`, or `torch.Tensor` of that shape).

    Returns:
        `(loss, clipped)`, of that shape; `clipped` is bool.
    """
    free = -advantage * ratio
    bounded = -advantage * ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.maximum(free, bounded), bounded > free


def dual_clipped_loss(
    batch: LossBatch,
    advantages: torch.Tensor | None = None,
    clip_low: torch.Tensor | float | None = None,
    clip_high: torch.Tensor | float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """-min(A r, A clip(r, 1 - low, 1 + high)), for A < 0 not above -A c (arXiv 1912.09729), and where it is clipped.

    Args:
        batch (`LossBatch`): what is not given below is taken from it.
        advantages (`torch.Tensor` of the batch's shape, *optional*).
        clip_low, clip_high (`torch.Tensor` of the batch's shape or `float`, *optional*).

    Returns:
        `(loss, clipped)` of the batch's shape; with the batch's own values the numbers of verl's ``vanilla``.
    """
    advantages = batch.advantages if advantages is None else advantages
    clip_low = batch.clip_low if clip_low is None else clip_low
    clip_high = batch.clip_high if clip_high is None else clip_high
    ratio = torch.where(batch.response_mask, batch.log_ratio, 0.0).exp()
    loss, clipped = clipped_surrogate_loss(ratio, advantages, clip_low, clip_high)
    bounded = torch.minimum(loss, -advantages * batch.dual_clip)
    return torch.where(advantages < 0, bounded, loss), clipped
