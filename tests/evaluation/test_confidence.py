r"""The mean log-probs of a response and of its answer.

Derivation. The log-prob of a token is that of the model at temperature 1, whatever the response was drawn at: a float64
forward of prompt and response gives it. The answer's tokens are those whose text holds the graded answer, so the mean
over them follows from the text of each token, whether the tokenizer tells it or a server (as bytes).

Not exercised: vLLM's log-probs (tests/vllm), tokenizers that lose text when they decode a token alone.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from tests.examples import examples
from verl_ispo.cpu.sampling import SampleRequest
from verl_ispo.evaluation.confidence import mean_log_probs
from verl_ispo.evaluation.cpu_sampler import CPUSampler
from verl_ispo.evaluation.questions import Question
from verl_ispo.evaluation.sampler import Completion
from verl_ispo.evaluation.samples import LogProbs
from verl_ispo.signals.token_texts import TokenTexts

QUESTION = Question("sums", "1", ({"role": "user", "content": "1+1="},), "2", {})


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (0.6, 1.0), (1.0, 0.7), (2.0, 1.0)])
def test_log_probs_are_those_of_the_model_at_temperature_one(
    random_model: Path, temperature: float, top_p: float
) -> None:
    requests = [
        SampleRequest((50, 43, 51 + index, 61), 8, temperature=temperature, top_p=top_p, seed=index)
        for index in range(4)
    ]
    model = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float64).eval()
    for batch in CPUSampler(random_model)(requests):
        for index, completion in batch:
            prompt, response = list(requests[index].prompt_ids), list(completion.token_ids)
            with torch.no_grad():
                logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].double()
            expected = torch.log_softmax(logits, dim=-1).gather(-1, torch.tensor(response)[:, None])[:, 0]
            assert torch.tensor(completion.log_probs, dtype=torch.float64).allclose(expected, atol=1e-9)
            assert completion.tokens == len(response)


@settings(max_examples=examples(100), deadline=None)
@given(before=st.text(max_size=8), after=st.text(max_size=4), cuts=st.lists(st.integers(0, 60), max_size=12))
def test_the_answer_is_the_same_run_by_token_ids_and_by_a_servers_bytes(
    before: str, after: str, cuts: list[int]
) -> None:
    raw = f"{before} so \\boxed{{é42}} {after}".encode(errors="ignore")
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    pieces = [raw[start:end] for start, end in pairwise(edges)]
    log_probs = tuple(-float(index + 1) for index in range(len(pieces)))

    def decode(ids: list[int]) -> str:
        return b"".join(pieces[index] for index in ids).decode(errors="replace")

    texts = TokenTexts(lambda index: decode([index]), decode_together=decode)
    by_ids = Completion("stop", len(pieces), token_ids=tuple(range(len(pieces))), log_probs=log_probs)
    by_bytes = Completion("stop", len(pieces), text=raw.decode(), pieces=tuple(pieces), log_probs=log_probs)
    found = mean_log_probs(by_ids, QUESTION, texts)
    assert mean_log_probs(by_bytes, QUESTION, None) == found
    answer = raw.rindex("é42".encode())
    holding = [
        log_prob
        for (start, end), log_prob in zip(pairwise(edges), log_probs, strict=True)
        if start < answer + len("é42".encode()) and end > answer and end > start
    ]
    assert found.response == pytest.approx(fmean(log_probs), abs=1e-6)
    assert found.answer == pytest.approx(fmean(holding), abs=1e-6)


def test_what_is_not_told_is_none() -> None:
    assert mean_log_probs(Completion("stop", 3, text="\\boxed{2}"), QUESTION, None) == LogProbs(None, None)
    assert mean_log_probs(Completion("stop", 0, text="", log_probs=()), QUESTION, None) == LogProbs(None, None)
    only_log_probs = Completion("stop", 2, text="\\boxed{2}", log_probs=(-1.0, -3.0))
    assert mean_log_probs(only_log_probs, QUESTION, None) == LogProbs(-2.0, None)
    no_answer = Completion("length", 2, text="I thi", pieces=(b"I ", b"thi"), log_probs=(-1.0, -3.0))
    assert mean_log_probs(no_answer, QUESTION, None) == LogProbs(-2.0, None)
