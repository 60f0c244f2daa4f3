"""Where the answer is, on the response's own tokens.

The rule for the text is `verl_ispo.answers.answer_place`'s (its other tests are in tests/answers). On tokens, A is the
smallest run that covers the content, and the lead-in is the run of tokens that opens it; a token shared by lead-in and
content belongs to A, and one shared by trace and lead-in to the lead-in.

Tokens here are pieces of text. A byte-level tokenizer's, whose pieces cut through characters, come at the end.

Not exercised: tokenizers whose single tokens lose text when decoded alone (a leading space, in SentencePiece); the
linear time of the scan is not timed, only run on 100,000 hostile characters.
"""

from __future__ import annotations

import re
from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.examples import examples
from verl_ispo.answers.answer_place import find_answer
from verl_ispo.signals.answer_span import AnswerSpans, find_answer_spans, gather_answer
from verl_ispo.signals.token_texts import TokenTexts

BLANK = " \t\r\n\f\v"


def split(tokens: list[str], answer_format: str = "auto") -> tuple[list[str], list[str], list[str]] | None:
    """(trace, lead-in, A) of one response, as token texts."""
    spans = find_answer_spans([list(range(len(tokens)))], lambda token: tokens[token], answer_format)
    lead_in_start, start, end = (int(column[0]) for column in (spans.lead_in_start, spans.start, spans.end))
    if not bool(spans.found[0]):
        assert (lead_in_start, start, end) == (0, 0, 0)
        return None
    assert int(spans.length[0]) == end - start
    return tokens[:lead_in_start], tokens[lead_in_start:start], tokens[start:end]


def content(text: str, answer_format: str = "auto") -> str | None:
    """The answer of a response in which every character is a token."""
    found = split(list(text), answer_format)
    return None if found is None else "".join(found[2])


@pytest.mark.parametrize(
    ("tokens", "trace", "lead_in", "answer"),
    [
        (["The", " \\", "boxed", "{", "42", "}", "."], ["The"], [" \\", "boxed", "{"], ["42"]),
        (["\\boxed{", "4", "2", "}"], [], ["\\boxed{"], ["4", "2"]),
        (["so", "x \\boxed", "{4", "2}."], ["so"], ["x \\boxed"], ["{4", "2}."]),  # starts and ends mid-token
        (["6*7=", "\\boxed{42}"], ["6*7="], [], ["\\boxed{42}"]),  # one token holds everything
        (["6*7=\\boxed{42} done"], [], [], ["6*7=\\boxed{42} done"]),
        (["a", "\\boxed{", " ", "1", " ", "}"], ["a"], ["\\boxed{", " "], ["1"]),  # blanks are not content
        (["\\boxed{", "", "1", "", "2", "", "}"], [], ["\\boxed{", ""], ["1", "", "2"]),  # special tokens have no text
        (["x", "", "\\boxed{", "1", "}", ""], ["x", ""], ["\\boxed{"], ["1"]),
        (["Answer", ":", " 4", "2", "\n", "bye"], [], ["Answer", ":"], [" 4", "2"]),
        (["so\nAns", "wer: ", "7", "\n"], [], ["so\nAns", "wer: "], ["7"]),
        (["**", "Answer", ":**", " 7"], ["**"], ["Answer", ":**"], [" 7"]),
    ],
)
def test_tokens(tokens: list[str], trace: list[str], lead_in: list[str], answer: list[str]) -> None:
    assert split(tokens) == (trace, lead_in, answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{42}", "42"),
        (r"\boxed {42}", "42"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{1} then \boxed{2", "1"),  # the last one is cut off
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{a_{b_{c}}} {", "a_{b_{c}}"),
        (r"{ \boxed{1}", "1"),
        (r"} \boxed{1} }}}", "1"),
        (r"\boxed{\boxed{1} + 1}", r"\boxed{1} + 1"),  # the outermost, which is graded
        (r"\boxed{x=\boxed{5}}", r"x=\boxed{5}"),
        (r"\boxed{ \boxed{ 5 } }", "5"),
        (r"\boxed 42", "42"),
        (r"\fbox{5}", "5"),
        (r"\boxed{\boxed{1}", "1"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{x \\ y}", r"x \\ y"),
        (r"\boxed{日本語}", "日本語"),
        ("\\boxed{1\n2}", "1\n2"),
    ],
)
def test_boxes(text: str, answer: str) -> None:
    assert content(text) == content(text, "boxed") == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no answer here",
        r"\boxed",
        r"\boxed{",
        r"\boxed{42",
        r"\boxed{{42}",
        r"\boxed{42\}",
        r"boxed{42}",
        r"\boxed{}",
        r"\boxed{ }",
        "}{",
        "Answer",
        "Answer:",
        "Answer: **",
    ],
)
def test_no_answer(text: str) -> None:
    assert content(text) is None
    assert find_answer(text) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: 42", "42"),
        ("thinking...\nAnswer: 42\n", "42"),
        ("Answer: 4\nno:\nAnswer: 5\nbye", "5"),
        ("Answer: four apples.\nI am sure.", "four apples."),
        ("**Answer:** 42", "42"),
        ("**Answer: 42**", "42"),
        ("ANSWER : 42", "42"),
        ("The final answer: 42", "42"),
        ("Answer:42\r\nbye", "42"),
        ("Answer: 2 : 1", "2 : 1"),
        ("Answer: \n4", "4"),
        ("Answer: 4\nAnswer:", "4"),
        ("**Answer**: 5", "5"),
        ("Answer：5", "5"),
    ],
)
def test_answer_lines(text: str, answer: str) -> None:
    assert content(text) == content(text, "answer_line") == answer
    assert content(text, "boxed") is None


def test_a_box_comes_before_an_answer_line_wherever_it_stands() -> None:
    for text in (r"\boxed{1}" + "\nAnswer: 2", "Answer: 2\n" + r"so \boxed{1}"):
        assert content(text) == content(text, "boxed") == "1"
    assert content(r"\boxed{1}" + "\nAnswer: 2", "answer_line") == "2"
    assert content(r"\boxed{1" + "\nAnswer: 2") == "2"  # no balanced box, so the line


def test_rows_are_independent_and_may_be_empty() -> None:
    texts = ["x\\boxed{1}", "", "nothing", "Answer: 22"]
    spans = find_answer_spans([[ord(character) for character in text] for text in texts], chr)
    assert spans.found.tolist() == [True, False, False, True]
    assert spans.lead_in_start.tolist() == [1, 0, 0, 0]
    assert spans.start.tolist() == [8, 0, 0, 8]
    assert spans.length.tolist() == [1, 0, 0, 2]
    assert find_answer_spans([], chr).length.shape == (0,)


def test_special_tokens_have_no_text_and_texts_are_decoded_once() -> None:
    asked: list[int] = []

    def decode(token: int) -> str:
        asked.append(token)
        return chr(token)

    text = TokenTexts(decode, special_ids=[ord("}")])
    assert [text(ord(character)) for character in "a}a"] == ["a", "", "a"]
    assert asked == [ord("a")]


# ---------------------------------------------------------------- any text, any tokenization

plain = st.text(alphabet="019 +x,é語\n", max_size=6)
balanced = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.builds("{}{{{}}}{}".format, plain, inner, plain),
        st.builds("\\frac{{{}}}{{{}}}".format, inner, inner),
        st.builds("\\{{{}\\}}".format, inner),
    ),
    max_leaves=4,
)
# braces alone, such as \\boxed{{}}, print nothing, and an empty box is no answer
non_empty = balanced.filter(lambda text: re.search("[019x,+é語]", text) is not None)
one_line = st.text(alphabet="019 +x,é語:", min_size=1, max_size=8).filter(lambda text: text.strip(BLANK) != "")


@st.composite
def responses(draw: st.DrawFn) -> tuple[str, int, int, int]:
    """A text and the positions where its lead-in begins and its content begins and ends, known by construction."""
    if draw(st.booleans()):
        before, opening, body, closing = (
            draw(balanced),
            draw(st.sampled_from(["\\boxed{", "\\boxed {"])),
            draw(non_empty),
            "}",
        )
    else:
        before, opening, body, closing = draw(plain), "Answer:", draw(one_line), "\n"
    after = draw(plain)
    start = len(before) + len(opening) + len(body) - len(body.lstrip(BLANK))
    return before + opening + body + closing + after, len(before), start, start + len(body.strip(BLANK))


def cut(text: str | bytes, positions: list[int]) -> list[str | bytes]:
    """Tokens between the given positions; equal positions give empty tokens."""
    edges = [0, *sorted(position % (len(text) + 1) for position in positions), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def covering(pieces: list[str | bytes], start: int, end: int) -> list[int]:
    """Tokens that hold some character of [start, end)."""
    ends = list(accumulate(len(piece) for piece in pieces))
    return [
        i
        for i, (piece, last) in enumerate(zip(pieces, ends, strict=True))
        if last > start and last - len(piece) < end and piece
    ]


@given(responses(), st.lists(st.integers(0, 200), max_size=30))
@settings(max_examples=examples(300))
def test_the_run_is_the_smallest_that_covers_the_content(
    response: tuple[str, int, int, int], positions: list[int]
) -> None:
    text, lead_in_at, start_at, end_at = response
    pieces = cut(text, positions)
    spans = find_answer_spans([list(range(len(pieces)))], pieces.__getitem__)
    tokens = covering(pieces, start_at, end_at)
    assert (int(spans.start[0]), int(spans.end[0])) == (tokens[0], tokens[-1] + 1)
    assert text[start_at:end_at] in "".join(pieces[tokens[0] : tokens[-1] + 1])
    lead_in = [token for token in covering(pieces, lead_in_at, start_at) if token < tokens[0]]
    assert int(spans.lead_in_start[0]) == (lead_in[0] if lead_in else tokens[0])


@given(responses(), st.lists(st.integers(0, 400), max_size=30))
@settings(max_examples=examples(200))
def test_tokens_may_cut_through_characters(response: tuple[str, int, int, int], positions: list[int]) -> None:
    """UTF-8 bytes cut anywhere: a piece of a character decodes to a replacement sign, and A covers the same bytes."""
    text, _, start_at, end_at = response
    raw = text.encode()
    pieces = cut(raw, positions)
    spans = find_answer_spans([list(range(len(pieces)))], lambda token: pieces[token].decode(errors="replace"))
    tokens = covering(pieces, len(text[:start_at].encode()), len(text[:end_at].encode()))
    assert (int(spans.start[0]), int(spans.end[0])) == (tokens[0], tokens[-1] + 1)


@given(responses(), plain.filter(lambda text: not re.search(r"answer|[{}\\]", text, re.IGNORECASE)))
@settings(max_examples=examples(100))
def test_text_after_the_answer_changes_nothing(response: tuple[str, int, int, int], trailing: str) -> None:
    text = response[0]
    assert find_answer(text) == find_answer(text + trailing) == find_answer(text + trailing + "}{ \\boxed{5")


@given(st.text(alphabet="\\boxed{} answer:\n*1", max_size=60), st.lists(st.integers(0, 60), max_size=20))
@settings(max_examples=examples(200))
def test_any_text_gives_a_run_inside_the_response(text: str, positions: list[int]) -> None:
    pieces = cut(text, positions)
    for answer_format in ("auto", "boxed", "answer_line"):
        spans = find_answer_spans([list(range(len(pieces)))], pieces.__getitem__, answer_format)
        lead_in_start, start, end = (int(column[0]) for column in (spans.lead_in_start, spans.start, spans.end))
        assert 0 <= lead_in_start <= start <= end <= len(pieces)
        assert bool(spans.found[0]) == (start < end) == (find_answer(text, answer_format) is not None)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{" * 100_000, None),
        ("\\boxed{" * 100_000 + "7" + "}" * 100_000, "7"),
        ("\\boxed{" + "{" * 100_000 + "7" + "}" * 100_000 + "}", "{" * 100_000 + "7" + "}" * 100_000),
        ("}" * 100_000 + "\\boxed{7}", "7"),
        ("\\" * 100_000 + "\\boxed{7}", "7"),
        ("\\boxed" + " " * 100_000, None),
        (("\\boxed" + " " * 1000) * 100 + "\\boxed{7}", "7"),
        ("answer" + " " * 100_000, None),
        ("answer" * 100_000 + ": 7", "7"),
        ("Answer:\n" * 100_000 + "Answer: 7", "7"),
        ("\\boxed{1}" * 100_000 + "\\boxed{7}", "7"),
    ],
)
def test_hostile_lengths(text: str, answer: str | None) -> None:
    """No recursion, and one pass: a quadratic scan of 100,000 characters would hang here."""
    found = find_answer(text)
    assert (None if found is None else text[found.start : found.end]) == answer


def test_hostile_length_in_tokens() -> None:
    text = "\\boxed{" * 20_000 + "7" + "}" * 20_000
    assert content(text) == "7"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """A byte-level BPE as of Qwen2 and Llama 3, trained on so little that its merges straddle the answer's marks."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    bpe.train_from_iterator(
        ["so it is $\\boxed{42}$.", "the \\boxed{4.5}$.\n", "Answer: 42\n", "\\boxed{語}"] * 20, trainer
    )
    return bpe


@given(responses())
@settings(max_examples=examples(100))
def test_a_real_byte_level_tokenizer(tokenizer: Tokenizer, response: tuple[str, int, int, int]) -> None:
    text, _, start_at, end_at = response
    ids = [*tokenizer.encode(text).ids, tokenizer.token_to_id("<|end|>")]
    texts = TokenTexts(lambda token: tokenizer.decode([token]), special_ids=[tokenizer.token_to_id("<|end|>")])
    spans = find_answer_spans([ids], texts)
    start, end = int(spans.start[0]), int(spans.end[0])
    body = text[start_at:end_at]
    assert body in tokenizer.decode(ids[start:end])
    assert body not in tokenizer.decode(ids[start + 1 : end]) or body in tokenizer.decode(ids[:start])
    assert tokenizer.decode(ids[:start] + ids[start:end] + ids[end:]) == text


# ---------------------------------------------------------------- gathering values


def spans_of(*rows: tuple[int, int]) -> AnswerSpans:
    start, end = (torch.tensor(column, dtype=torch.long) for column in zip(*rows, strict=True))
    return AnswerSpans(lead_in_start=start, start=start, end=end)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)).map(sorted), min_size=1, max_size=6),
    st.sampled_from([torch.float32, torch.float64, torch.int64]),
)
def test_gather_answer(rows: list[list[int]], dtype: torch.dtype) -> None:
    values = torch.arange(len(rows) * 6).reshape(len(rows), 6).to(dtype)
    gathered, mask = gather_answer(values, spans_of(*map(tuple, rows)))
    assert gathered.dtype == dtype
    assert mask.dtype == torch.bool
    assert gathered.shape == mask.shape == (len(rows), max(1, *(end - start for start, end in rows), 1))
    for row, (start, end) in enumerate(rows):
        assert mask[row].tolist() == [position < end - start for position in range(mask.shape[1])]
        assert gathered[row, : end - start].tolist() == values[row, start:end].tolist()


@pytest.mark.parametrize("width", [0, 3])
def test_gather_answer_without_any_answer(width: int) -> None:
    """Also where all responses are empty."""
    gathered, mask = gather_answer(torch.zeros(2, width), spans_of((0, 0), (0, 0)))
    assert gathered.shape == mask.shape == (2, 1)
    assert not mask.any()


def test_gather_answer_of_an_empty_batch() -> None:
    nothing = torch.zeros(0, dtype=torch.long)
    gathered, mask = gather_answer(torch.zeros(0, 4), AnswerSpans(nothing, nothing, nothing))
    assert gathered.shape == mask.shape == (0, 1)
