"""Extra rows for verl's ``compute_log_prob``: a forward without a loss over texts that are not rollouts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu


def forward_rows(heads: Sequence[torch.Tensor], tails: Sequence[torch.Tensor]) -> TensorDict:
    """One row each, with the head as verl's prompt and the tail as its response: the tail's tokens are scored.

    Args:
        heads (`Sequence[torch.Tensor]`): token ids, at least one each.
        tails (`Sequence[torch.Tensor]`): token ids.

    Returns:
        `TensorDict` of nested tensors in the form that verl's ``compute_log_prob`` takes.
    """
    sequences = [torch.cat(parts) for parts in zip(heads, tails, strict=True)]
    masks = [torch.ones_like(tail) for tail in tails]
    return TensorDict(
        {
            "prompts": _nested(heads),
            "responses": _nested(tails),
            "input_ids": _nested(sequences),
            "position_ids": _nested([torch.arange(len(sequence)) for sequence in sequences]),
            "response_mask": _nested(masks),
            "loss_mask": _nested(masks),
        },
        batch_size=len(sequences),
    )


def with_forward_settings(rows: TensorDict, temperature: float) -> TensorDict:
    """Mark the rows as a plain forward: no loss, no entropy, the rollout's temperature."""
    tu.assign_non_tensor(rows, temperature=temperature, compute_loss=False, calculate_entropy=False)
    return rows


def _nested(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(list(tensors), layout=torch.jagged)
