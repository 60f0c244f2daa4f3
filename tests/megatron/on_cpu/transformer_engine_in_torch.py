"""Transformer Engine's layers of a dense decoder in plain torch: the same parameters, names and arithmetic.

Megatron-Bridge knows how a weight is split by the name of its module's class, so these have the names of the originals:
layer specs, weight names and the bridge's maps are those of a GPU. Norms are computed in float32; attention is
causal, packed rows do not see each other, and under context parallelism each rank has one chunk from the front of a row
and one from its back.
"""

from __future__ import annotations

import itertools
import types
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from megatron.core.transformer.module import MegatronModule

ASKED_FOR_BY_ISINSTANCE = ("TELinear", "TEColumnParallelGroupedLinear", "TERowParallelGroupedLinear")


def put_into(extensions: types.ModuleType) -> None:
    """Put these into megatron-core's module of extensions, and say that Transformer Engine is there."""
    extensions.HAVE_TE = True
    for layer in (
        TENorm,
        TEColumnParallelLinear,
        TERowParallelLinear,
        TELayerNormColumnParallelLinear,
        TEDotProductAttention,
    ):
        setattr(extensions, layer.__name__, layer)
    for name in ASKED_FOR_BY_ISINSTANCE:
        setattr(extensions, name, type(name, (MegatronModule,), {}))


def _norm_parameter(config: Any, value: torch.Tensor) -> torch.nn.Parameter:
    """With its gradient summed over the tensor-parallel ranks, each of which sees a part of the sequence."""
    parameter = torch.nn.Parameter(value)
    parameter.sequence_parallel = config.sequence_parallel
    return parameter


def _norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float) -> torch.Tensor:
    if bias is not None:
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    return F.rms_norm(x.float(), x.shape[-1:], weight.float(), eps).to(x.dtype)


class TENorm(torch.nn.Module):
    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.config, self.eps = config, eps
        self.weight = _norm_parameter(config, torch.ones(hidden_size, dtype=config.params_dtype))
        self.bias = None
        if config.normalization == "LayerNorm":
            self.bias = _norm_parameter(config, torch.zeros(hidden_size, dtype=config.params_dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _norm(x, self.weight, self.bias, self.eps)


class TEColumnParallelLinear(ColumnParallelLinear):
    def __init__(self, *args: Any, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.in_features, self.out_features = self.input_size, self.output_size_per_partition

    def backward_dw(self) -> None:
        pass


class TELayerNormColumnParallelLinear(TEColumnParallelLinear):
    def __init__(self, input_size: int, output_size: int, *, config: Any, **kwargs: Any) -> None:
        super().__init__(input_size, output_size, config=config, **kwargs)
        self.layer_norm_weight = _norm_parameter(config, torch.ones(input_size, dtype=config.params_dtype))
        self.layer_norm_bias = None
        if config.normalization == "LayerNorm":
            self.layer_norm_bias = _norm_parameter(config, torch.zeros(input_size, dtype=config.params_dtype))

    def forward(self, x: torch.Tensor) -> tuple[Any, torch.Tensor | None]:
        x = _norm(x, self.layer_norm_weight, self.layer_norm_bias, self.config.layernorm_epsilon)
        out, bias = super().forward(x)
        if not getattr(self, "return_layernorm_output", False):
            return out, bias
        # an adapter reads what the norm gave, of the whole sequence where it asks for that
        if getattr(self, "return_layernorm_output_gathered", False):
            x = gather_from_sequence_parallel_region(x, group=self.tp_group)
        return (out, x), bias


class TERowParallelLinear(RowParallelLinear):
    def __init__(self, *args: Any, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.in_features, self.out_features = self.input_size_per_partition, self.output_size

    def backward_dw(self) -> None:
        pass


class TEDotProductAttention(MegatronModule):
    def __init__(
        self,
        config: Any,
        layer_number: int,
        attn_mask_type: Any,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        pg_collection: Any = None,
        **_: Any,
    ) -> None:
        super().__init__(config=config)
        dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        if dropout:
            raise NotImplementedError(f"attention_dropout={dropout}: the stand-in has no dropout")
        self.softmax_scale = softmax_scale
        self.context = pg_collection.cp if pg_collection is not None else None
        self.qkv_format = "sbhd"

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        packed_seq_params: Any = None,
        **_: Any,
    ) -> torch.Tensor:
        """Padding is on the right, so that a causal mask is all that rows of one length need."""
        if packed_seq_params is None:
            out = self._attend(*(part.permute(1, 2, 0, 3) for part in (query, key, value)))
            return out.permute(2, 0, 1, 3).flatten(2)
        bounds = packed_seq_params.cu_seqlens_q_padded
        bounds = (packed_seq_params.cu_seqlens_q if bounds is None else bounds).tolist()
        outs = []
        for start, end in itertools.pairwise(bounds):
            rows = slice(start // self.ranks, end // self.ranks)
            parts = (part[rows].permute(1, 0, 2)[None] for part in (query, key, value))
            outs.append(self._attend(*parts)[0].permute(1, 0, 2))
        return torch.cat(outs).flatten(1)

    @property
    def ranks(self) -> int:
        """Ranks that share a row."""
        return self.context.size() if self.context is not None else 1

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Each of shape ``(rows, heads, positions of this rank, channels)``."""
        mask = None
        if self.ranks > 1:
            key, value = (_Gathered.apply(part, self.context) for part in (key, value))
            of_ranks = _positions(query.shape[2], self.ranks)
            mask = of_ranks[self.context.rank()][:, None] >= torch.cat(of_ranks)[None, :]
        groups = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=self.softmax_scale
        )


def _positions(length: int, ranks: int) -> list[torch.Tensor]:
    """The positions in a row that each rank has: one chunk from the front, one from the back."""
    chunks = torch.arange(length * ranks).split(length // 2)
    return [torch.cat((chunks[rank], chunks[2 * ranks - 1 - rank])) for rank in range(ranks)]


class _Gathered(torch.autograd.Function):
    """Keys or values of all ranks of a row, one behind the other; gradients are summed over the ranks."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, group: torch.distributed.ProcessGroup) -> torch.Tensor:
        ctx.group = group
        parts = [torch.empty_like(part) for _ in range(group.size())]
        torch.distributed.all_gather(parts, part.contiguous(), group=group)
        return torch.cat(parts, dim=2)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        grad = grad.contiguous()
        torch.distributed.all_reduce(grad, group=ctx.group)
        return grad.chunk(ctx.group.size(), dim=2)[ctx.group.rank()].contiguous(), None
