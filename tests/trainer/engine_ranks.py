"""The random model that engines are compared on, and the processes that run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.trainer.ports import free_port, rank_environment
from verl_ispo.tiny_task.base_model import build_config
from verl_ispo.tiny_task.tokenizer import build_tokenizer

TIMEOUT_S = 600

# What one variant gives on one rank; see `engine_process.measured`.
Variant = dict[str, torch.Tensor]


def write_random_model(folder: Path, **shape: int) -> None:
    """A Hugging Face folder in the tiny task's shape, with other values where ``shape`` has them."""
    from transformers import Qwen2ForCausalLM

    tokenizer = build_tokenizer()
    config = build_config(tokenizer)
    for name, value in shape.items():
        setattr(config, name, value)
    config.layer_types = ["full_attention"] * config.num_hidden_layers
    torch.manual_seed(1)
    Qwen2ForCausalLM(config).float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def start_fsdp(folder: Path, variants: tuple[str, ...], ranks: int = 1) -> list[subprocess.Popen[str]]:
    """Start the variants of `engine_process` on the model in ``folder``, one process per rank."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.trainer.engine_process", str(folder), *variants],
            env={**os.environ, **rank_environment(rank, ranks, port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]


def end_of_fsdp(folder: Path, processes: list[subprocess.Popen[str]]) -> list[dict[str, Variant]]:
    """Wait for `start_fsdp`; what each rank has found, by variant."""
    outputs = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs[0][-3000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(len(processes))]


def assert_same(found: Variant, expected: Variant, tolerance: float) -> None:
    assert found.keys() >= expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=tolerance, atol=tolerance)
