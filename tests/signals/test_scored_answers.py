r"""What A and T are on the response's own tokens, under every `answer_span` and `trace_end`.

What goes wrong in general: A is cut short or begins late because too little of the text was read, T keeps the answer
that it should not have, a key changes what is graded, or a default changes what it was.

Derivation: `plain_scored` decodes and searches everything. Responses are those of `test_answer_search`, cut into tokens
anywhere. Rows by hand say what the variants are.

Not exercised: the forward over the rows (tests/trainer/test_answer_log_probs).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.signals.plain_scored_answer import plain_scored
from tests.signals.test_answer_search import responses, token_texts
from verl_ispo.config.ispo_config import ANSWER_SPANS, TRACE_ENDS, ISPOConfig
from verl_ispo.signals.answer_span import (
    AnswerSpans,
    ScoredAnswers,
    answer_tails,
    find_answer_spans,
    find_scored_answers,
)

CONFIGS = [ISPOConfig(answer_span=span, trace_end=end) for span in ANSWER_SPANS for end in TRACE_ENDS]


def columns(spans: AnswerSpans) -> list[list[int]]:
    return [spans.lead_in_start.tolist(), spans.start.tolist(), spans.end.tolist()]


def split(tokens: list[str], **config: str) -> tuple[str, str, str]:
    """T, lead-in and A of one response as text; bars between tokens."""
    ids = list(range(len(tokens)))
    found = find_scored_answers([ids], tokens.__getitem__, ISPOConfig(**config))
    (lead_in,), (start,), (end,) = columns(found.spans)
    return tuple("|".join(tokens[slice(*part)]) for part in ((0, int(found.trace_end)), (lead_in, start), (start, end)))


WORKED = ["6", "*", "7", " is ", "42", ".", " So", " it is ", "\\boxed", "{", "42", "}", "."]


@pytest.mark.parametrize(
    ("answer_span", "trace_end", "expected"),
    [
        ("content", "lead_in", ("6|*|7| is |42|.| So| it is ", "\\boxed|{", "42")),
        ("marked", "lead_in", ("6|*|7| is |42|.| So| it is ", "", "\\boxed|{|42|}")),
        ("sentence", "lead_in", ("6|*|7| is |42|.", "", " So| it is |\\boxed|{|42|}")),
        ("content", "first_statement", ("6|*|7| is ", "\\boxed|{", "42")),
        ("marked", "first_statement", ("6|*|7| is ", "", "\\boxed|{|42|}")),
        ("sentence", "first_statement", ("6|*|7| is ", "", " So| it is |\\boxed|{|42|}")),
    ],
)
def test_by_hand(answer_span: str, trace_end: str, expected: tuple[str, str, str]) -> None:
    assert split(WORKED, answer_span=answer_span, trace_end=trace_end) == expected


@pytest.mark.parametrize(
    ("tokens", "config", "expected"),
    [
        # a token of its own sign and of the answer: A has it all, whichever span
        (["a ", "\\boxed", "{\\", "frac12", "}", "$"], {}, ("a ", "\\boxed", "{\\|frac12")),
        (["a ", "\\boxed{", "1", "}.", " b"], {"answer_span": "marked"}, ("a ", "", "\\boxed{|1|}.")),
        # the statement begins inside a token: T ends before it
        (["so ", "x=4", " thus ", "\\boxed{4}"], {"trace_end": "first_statement"}, ("so ", "", "\\boxed{4}")),
        # at the very first token: nothing is left of T
        (["4", " thus ", "\\boxed{", "4", "}"], {"trace_end": "first_statement"}, ("", "\\boxed{", "4")),
        # only as a part of other numbers
        (["14+40 ", "\\boxed{", "4", "}"], {"trace_end": "first_statement"}, ("14+40 ", "\\boxed{", "4")),
        # an earlier box states it
        (["\\boxed{", "4", "} or ", "\\boxed{", "4}"], {"trace_end": "first_statement"},
         ("\\boxed{", "\\boxed{", "4}")),
        # in the sentence that is A it is not before A
        (["Hm. ", "It is 4, ", "\\boxed{", "4", "}"], {"answer_span": "sentence", "trace_end": "first_statement"},
         ("Hm. ", "", "It is 4, |\\boxed{|4|}")),
        (["x ", "Answer:", " 4", "\n"], {"answer_span": "marked"}, ("x ", "", "Answer:| 4")),
        (["x.\n", "<answer>", "4", "</answer>"], {"answer_span": "sentence"}, ("x.\n", "", "<answer>|4|</answer>")),
    ],
)  # fmt: skip
def test_by_hand_on_tokens(tokens: list[str], config: dict[str, str], expected: tuple[str, str, str]) -> None:
    assert split(tokens, **config) == expected


@given(st.lists(responses(), min_size=1, max_size=3), st.sampled_from(CONFIGS), st.booleans())
@settings(max_examples=examples(300))
def test_it_is_what_the_whole_text_gives(rows: list[list[bytes]], config: ISPOConfig, several: bool) -> None:
    pieces = [piece for row in rows for piece in row]
    bounds = np.cumsum([0, *map(len, rows)]).tolist()
    ids = [list(range(start, end)) for start, end in pairwise(bounds)]
    flags = [several] * len(rows)
    found = find_scored_answers(ids, token_texts(pieces), config, several=flags)
    together = zip(*columns(found.spans), found.trace_end.tolist(), strict=True)
    assert list(together) == [plain_scored(row, token_texts(pieces), config, several) for row in ids]

    # What is graded does not depend on the keys, and A covers it.
    content = find_answer_spans(ids, token_texts(pieces), several=flags)
    assert columns(found.content) == columns(content)
    assert torch.equal(found.spans.found, content.found)
    assert (found.spans.start <= content.start).all()
    assert (found.spans.end >= content.end).all()
    assert (found.trace_end <= found.spans.lead_in_start).all()
    assert (found.spans.lead_in_start <= content.lead_in_start).all()
    if config == ISPOConfig():
        assert columns(found.spans) == columns(content)
        assert not found.stated.any()

    # Rows do not know of one another.
    order = list(range(len(rows)))[::-1]
    turned = find_scored_answers([ids[row] for row in order], token_texts(pieces), config, several=flags)
    assert columns(turned.spans) == columns(found.spans.rows(torch.tensor(order)))
    assert torch.equal(turned.trace_end, found.rows(torch.tensor(order)).trace_end)


@pytest.mark.parametrize("sentence", ["word " * 90, "word " * 110, "x" * 499 + ". ", "\n" + " " * 600])
@pytest.mark.parametrize("step", [1, 3, 40])
def test_long_sentences(sentence: str, step: int) -> None:
    raw = f"Before. {sentence}\\boxed{{7}}".encode()
    pieces = [raw[start : start + step] for start in range(0, len(raw), step)]
    config = ISPOConfig(answer_span="sentence")
    found = find_scored_answers([range(len(pieces))], token_texts(pieces), config)
    (lead_in,), (start,), (end,) = columns(found.spans)
    assert (lead_in, start, end, lead_in) == plain_scored(range(len(pieces)), token_texts(pieces), config, False)


@given(st.lists(responses(), min_size=1, max_size=3), st.sampled_from(CONFIGS))
@settings(max_examples=examples(100))
def test_tails_are_the_responses_own_tokens(rows: list[list[bytes]], config: ISPOConfig) -> None:
    """T, lead-in and A stand one behind the other in a tail, and nothing in it is tokenized again."""
    pieces = [piece for row in rows for piece in row]
    bounds = np.cumsum([0, *map(len, rows)]).tolist()
    tensors = [torch.arange(start, end) for start, end in pairwise(bounds)]
    found = find_scored_answers([row.tolist() for row in tensors], token_texts(pieces), config)
    with_trace = answer_tails(tensors, found.spans, found.trace_end)
    without = answer_tails(tensors, found.spans)
    for row, response in enumerate(tensors):
        lead_in, _, end = (int(column[row]) for column in columns_of(found))
        stop = int(found.trace_end[row])
        if not end:
            assert torch.equal(with_trace[row], response[:1])
            assert torch.equal(without[row], response[:1])
            continue
        assert torch.equal(without[row], response[lead_in:end])
        assert torch.equal(with_trace[row], torch.cat([response[:stop], response[lead_in:end]]))
        if not found.stated[row]:
            assert torch.equal(with_trace[row], response[:end])


def columns_of(found: ScoredAnswers) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return found.spans.lead_in_start, found.spans.start, found.spans.end
