#!/usr/bin/env python3
"""Packed rows through ``attn_implementation=torch_varlen`` give what each row gives alone; exit status 1 if not.

    python scripts/gpu/same_attention.py
    python scripts/gpu/same_attention.py --device cpu --tokens 64       # what the tests run

A small random model with the attention of Qwen2.5-Math-1.5B (12 heads, 2 key-value heads of 128) gets rows of several
lengths packed into one sequence, in bfloat16 on the device. The reference is transformers' own attention (sdpa) on each
row alone, in float32 on the CPU. bfloat16 alone makes an error, which each row through sdpa on the device shows. The
error of the packed rows, in logits and in the gradient of all weights, may be 1.5 times that; rows that saw one another
are far beyond. Then the time of one forward and backward pass, next to sdpa on the same packed sequence.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from verl_ispo import varlen_attention
from verl_ispo.command_line import run_command
from verl_ispo.user_error import UserError

ALLOWED_RATIO = 1.5
VOCABULARY = 512
TIMED_PASSES = 5


def model(implementation: str, device: torch.device, dtype: torch.dtype) -> Qwen2ForCausalLM:
    """The same random weights for each implementation."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=1536,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=12,
        num_key_value_heads=2,
        attn_implementation=implementation,
    )
    return Qwen2ForCausalLM(config).to(device, dtype)


def loss_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """A scalar whose gradient reaches every weight."""
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, -2), tokens.flatten())


def logits_and_gradient(
    network: Qwen2ForCausalLM, tokens: Tensor, rows: Tensor | Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Logits and the gradient of all weights, both float32 vectors on the CPU.

    Args:
        network: model to run.
        tokens: shape (1, tokens), the rows one after the other.
        rows: lengths of the rows, to run each alone; or position ids of shape (1, tokens), to run them packed.
    """
    if isinstance(rows, Tensor):
        logits = network(tokens, position_ids=rows, use_cache=False).logits
    else:
        alone = [network(row.unsqueeze(0), use_cache=False).logits for row in tokens[0].split(list(rows))]
        logits = torch.cat(alone, dim=1)
    loss_of(logits, tokens).backward()
    gradients = torch.cat([weight.grad.float().flatten().cpu() for weight in network.parameters()])
    return logits.detach().float().flatten().cpu(), gradients


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of the reference."""
    return float((found - expected).norm() / expected.norm())


def pass_time_s(network: Qwen2ForCausalLM, tokens: Tensor, positions: Tensor) -> float:
    """Median seconds of a forward and backward pass over one packed sequence."""
    times = []
    for _ in range(TIMED_PASSES + 1):
        begin = time.perf_counter()
        loss_of(network(tokens, position_ids=positions, use_cache=False).logits, tokens).backward()
        if tokens.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return sorted(times[1:])[TIMED_PASSES // 2]  # the first pass compiles and allocates


def compare(options: argparse.Namespace) -> int:
    """Print the errors and the times; returns 1 if an error is beyond the tolerance.

    Raises:
        UserError: the device is a GPU, and torch sees none.
    """
    device = options.device
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("torch sees no CUDA GPU here; run it where there is one, or try it with --device cpu")
    lengths = [options.tokens, 1, options.tokens // 3 + 1, options.tokens // 2 + 1]
    tokens = torch.randint(0, VOCABULARY, (1, sum(lengths)), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0)
    on_device, positions = tokens.to(device), positions.to(device)

    reference = logits_and_gradient(model("sdpa", torch.device("cpu"), torch.float32), tokens, lengths)
    alone = logits_and_gradient(model("sdpa", device, torch.bfloat16), on_device, lengths)
    packed = logits_and_gradient(model(varlen_attention.NAME, device, torch.bfloat16), on_device, positions)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, rows of {', '.join(map(str, lengths))} tokens in one sequence")
    failed = False
    for what, expected, one_by_one, found in zip(("logits", "gradient"), reference, alone, packed, strict=True):
        bound, error = ALLOWED_RATIO * relative_error(one_by_one, expected), relative_error(found, expected)
        failed |= not error <= bound
        print(f"{what}: relative error {error:.4f}, at most {bound:.4f} allowed")
    for implementation in (varlen_attention.NAME, "sdpa"):
        seconds = pass_time_s(model(implementation, device, torch.bfloat16), on_device, positions)
        print(f"{implementation}: {seconds * 1e3:.1f} ms for a forward and backward pass, median of {TIMED_PASSES}")
    return int(failed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"), help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=2048, help="of the longest row (default: %(default)s)")
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: compare(options))


if __name__ == "__main__":
    sys.exit(main())
