"""What a sampler is, and which one is used."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from verl_ispo.cpu.sampling import SampleRequest
from verl_ispo.user_error import UserError


@dataclass(frozen=True)
class Completion:
    """A response: its token ids, and whether the model ended it or the token limit did."""

    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]


class Sampler(Protocol):
    """A function from requests to responses.

    It yields batches of (index of the request, response), in any order, as they are finished: what has been yielded
    survives a kill.
    """

    def __call__(self, requests: Sequence[SampleRequest]) -> Iterator[list[tuple[int, Completion]]]:
        """Sample every request."""
        ...


def sample_seed(run_seed: int, benchmark: str, question_id: str, sample_index: int) -> int:
    """Seed of one sample, of 53 bits, so that every JSON reader (JavaScript's too) keeps it exactly.

    It depends on these four alone: neither order, nor batch, nor a pause, nor the number of samples changes it, and the
    first 16 of 32 samples are those of a run with 16.
    """
    identity = json.dumps([run_seed, benchmark, question_id, sample_index])
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "little") >> 11


def resolve_sampler(choice: str) -> tuple[str, str]:
    """The sampler to use and the reason, in words.

    Args:
        choice (`str`): ``vllm``, ``cpu``, or ``auto``: vLLM when it is installed and a GPU is there.

    Raises:
        UserError: ``vllm`` where it cannot run.
    """
    import torch

    installed, gpu = importlib.util.find_spec("vllm") is not None, torch.cuda.is_available()
    state = f"vLLM is {'' if installed else 'not '}installed, {'a' if gpu else 'no'} GPU is visible"
    if choice == "vllm" and not (installed and gpu):
        raise UserError(f"--sampler vllm: {state}; install verl_ispo[gpu] on a machine with a GPU, or use cpu")
    if choice == "auto":
        return ("vllm" if installed and gpu else "cpu"), state
    return choice, "asked for"


def load_sampler(name: str, folder: Path, context_tokens: int, tensor_parallel_size: int) -> Sampler:
    """Load the model into the sampler that `resolve_sampler` chose."""
    if name == "vllm":
        from verl_ispo.evaluation.vllm_sampler import VLLMSampler

        return VLLMSampler(folder, context_tokens, tensor_parallel_size)
    from verl_ispo.evaluation.cpu_sampler import CPUSampler

    return CPUSampler(folder)


def sampler_versions(name: str) -> dict[str, str]:
    """Versions of the software that decides a sampler's samples, before it is loaded."""
    from importlib.metadata import version

    return {package: version(package) for package in (("vllm",) if name == "vllm" else ("torch", "transformers"))}
