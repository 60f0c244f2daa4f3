"""The paper's models x methods x engines x rollouts, on one node and on four, and a sample that covers every pair."""

from __future__ import annotations

from itertools import product

MODELS = ("qwen2_5_7b", "qwen2_5_math_1_5b", "qwen2_5_math_7b")
METHODS = ("grpo", "dr_grpo", "dapo", "ispo")
ENGINES = ("fsdp", "megatron")
ROLLOUTS = ("vllm", "sglang")
NODES = ("1", "4")
Cell = tuple[str, str, str, str, str]

ALL_CELLS: tuple[Cell, ...] = tuple(product(MODELS, METHODS, ENGINES, ROLLOUTS, NODES))
COVERING_CELLS: tuple[Cell, ...] = (
    ("qwen2_5_math_1_5b", "grpo", "fsdp", "vllm", "1"),
    ("qwen2_5_math_1_5b", "dr_grpo", "megatron", "sglang", "4"),
    ("qwen2_5_math_1_5b", "dapo", "fsdp", "sglang", "1"),
    ("qwen2_5_math_1_5b", "ispo", "megatron", "vllm", "4"),
    ("qwen2_5_math_7b", "grpo", "megatron", "sglang", "4"),
    ("qwen2_5_math_7b", "dr_grpo", "fsdp", "vllm", "1"),
    ("qwen2_5_math_7b", "dapo", "megatron", "vllm", "4"),
    ("qwen2_5_math_7b", "ispo", "fsdp", "sglang", "1"),
    ("qwen2_5_7b", "grpo", "fsdp", "sglang", "4"),
    ("qwen2_5_7b", "dr_grpo", "megatron", "vllm", "1"),
    ("qwen2_5_7b", "dapo", "fsdp", "vllm", "4"),
    ("qwen2_5_7b", "ispo", "megatron", "sglang", "1"),
)
"""Every pair of choices occurs in one of them (checked in test_train_command.py)."""
