"""Sampling with vLLM's offline engine, after its documented API (``LLM.generate``, ``SamplingParams``, token prompts).

https://docs.vllm.ai/en/stable/api/vllm/ . Written against the API of the vLLM that verl 0.9.1 requires (0.24), and
checked against a stand-in only, since there was no GPU. Each request has its own seed, but bfloat16 kernels give a
token slightly different logits in a different batch, so a resumed run can differ in rare tokens unless vLLM runs
with VLLM_BATCH_INVARIANT=1 (https://docs.vllm.ai/en/stable/features/batch_invariance/).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from verl_ispo.cpu.sampling import SampleRequest
from verl_ispo.evaluation.sampler import Completion

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput

REQUESTS_AT_ONCE = 2048
"""A kill loses at most this many responses; many more than run at a time, so that the engine stays busy."""


class VLLMSampler:
    """`Sampler` on vLLM.

    Args:
        folder (`Path`): Hugging Face folder.
        context_tokens (`int`): longest prompt and response together, in tokens.
        tensor_parallel_size (`int`): GPUs over which the model is split.
    """

    def __init__(self, folder: Path, context_tokens: int, tensor_parallel_size: int) -> None:
        from vllm import LLM

        self._llm = LLM(
            model=str(folder),
            max_model_len=context_tokens,
            tensor_parallel_size=tensor_parallel_size,
            # inside a Ray actor vLLM would ask Ray for the GPUs that the actor holds already, and wait for ever
            distributed_executor_backend="mp" if tensor_parallel_size > 1 else None,
            seed=0,
            logprobs_mode="raw_logprobs",  # at temperature 1, without a filter
        )

    def __call__(self, requests: Sequence[SampleRequest]) -> Iterator[list[tuple[int, Completion]]]:
        """Sample in chunks; vLLM forms batches within them."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        for start in range(0, len(requests), REQUESTS_AT_ONCE):
            chunk = requests[start : start + REQUESTS_AT_ONCE]
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
            yield [(start + index, _completion(output.outputs[0])) for index, output in enumerate(outputs)]


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
