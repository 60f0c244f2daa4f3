"""Masked means; values that the mask hides have no influence."""

from __future__ import annotations

import torch


def masked_row_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of each row over its masked positions; 0 for a row without any.

    Args:
        values (`torch.Tensor` of shape `(batch, length)`): may hold anything, NaN too, where the mask is false.
        mask (`torch.Tensor` of shape `(batch, length)`, bool).

    Returns:
        `torch.Tensor` of shape `(batch,)`, float32, summed in float64.
    """
    total = torch.where(mask, values, 0).sum(dim=-1, dtype=torch.float64)
    count = mask.sum(dim=-1).clamp(min=1)
    return (total / count).to(torch.float32)
