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
    head_lengths, tail_lengths = (torch.tensor([len(part) for part in parts]) for parts in (heads, tails))
    lengths = head_lengths + tail_lengths
    begins = lengths.cumsum(0) - lengths
    pieces = [part for parts in zip(heads, tails, strict=True) for part in parts]
    mask = torch.ones(int(tail_lengths.sum()), dtype=tails[0].dtype)
    return TensorDict(
        {
            "prompts": nested_rows(torch.cat(list(heads)), head_lengths),
            "responses": nested_rows(torch.cat(list(tails)), tail_lengths),
            "input_ids": nested_rows(torch.cat(pieces), lengths),
            "position_ids": nested_rows(torch.arange(int(lengths.sum())) - begins.repeat_interleave(lengths), lengths),
            "response_mask": nested_rows(mask, tail_lengths),
            "loss_mask": nested_rows(mask, tail_lengths),
        },
        batch_size=len(lengths),
    )


def with_forward_settings(rows: TensorDict, temperature: float, entropy: bool = False) -> TensorDict:
    """Mark the rows as a plain forward: no loss, the rollout's temperature, the entropy where it is asked for."""
    tu.assign_non_tensor(rows, temperature=temperature, compute_loss=False, calculate_entropy=entropy)
    return rows


def nested_rows(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Rows that lie one behind the other, as a nested tensor that shares their memory.

    Args:
        values (`torch.Tensor` of shape `(sum of lengths,)`).
        lengths (`torch.Tensor` of shape `(rows,)`, int64).
    """
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    shortest, longest = (int(length) for length in lengths.aminmax()) if len(lengths) else (0, 0)
    # Without them, padding would be as long as all rows together.
    return torch.nested.nested_tensor_from_jagged(values, offsets, min_seqlen=shortest, max_seqlen=longest)
