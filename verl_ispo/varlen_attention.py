"""Attention over packed rows with PyTorch's own kernel, for machines without the flash-attn package.

verl packs the rows of a micro-batch into one sequence (`use_remove_padding`), in which each row's position ids begin at
0. transformers' `sdpa` builds a mask over the whole packed sequence, which is slow; flash-attn has no wheel for every
torch. :func:`torch.nn.attention.varlen.varlen_attn` is the flash attention that PyTorch ships. Importing this module
registers it with transformers under the name ``torch_varlen``:

    actor_rollout_ref.model.external_lib=verl_ispo.varlen_attention
    +actor_rollout_ref.model.override_config.attn_implementation=torch_varlen

On a CPU, where that kernel does not exist, each row goes through `scaled_dot_product_attention`, for checks.
"""

from __future__ import annotations

import itertools
import weakref

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "torch_varlen"
"""The value of ``attn_implementation``."""


def row_starts(position_ids: Tensor) -> tuple[Tensor, int]:
    """Where the rows of a packed sequence begin.

    Args:
        position_ids (`Tensor`): int, shape (1, tokens); each row counts from 0.

    Returns:
        Starts of the rows and the number of tokens, int32, shape (rows + 1); and the length of the longest row.
    """
    positions = position_ids.flatten()
    begins = torch.nonzero(positions == 0).flatten()
    starts = torch.cat([begins, begins.new_tensor([positions.numel()])]).to(torch.int32)
    return starts, int((starts[1:] - starts[:-1]).max())


class _RowStartsOfLastBatch:
    """Keeps the row starts of the batch in hand: every layer asks for them, and each answer waits for the device."""

    def __init__(self) -> None:
        self._position_ids: weakref.ref[Tensor] | None = None
        self._starts: tuple[Tensor, int] | None = None

    def __call__(self, position_ids: Tensor) -> tuple[Tensor, int]:
        if self._starts is None or self._position_ids is None or self._position_ids() is not position_ids:
            self._position_ids, self._starts = weakref.ref(position_ids), row_starts(position_ids)
        return self._starts


_row_starts = _RowStartsOfLastBatch()


def varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_ids: Tensor | None = None,
    sliding_window: int | None = None,
    **_unused: object,
) -> tuple[Tensor, None]:
    """Causal attention within each row of one packed sequence; the signature is transformers'.

    Args:
        query (`Tensor`): shape (1, heads, tokens, head size).
        key, value (`Tensor`): shape (1, key-value heads, tokens, head size).
        attention_mask (`None`): packed rows have none.
        scaling (`float`, *optional*): of the scores; the default is one over the root of the head size.
        position_ids (`Tensor`): shape (1, tokens); each row counts from 0.
        sliding_window (`int`, *optional*): tokens that a position attends to, itself included.

    Returns:
        Attended values, shape (1, tokens, heads, head size), and no weights.

    Raises:
        ValueError: the batch is not packed, or dropout or a mask is asked for.
    """
    if attention_mask is not None or query.shape[0] != 1 or position_ids is None:
        raise ValueError(
            f"attn_implementation={NAME} works on packed rows only: set actor_rollout_ref.model.use_remove_padding=true"
        )
    if dropout:
        raise ValueError(f"attn_implementation={NAME} has no dropout, and the model asks for {dropout}")
    query, key, value = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
    starts, longest = _row_starts(position_ids)
    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn  # new in torch 2.10

        window = (sliding_window - 1 if sliding_window else -1, 0)
        query, key, value = (tensor.contiguous() for tensor in (query, key, value))
        attended = varlen_attn(query, key, value, starts, starts, longest, longest, scale=scaling, window_size=window)
    else:
        attended = _attention_row_by_row(query, key, value, starts, scaling, sliding_window)
    return attended.unsqueeze(0), None


def _attention_row_by_row(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, scaling: float | None, sliding_window: int | None
) -> Tensor:
    rows = []
    bounds = starts.tolist()
    for start, end in itertools.pairwise(bounds):
        of_row = [tensor[start:end].transpose(0, 1) for tensor in (query, key, value)]
        mask = torch.ones(end - start, end - start, dtype=torch.bool).tril()
        if sliding_window:
            mask = mask.triu(1 - sliding_window)
        rows.append(F.scaled_dot_product_attention(*of_row, attn_mask=mask, scale=scaling).transpose(0, 1))
    return torch.cat(rows)


ALL_ATTENTION_FUNCTIONS.register(NAME, varlen_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, flash_attention_mask)
