"""Sampling on a CPU, in float64: a sample does not depend on the batch around it, so a resumed run repeats it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from verl_ispo.cpu.sampling import Sample, SampleRequest, sample_batch
from verl_ispo.evaluation.sampler import Completion

MAX_BATCH_ROWS = 64
MAX_BATCH_PROMPT_TOKENS = 16384
"""Rows times longest prompt: bounds the memory of the first forward, whose prompts are padded to one length."""
_WINDOW = 512


class CPUSampler:
    """`Sampler` on `verl_ispo.cpu.sampling`.

    Args:
        folder (`Path`): Hugging Face folder.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float64`): of the model; in float32 a sample can depend on
            the batch around it, in about one draw of a million.
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float64) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
        self._eos_token_ids = eos_token_ids(folder)

    def __call__(self, requests: Sequence[SampleRequest]) -> Iterator[list[tuple[int, Completion]]]:
        """Sample in batches of prompts of similar length."""
        for batch in batches([len(request.prompt_ids) for request in requests]):
            samples = sample_batch(
                self._model, [requests[index] for index in batch], self._eos_token_ids, with_model_log_probs=True
            )
            yield [(index, _completion(sample)) for index, sample in zip(batch, samples, strict=True)]


def _completion(sample: Sample) -> Completion:
    return Completion(
        "stop" if sample.stop_reason == "completed" else "length",
        tokens=len(sample.token_ids),
        token_ids=tuple(sample.token_ids),
        log_probs=tuple(sample.model_log_probs),
    )


def batches(prompt_lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in batches within both limits, sorted by length within windows; the order stays roughly as given."""
    for start in range(0, len(prompt_lengths), _WINDOW):
        window = sorted(
            range(start, min(start + _WINDOW, len(prompt_lengths))), key=lambda index: (prompt_lengths[index], index)
        )
        batch: list[int] = []
        for index in window:
            # sorted, so this prompt is the longest so far
            if batch and (
                len(batch) == MAX_BATCH_ROWS or (len(batch) + 1) * prompt_lengths[index] > MAX_BATCH_PROMPT_TOKENS
            ):
                yield batch
                batch = []
            batch.append(index)
        yield batch


def eos_token_ids(folder: Path) -> list[int]:
    """The tokens that end a response: those of generation_config.json and the tokenizer's."""
    try:
        configured = GenerationConfig.from_pretrained(folder).eos_token_id
    except OSError:
        configured = None
    listed = configured if isinstance(configured, list) else [configured]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return sorted({token for token in [*listed, tokenizer.eos_token_id] if token is not None})
