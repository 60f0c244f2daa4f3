"""Sampling on the CPU: a rollout is a function of its prompt, its seed and the weights, and it follows the policy.

On a tiny random Qwen2 with 11 tokens, in float64, where the arithmetic of another batch moves probabilities by 1e-16
only:

- the same token ids alone, in a batch, in another order, and beside a longer prompt (another padding);
- a sample that is cut short and continued from what it has is the sample that was not cut;
- greedy is transformers' greedy; log-probs are an independent forward's; EOS and the length limit end a sample;
- over thousands of seeds the tokens have the policy's distribution, by a chi-square test, alone and jointly over two
  positions, tempered, with top-k and with top-p. Seeds are fixed, so the test is the same on every run; its level is
  1 in 1000.

Not exercised: float32 (the docstring of `sample_batch` says what it costs), the Ray server around it (the trainer
tests), speed.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.examples import examples
from verl_ispo.cpu.sampling import Sample, SampleRequest, sample_batch, uniform_stream

VOCABULARY = 11
END = 10
DRAWS = 4000


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.5,
    )
    return Qwen2ForCausalLM(config).double().eval()


@torch.no_grad()
def next_token_log_probs(model: Qwen2ForCausalLM, context: tuple[int, ...]) -> torch.Tensor:
    """Of one unpadded row without a cache, `(vocabulary,)`."""
    return model(input_ids=torch.tensor([context])).logits[0, -1].log_softmax(-1)


def shaped(log_probs: torch.Tensor, temperature: float = 1.0, top_k: int = -1, top_p: float = 1.0) -> list[float]:
    """Probabilities under temperature, then top-k, then top-p, by their definitions, in a loop."""
    weights = [math.exp(value / temperature) for value in log_probs.tolist()]
    probabilities = [weight / sum(weights) for weight in weights]
    ranked = sorted(range(len(probabilities)), key=lambda token: (-probabilities[token], token))
    if top_k > 0:
        ranked = ranked[:top_k]
    if top_p < 1.0:
        # The smallest set of likeliest tokens that has this much probability, of the probability as a whole.
        kept, mass = [], 0.0
        for token in ranked:
            if mass >= top_p:
                break
            kept.append(token)
            mass += probabilities[token]
        ranked = kept
    left = sum(probabilities[token] for token in ranked)
    return [probabilities[token] / left if token in ranked else 0.0 for token in range(len(probabilities))]


requests = st.builds(
    SampleRequest,
    prompt_ids=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=8).map(tuple),
    max_new_tokens=st.integers(0, 8),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    top_k=st.sampled_from([-1, 3]),
    top_p=st.sampled_from([1.0, 0.8]),
    seed=st.integers(0, 2**64 - 1),
)


@given(st.lists(requests, min_size=2, max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=examples(25))
def test_a_sample_does_not_depend_on_the_batch(
    model: Qwen2ForCausalLM, batch: list[SampleRequest], random: object
) -> None:
    together = sample_batch(model, batch, [END])
    alone = [sample_batch(model, [request], [END])[0] for request in batch]
    order = list(range(len(batch)))
    random.shuffle(order)
    longer = SampleRequest(prompt_ids=(1,) * 20, max_new_tokens=10, seed=1)  # pads the others, and outlives them
    shuffled = sample_batch(model, [longer, *(batch[row] for row in order)], [END])[1:]
    for row, request in enumerate(batch):
        others = (together[row], shuffled[order.index(row)])
        for other in others:
            assert other.token_ids == alone[row].token_ids, request
            assert other.stop_reason == alone[row].stop_reason
            assert other.log_probs == pytest.approx(alone[row].log_probs, abs=1e-9)


@given(requests, st.integers(0, 8))
@settings(max_examples=examples(25))
def test_a_sample_resumes_where_it_was_aborted(model: Qwen2ForCausalLM, request_: SampleRequest, cut: int) -> None:
    """As verl does with a partial rollout: prompt and what there is so far, same seed, what is left of the limit."""
    whole = sample_batch(model, [request_], [END])[0]
    asked = iter(range(100))
    first = sample_batch(model, [request_], [END], should_stop=lambda: next(asked) >= cut)[0]
    assert first.token_ids == whole.token_ids[:cut]
    if first.stop_reason != "aborted":
        assert first.stop_reason == whole.stop_reason
        return
    rest = sample_batch(
        model,
        [
            dataclasses.replace(
                request_,
                prompt_ids=(*request_.prompt_ids, *first.token_ids),
                max_new_tokens=request_.max_new_tokens - len(first.token_ids),
            )
        ],
        [END],
    )[0]
    assert first.token_ids + rest.token_ids == whole.token_ids
    assert first.log_probs + rest.log_probs == pytest.approx(whole.log_probs, abs=1e-9)
    assert rest.stop_reason == whole.stop_reason


@given(requests)
@settings(max_examples=examples(25))
def test_log_probs_are_those_of_an_independent_forward(model: Qwen2ForCausalLM, request_: SampleRequest) -> None:
    """Under the policy that was drawn from: tempered and filtered; greedy samples under temperature 1."""
    sample = sample_batch(model, [request_], [END])[0]
    for position, (token, log_prob) in enumerate(zip(sample.token_ids, sample.log_probs, strict=True)):
        context = (*request_.prompt_ids, *sample.token_ids[:position])
        policy = shaped(
            next_token_log_probs(model, context), request_.temperature or 1.0, request_.top_k, request_.top_p
        )
        assert log_prob == pytest.approx(math.log(policy[token]), abs=1e-9)


@pytest.mark.parametrize("prompt", [(1,), (3, 4, 5), (0, 2, 0, 2, 0, 9)])
def test_greedy_is_that_of_transformers(model: Qwen2ForCausalLM, prompt: tuple[int, ...]) -> None:
    expected = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=12,
        eos_token_id=END,
        pad_token_id=END,
    )[0, len(prompt) :].tolist()
    found = sample_batch(model, [SampleRequest(prompt, 12, temperature=0.0, seed=5)], [END])[0]
    assert found.token_ids == expected


def draws(model: Qwen2ForCausalLM, length: int, **settings: float) -> list[tuple[int, ...]]:
    """Samples of one prompt under seeds 0, 1, 2, ... without an end-of-sequence token."""
    batch = [SampleRequest((1, 2, 3), length, seed=seed, **settings) for seed in range(DRAWS)]
    return [tuple(sample.token_ids) for sample in sample_batch(model, batch, eos_token_ids=[])]


def assert_distributed_as(found: list[tuple[int, ...]], expected: dict[tuple[int, ...], float]) -> None:
    counts = Counter(found)
    assert not [outcome for outcome in counts if not expected[outcome]], "an outcome that the policy rules out"
    # Outcomes with fewer than 5 expected draws go into one cell, as the test requires.
    common = [outcome for outcome, probability in expected.items() if probability * len(found) >= 5]
    assert len(common) > 2
    observed, wanted = [counts[outcome] for outcome in common], [expected[outcome] * len(found) for outcome in common]
    rare = len(found) - sum(wanted)
    if rare > 1e-6 * len(found):
        observed, wanted = [*observed, len(found) - sum(observed)], [*wanted, rare]
    assert chisquare(observed, [value * sum(observed) / sum(wanted) for value in wanted]).pvalue > 1e-3


@pytest.mark.parametrize(
    "policy",
    [{}, {"temperature": 0.7}, {"temperature": 1.5}, {"top_k": 4}, {"top_p": 0.8}, {"top_k": 6, "top_p": 0.7}],
    ids=str,
)
def test_tokens_have_the_policys_distribution(model: Qwen2ForCausalLM, policy: dict[str, float]) -> None:
    probabilities = shaped(next_token_log_probs(model, (1, 2, 3)), **policy)
    expected = {(token,): probability for token, probability in enumerate(probabilities)}
    assert_distributed_as(draws(model, 1, **policy), expected)


def test_positions_are_jointly_distributed(model: Qwen2ForCausalLM) -> None:
    """Pairs of tokens: a stream that repeated a uniform from one position to the next would fail here."""
    first = next_token_log_probs(model, (1, 2, 3)).exp().tolist()
    second = [next_token_log_probs(model, (1, 2, 3, token)).exp().tolist() for token in range(VOCABULARY)]
    expected = {(a, b): first[a] * second[a][b] for a, b in product(range(VOCABULARY), repeat=2)}
    assert_distributed_as(draws(model, 2), expected)


def test_the_chi_square_test_can_fail(model: Qwen2ForCausalLM) -> None:
    """Draws at temperature 1 compared with temperature 0.9."""
    probabilities = shaped(next_token_log_probs(model, (1, 2, 3)), temperature=0.9)
    with pytest.raises(AssertionError):
        assert_distributed_as(draws(model, 1), {(token,): value for token, value in enumerate(probabilities)})


def test_end_of_sequence_ends_a_sample_and_belongs_to_it(model: Qwen2ForCausalLM) -> None:
    batch = [SampleRequest((1, 2), 30, seed=seed) for seed in range(40)]
    samples = sample_batch(model, batch, [END, 9])
    reasons = Counter(sample.stop_reason for sample in samples)
    assert set(reasons) <= {"completed", "length"}
    assert reasons["completed"] > 10
    for sample in samples:
        assert len(sample.token_ids) == len(sample.log_probs) <= 30
        assert not {END, 9} & set(sample.token_ids[:-1])
        assert (sample.token_ids[-1] in (END, 9)) == (sample.stop_reason == "completed")
        assert (sample.stop_reason == "completed") or len(sample.token_ids) == 30


def test_nothing_asked_is_nothing_sampled(model: Qwen2ForCausalLM) -> None:
    assert sample_batch(model, [], [END]) == []
    nothing = SampleRequest((1,), 0)
    assert sample_batch(model, [nothing], [END]) == [Sample(stop_reason="length")]
    mixed = sample_batch(model, [nothing, SampleRequest((1,), 3, seed=7), nothing], [])
    assert [len(sample.token_ids) for sample in mixed] == [0, 3, 0]
    assert mixed[1].token_ids == sample_batch(model, [SampleRequest((1,), 3, seed=7)], [])[0].token_ids


def test_an_abort_before_the_first_token_keeps_every_sample_empty(model: Qwen2ForCausalLM) -> None:
    samples = sample_batch(model, [SampleRequest((1,), 3), SampleRequest((1,), 0)], [END], should_stop=lambda: True)
    assert [(sample.token_ids, sample.stop_reason) for sample in samples] == [([], "aborted"), ([], "length")]


@given(st.integers(0, 2**64 - 1), st.integers(0, 50), st.integers(0, 50))
def test_a_longer_stream_begins_with_the_shorter(seed: int, one: int, other: int) -> None:
    short, long = sorted((one, other))
    stream = uniform_stream(seed, long)
    assert stream[:short].tolist() == uniform_stream(seed, short).tolist()
    assert ((stream >= 0) & (stream < 1)).all()
