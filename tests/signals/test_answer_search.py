r"""A response read from its end gives the place that the whole text gives, token for token.

What goes wrong in general: a window begins inside something (a command, an escape, a character, a line, a box around
the answer, a list of boxes), or stops before a marker that comes first, and another answer is scored than is graded.

Derivation: `plain_answer_span` decodes and searches everything. Responses are put together from pieces of markers,
braces, line breaks, thinking tags and characters of several bytes, and cut into tokens anywhere, between bytes too.
The room before a marker is varied from one token on, so that windows begin everywhere.

Not exercised: time (`scripts/bench_driver.py`).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.signals.plain_answer_span import plain_indices
from verl_ispo.answers.answer_place import ANSWER_FORMATS, MARKERS, MAX_SEARCH_CHARS, find_answer
from verl_ispo.signals import answer_search
from verl_ispo.signals.answer_span import find_answer_spans
from verl_ispo.signals.token_texts import HINTS, TokenTexts, hint_mask

PIECES = (
    *(
        "\\boxed{",
        "\\boxed {",
        "\\fbox{",
        "\\framebox\n{",
        "\\boxed 7",
        "\\boxed",
        "\\boxed{}",
        "\\boxed{1} and \\boxed{2}",
    ),
    *("x=\\boxed{3}, y=\\boxed{4}", "\\boxed{5}", "\\boxed{\\boxed{6}}", "\\boxed{\\text{your answer}}"),
    *("{", "}", "}}", "\\{", "\\}", "\\\\", "\\", "\\\\\n", "$", ", ", " and ", ".", "7", "x", "o", "s", " " * 45),
    *("\n", "\n\n", "\r\n", "so", "box", "fox", "a long stretch of words that says nothing of interest, twice. " * 2),
    *(
        "Answer:",
        "answer: 8",
        "ANSWER : 9\n",
        "**Answer:** 1",
        "an\u017fwer: 4",
        "Answer：",
        "#### 3",
        "####",
        "### Step",
        "#",
    ),
    *(
        "<answer>",
        "</answer>",
        "<answer>2</answer>",
        "the answer is ",
        "The final answer is 4.",
        "So the answer is not 5",
    ),
    *("if the answer is 3.", "**Final Answer**", "# Answer\n", "final answer\n", "I hope it is correct."),
    *(
        "答案：",
        "答案是 5。",
        "答",
        "案",
        "語",
        "é",
        "≥",
        "\ufffd",
        "\U0001f600",
        "<think>",
        "</think>",
        "<|im_end|>",
        "\u2003",
    ),
)
FORMATS = (*ANSWER_FORMATS, "boxed+hashes", "hashes+sentence", "answer_line+heading+answer_tag")


@st.composite
def responses(draw: st.DrawFn) -> list[bytes]:
    """A response as the bytes of its tokens; an empty token is a special one."""
    text = "".join(draw(st.lists(st.sampled_from(PIECES), max_size=14)))
    raw = text.encode()
    if draw(st.booleans()):
        step = draw(st.integers(1, 7))
        edges = list(range(0, len(raw), step))
    else:
        edges = sorted({0, *draw(st.lists(st.integers(0, len(raw)), max_size=40))})
    pieces = [raw[start:end] for start, end in pairwise([*edges, len(raw)])]
    for at in draw(st.lists(st.integers(0, len(pieces)), max_size=3)):
        pieces.insert(at, b"")
    return pieces


def token_texts(pieces: list[bytes]) -> TokenTexts:
    """The texts of tokens whose ids are indices of `pieces`, alone and together."""

    def together(ids: list[int]) -> str:
        return b"".join(pieces[token] for token in ids).decode(errors="replace")

    return TokenTexts(lambda token: together([token]), decode_together=together)


@pytest.fixture(params=[0, 1, 3, 24], ids=lambda tokens: f"{tokens} before")
def room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many tokens a window has before the place where a marker may be."""
    monkeypatch.setattr(answer_search, "_TOKENS_BEFORE_A_HINT", request.param)


@pytest.mark.usefixtures("room")
@given(st.lists(responses(), min_size=1, max_size=3), st.sampled_from(FORMATS), st.booleans())
@settings(max_examples=examples(150))
def test_read_from_the_end_it_is_the_same_place(rows: list[list[bytes]], answer_format: str, several: bool) -> None:
    pieces = [piece for row in rows for piece in row]
    bounds = np.cumsum([0, *map(len, rows)])
    ids = [list(range(start, end)) for start, end in pairwise(bounds.tolist())]
    spans = find_answer_spans(ids, token_texts(pieces), answer_format, [several] * len(rows))
    found = zip(spans.lead_in_start.tolist(), spans.start.tolist(), spans.end.tolist(), strict=True)
    assert list(found) == [plain_indices(row, token_texts(pieces), answer_format, several) for row in ids]


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{x = 1, so \boxed{5}} and no more" + " word" * 40,  # a box around the one that the window sees
        r"\boxed{1} and " + "x" * 60 + r" \boxed{2}",
        r"$\boxed{1}$ and $\boxed{2}$ and $\boxed{3}$ and $\boxed{4}$ and $\boxed{5}$",
        "Answer: 5\n" + "We check. " * 40 + "\n#### then\n",  # a hint that is no answer, far behind one that is
        "Answer:\n\n\n#### 5 is it\n",  # a marker on another's line
        "\\boxed{3}\n" + "a box, a fox. " * 60,  # words that look like boxes behind the box
        "\\boxed{3" + " {" * 60 + " }" * 60 + "} }",
        "the final " * 50 + "answer is 5.",  # one line
        "\\boxed{5} " + "} " * 50,
        "\\\\boxed{5} \\\\\\boxed{6}",
        "答案：5\n" + "é" * 70,
    ],
)
@pytest.mark.parametrize("step", [1, 2, 3, 5, 8, 1000])
@pytest.mark.usefixtures("room")
def test_hand_made(text: str, step: int) -> None:
    raw = text.encode()
    pieces = [raw[start : start + step] for start in range(0, len(raw), step)]
    for several in (False, True):
        spans = find_answer_spans([range(len(pieces))], token_texts(pieces), "auto", [several])
        found = (int(spans.lead_in_start), int(spans.start), int(spans.end))
        assert found == plain_indices(range(len(pieces)), token_texts(pieces), "auto", several)


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@settings(max_examples=examples(300))
def test_a_text_with_an_answer_has_its_markers_hint(text: str) -> None:
    """Otherwise a marker is searched in no text that holds it; the tokens are single characters here."""
    tokens = np.array([ord(character) for character in text], dtype=np.int64)
    _, masks = TokenTexts(chr).hint_positions(tokens)
    held = int(np.bitwise_or.reduce(masks)) if len(masks) else 0
    for marker in MARKERS:
        if find_answer(text, marker.name) is not None:
            assert held & hint_mask((marker,))
    assert hint_mask(MARKERS) == (1 << len(HINTS)) - 1


def test_a_nested_tensor_is_as_good_as_lists() -> None:
    texts = ["x\\boxed{1}", "", "nothing", "Answer: 22"]
    rows = [torch.tensor([ord(character) for character in text], dtype=torch.long) for text in texts]
    nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    lists, jagged = find_answer_spans([row.tolist() for row in rows], chr), find_answer_spans(nested, chr)
    for name in ("lead_in_start", "start", "end"):
        assert getattr(lists, name).tolist() == getattr(jagged, name).tolist()


def test_little_of_a_response_is_decoded() -> None:
    """The texts of tokens that are far before the answer are not put together."""
    asked: list[int] = []

    class Counted(TokenTexts):
        def of(self, token_ids: list[int]) -> list[str]:
            asked.append(len(token_ids))
            return super().of(token_ids)

    text = "some words. " * 2000 + "So it is $\\boxed{42}$."
    find_answer_spans([[ord(character) for character in text]], Counted(chr))
    assert sum(asked) < 100


def test_each_token_is_decoded_once_and_many_at_a_time() -> None:
    """Also by a function that takes no empty list, as transformers' `batch_decode` does."""
    asked: list[list[int]] = []

    def decode_each(tokens: list[int]) -> list[str]:
        asked.append(list(tokens))
        return [chr(token) for token in tokens] or [""]

    texts = TokenTexts(chr, special_ids=[ord("!")], decode_each=decode_each)
    for text in ("\\boxed{1}!", "\\boxed{1}!", "\\boxed{2}"):
        assert find_answer_spans([[ord(character) for character in text]], texts).found.all()
    assert asked == [sorted(map(ord, set("\\boxed{1}"))), [ord("2")]]


def test_only_the_last_characters_of_a_long_text_are_searched() -> None:
    text = "\\boxed{1}" + "-" * MAX_SEARCH_CHARS
    tokens = [ord(character) for character in text]
    assert not find_answer_spans([tokens], chr).found.any()
    assert find_answer_spans([tokens[:100]], chr).found.all()
