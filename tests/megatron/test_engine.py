"""verl's own Megatron engine computes what its FSDP2 engine computes: log-probs, entropies, ablated answers, updates.

Megatron divides a model by heads, layers, positions or rows, pads and packs on its own, and has its own optimizer and
checkpoints; ISPO's extra rows and its reference, the adapter switched off, go through all of that. What goes wrong in
general: a row is computed with another row's tokens or with a part of the model, and every number stays plausible.

Derivation: the reference is FSDP2 on one rank, in its plain setting, on the same random model in Hugging Face form
(grouped heads, four layers) and the same rows (tests/trainer/engine_process.py); test_ablated_rows compares that with a
forward by hand. In float32 only the order of sums differs, so the bounds are 1e-5, and 1e-3 after an update: Adam's first
step is the gradient's sign, so that rounding of the smallest gradients shows in the weights. Weight decay is 0, since
Megatron leaves biases and norms out of it. Checkpoints: the update after a resumption is that of the run that was not
interrupted; and the folder that the evaluation finds gives, in transformers, the log-probs of the trained policy.

Megatron runs on a CPU by an import hook (tests/megatron/on_cpu), with plain torch in the place of Transformer Engine.

Not exercised: Transformer Engine itself and its kernels, flash attention, NCCL and the overlap of its transfers, expert
parallelism and router replay, fused kernels, offload to the host, CUDA graphs, FP8, Megatron-FSDP, vanilla mbridge, more
than two ranks and therefore sizes in combination, other models than Qwen2.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.trainer

ONE_RANK = ("padded", "resumed", "packed", "dynamic", "recompute", "chunked_entropy", "lora", "lora_resumed")
TWO_RANKS = ("tensor", "tensor_packed", "pipeline", "virtual_pipeline", "context", "data")
FORWARDS = ("log_probs", "entropy", "answer", "merged_log_probs", "merged_entropy", "merged_answer")
