"""The evaluation's vLLM sampler on the real engine, beside the CPU sampler.

Derivation: greedy responses depend on the model alone, so both samplers give the same tokens, one in float32 and one in
float64, unless two tokens are equally likely. Seeded responses depend on the model and their own seed, so neither order
nor company changes them. What goes wrong in general: an end-of-sequence token, a limit or a prompt that one sampler
reads otherwise; a seed that the engine ignores, so that a resumed evaluation mixes two.

Not exercised: bfloat16, several GPUs, CUDA kernels.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.conftest import ENVIRONMENT, TinyTask
from verl_ispo.cpu.sampling import SampleRequest
from verl_ispo.evaluation.cpu_sampler import CPUSampler
from verl_ispo.evaluation.results import SAMPLES_NAME
from verl_ispo.evaluation.run import LOG_NAME, SUMMARY_NAME
from verl_ispo.evaluation.sampler import Sampler
from verl_ispo.evaluation.vllm_sampler import VLLMSampler

pytestmark = pytest.mark.trainer

QUESTIONS, NEW_TOKENS = 100, 48
TIME_LIMIT_S = 300


@pytest.fixture(scope="module")
def vllm_sampler(tiny_task: TinyTask) -> Iterator[VLLMSampler]:
    sampler = VLLMSampler(tiny_task.model, context_tokens=128, tensor_parallel_size=1)
    yield sampler
    sampler._llm.llm_engine.engine_core.shutdown()


@pytest.fixture(scope="module")
def benchmark(tiny_task: TinyTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out problems of all levels."""
    problems = pyarrow.parquet.read_table(tiny_task.data / "heldout.parquet").to_pylist()
    path = tmp_path_factory.mktemp("problems") / "heldout.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(problems[:: len(problems) // QUESTIONS]), path)
    return path


@pytest.fixture(scope="module")
def prompts(tiny_task: TinyTask, benchmark: Path) -> list[tuple[int, ...]]:
    tokenizer = AutoTokenizer.from_pretrained(tiny_task.model)
    rows = pyarrow.parquet.read_table(benchmark).to_pylist()
    return [
        tuple(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False))
        for row in rows
    ]


Answer = tuple[tuple[int, ...], str]
"""Tokens, and what ended them."""


def answers(sampler: Sampler, requests: Sequence[SampleRequest]) -> list[Answer]:
    found = {index: (one.token_ids, one.finish_reason) for batch in sampler(requests) for index, one in batch}
    return [found[index] for index in range(len(requests))]


def greedy(prompts: Sequence[tuple[int, ...]]) -> list[SampleRequest]:
    return [SampleRequest(prompt, NEW_TOKENS, temperature=0.0) for prompt in prompts]


def seeded(prompts: Sequence[tuple[int, ...]]) -> list[SampleRequest]:
    # seeds of an evaluation have 53 bits
    return [
        SampleRequest(prompt, NEW_TOKENS, temperature=0.8, top_p=0.95, seed=2**52 + number)
        for number, prompt in enumerate(prompts)
    ]


def test_greedy_responses_are_the_cpu_samplers(
    vllm_sampler: VLLMSampler, tiny_task: TinyTask, prompts: list[tuple[int, ...]]
) -> None:
    of_vllm, of_cpu = (answers(sampler, greedy(prompts)) for sampler in (vllm_sampler, CPUSampler(tiny_task.model)))
    assert of_vllm == of_cpu
    assert {ending for _, ending in of_vllm} == {"stop", "length"}, "the model shows both"


def test_log_probs_are_those_of_the_model_at_temperature_one(
    vllm_sampler: VLLMSampler, tiny_task: TinyTask, prompts: list[tuple[int, ...]]
) -> None:
    """Of greedy and of seeded responses alike, in float32 beside a float64 forward."""
    model = AutoModelForCausalLM.from_pretrained(tiny_task.model, dtype=torch.float64).eval()
    for requests in (greedy(prompts[:10]), seeded(prompts[:10])):
        for index, completion in (one for batch in vllm_sampler(requests) for one in batch):
            prompt, response = list(requests[index].prompt_ids), list(completion.token_ids)
            with torch.no_grad():
                logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
            expected = torch.log_softmax(logits, dim=-1).gather(-1, torch.tensor(response)[:, None])[:, 0]
            assert torch.tensor(completion.log_probs, dtype=torch.float64).allclose(expected, atol=1e-4)


def test_a_seed_gives_the_same_response_in_any_company(
    vllm_sampler: VLLMSampler, prompts: list[tuple[int, ...]]
) -> None:
    requests = seeded(prompts)
    together = answers(vllm_sampler, requests)
    assert len(set(together)) > QUESTIONS / 2, "responses differ"
    assert answers(vllm_sampler, requests) == together
    assert answers(vllm_sampler, requests[::-1])[::-1] == together
    assert answers(vllm_sampler, requests[::7]) == together[::7]
    beside_greedy = [one for pair in zip(greedy(prompts), requests, strict=True) for one in pair]
    assert answers(vllm_sampler, beside_greedy)[1::2] == together


EVALUATION = """
import sys
from verl_ispo.evaluation import vllm_sampler
vllm_sampler.REQUESTS_AT_ONCE = 40  # several parts, so that a kill finds some done
from verl_ispo.cli import main
sys.exit(main(sys.argv[1:]))
"""


def evaluate(task: TinyTask, benchmark: Path, out: Path) -> subprocess.Popen[bytes]:
    """``verl-ispo eval --sampler vllm``, in a process group of its own."""
    command = [sys.executable, "-c", EVALUATION, "eval", "--model", str(task.model), "--benchmarks", str(benchmark)]
    command += ["--out", str(out), "--n", "2", "--sampler", "vllm", "--context-tokens", "128", "--method", "both"]
    command += ["--max-new-tokens", str(NEW_TOKENS), "--reward-function", "pkg://verl_ispo.tiny_task.reward"]
    return subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True)


def test_a_killed_evaluation_resumes_byte_for_byte(tiny_task: TinyTask, benchmark: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert evaluate(tiny_task, benchmark, whole).wait(TIME_LIMIT_S) == 0
    process = evaluate(tiny_task, benchmark, killed)
    end, log = time.monotonic() + TIME_LIMIT_S, killed / LOG_NAME
    while not (log.exists() and log.stat().st_size > 0):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(TIME_LIMIT_S)
    assert 0 < len(log.read_bytes().splitlines()) < 3 * QUESTIONS, "the kill came too late to be one"
    assert evaluate(tiny_task, benchmark, killed).wait(TIME_LIMIT_S) == 0
    for name in (SAMPLES_NAME, SUMMARY_NAME):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
