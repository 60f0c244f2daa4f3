"""E over A ~ p(.|Q,T) of log p(A|Q,T) - log p(A|Q) is KL(p(.|Q,T) || p(.|Q)), and so never negative.

A tiny random Qwen2 with 7 tokens is asked for the probability of every answer there is: all strings of up to 3 tokens
that end with the end-of-sequence token or at the length limit; their probabilities add up to 1. The left side sums
the library's own `conditional_ifd` times |A|: the identity is about the sum over the answer's tokens, not their mean.
The divergence never looks at an answer as a whole: by the chain rule it is the expected divergence of the
next-token distributions along the answer, taken from the full logits.

With a T that ends earlier than the one that A was drawn after (`trace_end="first_statement"`), the expectation is the
divergence from p(.|Q) minus that from p(.|Q,T), which may have any sign; with a lead-in that belongs to A
(`answer_span="marked"`), the sum over A is that of its lead-in and that of its content.

Not exercised: answers drawn at random (tests/cpu), and how the trainer gets the ablated log-probs (tests/trainer).
"""

from __future__ import annotations

from itertools import product

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from verl_ispo.signals.conditional_ifd import conditional_ifd

VOCABULARY = 7
END = 0
PROMPT, TRACE, LEAD_IN = (1, 2), (3, 5, 4, 6), (6,)


def random_model(seed: int) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.6,  # far from uniform, so that contexts differ
    )
    return Qwen2ForCausalLM(config).double().eval()


def answers(length: int) -> list[tuple[int, ...]]:
    """Every answer that ends with END, or has no END among its ``length`` tokens."""
    others = [token for token in range(VOCABULARY) if token != END]
    ended = [(*body, END) for size in range(length) for body in product(others, repeat=size)]
    return ended + list(product(others, repeat=length))


@torch.no_grad()
def next_token_log_probs(model: Qwen2ForCausalLM, context: tuple[int, ...], rows: torch.Tensor) -> torch.Tensor:
    """log p(. | context, row so far) before each token of each row: `(rows, length, vocabulary)`."""
    ids = torch.cat([torch.tensor(context).expand(len(rows), -1), rows], dim=1)
    return model(input_ids=ids).logits[:, len(context) - 1 : -1].log_softmax(dim=-1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("length", [2, 3])
def test_expected_ifd_is_the_divergence(seed: int, length: int) -> None:
    model, every = random_model(seed), answers(length)
    rows = torch.tensor([[*answer, *[END] * (length - len(answer))] for answer in every])
    sizes = torch.tensor([len(answer) for answer in every])
    mask = torch.arange(length) < sizes.unsqueeze(-1)
    with_trace = next_token_log_probs(model, PROMPT + TRACE + LEAD_IN, rows)
    without = next_token_log_probs(model, PROMPT + LEAD_IN, rows)
    given_trace, ablated = (full.gather(-1, rows.unsqueeze(-1)).squeeze(-1) for full in (with_trace, without))

    probability = torch.where(mask, given_trace, 0).sum(-1).exp()
    assert probability.sum().item() == pytest.approx(1.0, abs=1e-12)
    sums = conditional_ifd(given_trace, ablated, mask).double() * sizes
    expectation = (probability * sums).sum().item()

    # Chain rule: p(row so far) * KL of the next-token distributions, each way of getting there counted once.
    divergence = 0.0
    seen = set()
    for row, answer in enumerate(every):
        for position in range(len(answer)):
            so_far = answer[:position]
            if so_far not in seen:
                seen.add(so_far)
                reached = given_trace[row, :position].sum().exp()
                p, q = with_trace[row, position], without[row, position]
                divergence += (reached * (p.exp() * (p - q)).sum()).item()

    assert expectation == pytest.approx(divergence, abs=1e-6)
    assert divergence > 0.01, "the trace tells nothing: the model is too flat for this test to mean anything"


def test_a_trace_that_changes_nothing_has_no_ifd() -> None:
    """With an empty trace both contexts are the same, and each answer's IFD is exactly 0, not only their mean."""
    model, rows = random_model(0), torch.tensor(answers(1))
    log_probs = next_token_log_probs(model, PROMPT + LEAD_IN, rows).gather(-1, rows.unsqueeze(-1)).squeeze(-1)
    assert conditional_ifd(log_probs, log_probs.clone(), torch.ones_like(rows).bool()).tolist() == [0.0] * len(rows)


def test_single_answers_may_be_negative() -> None:
    """Only the expectation is bounded: some answers are likelier without the trace, and IFD is not clipped there."""
    model, rows = random_model(0), torch.tensor(answers(1))
    given_trace, ablated = (
        next_token_log_probs(model, context, rows).gather(-1, rows.unsqueeze(-1)).squeeze(-1)
        for context in (PROMPT + TRACE + LEAD_IN, PROMPT + LEAD_IN)
    )
    assert conditional_ifd(given_trace, ablated, torch.ones_like(rows).bool()).min() < 0


def log_prob_rows(model: Qwen2ForCausalLM, context: tuple[int, ...], rows: torch.Tensor) -> torch.Tensor:
    """log-probs of each row's tokens behind a context."""
    return next_token_log_probs(model, context, rows).gather(-1, rows.unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("kept", range(len(TRACE) + 1))
def test_a_trace_that_ends_early_gives_a_difference_of_divergences(kept: int) -> None:
    """E over A ~ p(.|Q, whole T) of the sum with a shorter T: at most that with the whole T, 0 without any."""
    model, rows = random_model(1), torch.tensor(list(product(range(VOCABULARY), repeat=2)))
    mask = torch.ones_like(rows).bool()
    drawn, cut, ablated = (
        log_prob_rows(model, PROMPT + trace + LEAD_IN, rows).double() for trace in (TRACE, TRACE[:kept], ())
    )
    weight = drawn.sum(-1).exp()
    assert weight.sum().item() == pytest.approx(1, abs=1e-12)
    expectation = (weight * conditional_ifd(cut, ablated, mask).double() * 2).sum().item()
    from_prompt, from_cut = ((weight * (drawn - other).sum(-1)).sum().item() for other in (ablated, cut))
    assert min(from_prompt, from_cut) >= -1e-12
    assert expectation == pytest.approx(from_prompt - from_cut, abs=1e-6)
    assert expectation <= from_prompt + 1e-6
    if not kept:
        assert expectation == 0


def test_a_marked_answer_adds_what_the_trace_says_of_its_marker() -> None:
    """By the chain rule, in nats: |A| IFD of lead-in and content together is the lead-in's gain plus the content's."""
    model, rows = random_model(2), torch.tensor([[*LEAD_IN, *body] for body in product(range(VOCABULARY), repeat=2)])
    given_trace, ablated = (log_prob_rows(model, context, rows) for context in (PROMPT + TRACE, PROMPT))
    marked = conditional_ifd(given_trace, ablated, torch.ones_like(rows).bool()).double() * rows.shape[1]
    content_rows = rows[:, len(LEAD_IN) :]
    contexts = (PROMPT + TRACE + LEAD_IN, PROMPT + LEAD_IN)
    content = (
        conditional_ifd(
            *(log_prob_rows(model, context, content_rows) for context in contexts), torch.ones_like(content_rows).bool()
        ).double()
        * content_rows.shape[1]
    )
    lead_in = (given_trace - ablated)[:, : len(LEAD_IN)].sum(-1)
    assert marked.tolist() == pytest.approx((lead_in + content).tolist(), abs=1e-5)
    assert lead_in.abs().max() > 0.1
