r"""What IFD scores is what is graded.

Derivation. A response is a string of bytes, and a tokenizer cuts it anywhere, also in the middle of a character. The
grader decodes the whole and takes `answer_text` of `find_answer`; the signals take the run of tokens that
`find_answer_spans` gives. So for any text and any cut, the bytes of the run, less what its first token has before the
answer and its last token has behind it, must be the bytes of the graded answer, and no smaller run may hold them. The
two are worked out apart here: from byte offsets of the grader's text, and from token ids.

Not exercised: whether the graded answer is correct (tests/grading); tokenizers that lose text when they decode a token
alone (a leading space, in SentencePiece).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import accumulate, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from verl_ispo.answers.answer_place import (
    ANSWER_FORMATS,
    BOXED,
    MARKERS,
    MAX_SEARCH_CHARS,
    answer_text,
    find_answer,
)
from verl_ispo.grading import compute_score
from verl_ispo.grading.ground_truth_reading import asks_for_several
from verl_ispo.grading.normalization import normalize_answer
from verl_ispo.signals.answer_span import find_answer_spans
from verl_ispo.signals.token_texts import TokenTexts
from verl_ispo.tiny_task.reward import compute_score as tiny_score

# ---------------------------------------------------------------- scored is graded, for any text and any tokenization

FRAGMENTS = [
    "\\boxed{", "\\boxed {", "\\fbox{", "\\framebox{", "\\boxed 5", "\\boxed", "{", "}", "}", "}", "\\{", "\\}", "\\\\",
    "Answer:", "**Answer**:", "answer ：", "ANSWER\uff1a", "Final Answer:**", "\n", "\r\n", "\n\n", " ", "\u3000",
    "\u00a0", "*", "**", "_", "$", "$$", "\\[", "\\]", ", ", " and ", " or ", ";", ".", "5", "x=", "-2", "\\frac{1}{2}",
    "so it is", "答案是", "答案：", "。", "é", "🙂", "<think>", "</think>", "\ufffd", "####", "<answer>", "</answer>",
    "The final answer is", "the answer is ", "**Final Answer**", "## Final Answer", "not ", "y=", "- ",
]  # fmt: skip
texts = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join),
    st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=12).map("".join),
).map(lambda text: text.encode(errors="ignore").decode())
cuts = st.lists(st.integers(0, 10_000), max_size=40)


def tokens_of(text: str, positions: list[int], byte_level: bool) -> list[bytes]:
    """The text's bytes, cut at some positions, or after every byte."""
    raw = text.encode()
    edges = (
        range(len(raw) + 1)
        if byte_level
        else [0, *sorted(position % (len(raw) + 1) for position in positions), len(raw)]
    )
    return [raw[start:end] for start, end in pairwise(edges)]


def scored_run(pieces: list[bytes], several: bool) -> tuple[int, int, int] | None:
    """(lead-in start, start, end) in tokens, as the trainer gets them."""

    def decode(ids: list[int]) -> str:
        return b"".join(pieces[token] for token in ids).decode(errors="replace")

    token_texts = TokenTexts(lambda token: decode([token]), decode_together=decode)
    spans = find_answer_spans([list(range(len(pieces)))], token_texts, several=[several])
    run = int(spans.lead_in_start[0]), int(spans.start[0]), int(spans.end[0])
    return run if bool(spans.found[0]) else None


def graded_text(text: str, several: bool) -> str:
    """What the reward function grades, before it normalizes it; empty where it finds no answer."""
    place = find_answer(text, several=several)
    graded = "" if place is None else answer_text(text, place)
    gold = '["1", "2"]' if several else "1"
    assert asks_for_several(gold) == several
    assert compute_score("test", text, gold, timeout_s=0.001)["pred"] == normalize_answer(graded)[:1000]
    return graded


@settings(deadline=None, max_examples=400)
@given(texts, cuts, st.booleans(), st.booleans())
@example("\\boxed{x=\\boxed{5}}", [], True, False)
@example("答Answer：5", [], True, False)
@example("\\boxed{\u30005\u3000}", [], True, False)
@example("\\boxed{1} and \\boxed{3}", [], True, True)
@example("answer ：5", [8, 8], False, False)  # an empty token inside a character
# a replacement character of the text itself, behind a cut one and before another
@example("\\boxed{答案是the answer is \ufffd", [8], False, False)
@example("答案是\ufffd。é", [1, 12, 13], False, False)
def test_the_scored_characters_are_the_graded_ones(
    text: str, positions: list[int], byte_level: bool, several: bool
) -> None:
    pieces = tokens_of(text, positions, byte_level)
    run, graded = scored_run(pieces, several), graded_text(text, several)
    assert (run is not None) == (graded != "")
    if run is None:
        return
    place = find_answer(text, several=several)
    # The graded text is the text at the place; of a list, that of its parts, each behind its name if they have names.
    names = [text[start:end] for start, end in place.names] or [""] * len(place.parts)
    assert graded == ", ".join(name + text[start:end] for name, (start, end) in zip(names, place.parts, strict=True))
    assert (place.start, place.end) == (place.parts[0][0], place.parts[-1][1])
    assert len(place.parts) == 1 or several
    # The smallest run of tokens that holds these bytes.
    first_byte, end_byte = len(text[: place.start].encode()), len(text[: place.end].encode())
    edges = [0, *accumulate(map(len, pieces))]
    _, start, end = run
    assert edges[start] <= first_byte < edges[start + 1]
    assert edges[end - 1] < end_byte <= edges[end]
    scored = b"".join(pieces[start:end])[first_byte - edges[start] : end_byte - edges[start]]
    assert scored == text[place.start : place.end].encode()
    if not several:
        assert scored.decode() == graded


@settings(deadline=None, max_examples=200)
@given(texts, cuts, st.booleans())
def test_trace_and_lead_in_end_where_the_answer_begins(text: str, positions: list[int], byte_level: bool) -> None:
    pieces = tokens_of(text, positions, byte_level)
    run = scored_run(pieces, several=False)
    if run is None:
        return
    place = find_answer(text)
    lead_in_byte = len(text[: place.lead_in_start].encode())
    edges = [0, *accumulate(map(len, pieces))]
    lead_in_start, start, _ = run
    assert lead_in_start <= start
    assert edges[lead_in_start] <= lead_in_byte
    assert lead_in_start == start or lead_in_byte < edges[lead_in_start + 1]


@settings(deadline=None, max_examples=200)
@given(texts, st.sampled_from(sorted(ANSWER_FORMATS)), st.booleans())
def test_a_place_is_inside_the_text_and_has_no_blank_ends(text: str, answer_format: str, several: bool) -> None:
    place = find_answer(text, answer_format, several)
    if place is None:
        return
    assert place.marker in {marker.name for marker in ANSWER_FORMATS[answer_format]}
    assert 0 <= place.lead_in_start < place.start < place.end <= len(text)
    for (start, end), (next_start, _) in pairwise([*place.parts, (len(text) + 1, 0)]):
        assert place.start <= start < end < next_start
        assert text[start:end] == text[start:end].strip()


@pytest.mark.parametrize(
    ("gold", "info", "several"),
    [
        ("1, 3", None, True),
        ("13", None, False),
        ('["1", "3"]', None, True),
        (["1", "3"], {}, True),
        ('["1", " "]', None, False),
        ("1", {"multiple_answers": True}, True),
        (None, "not a mapping", False),
        ("[", {"multiple_answers": None}, False),
    ],
)
def test_a_problem_asks_for_several_answers_for_both_sides(gold: object, info: object, several: bool) -> None:
    assert asks_for_several(gold, info) == several
    pred = compute_score("test", r"\boxed{1}, \boxed{3}", gold, info)["pred"]
    assert pred == ("" if gold is None else normalize_answer("1, 3") if several else "3")


# ---------------------------------------------------------------- single cases


def answer(text: str, answer_format: str = "auto", several: bool = False) -> str | None:
    place = find_answer(text, answer_format, several)
    return None if place is None else answer_text(text, place)


@pytest.mark.parametrize(
    ("text", "content", "lead_in"),
    [
        # Each of these was graded, and IFD scored nothing or something else.
        (r"so \boxed{x=\boxed{5}}", r"x=\boxed{5}", r"\boxed{"),
        (r"so \fbox{5}", "5", r"\fbox{"),
        (r"so \framebox{5}", "5", r"\framebox{"),
        (r"so \boxed 5", "5", r"\boxed "),
        ("so\nAnswer:\n5", "5", "Answer:\n"),
        ("so\nAnswer:\r\n\r\n5\r\nbye", "5", "Answer:\r\n\r\n"),
        ("so\nAnswer:\n\\[\n5\n\\]", "5", "Answer:\n\\[\n"),
        ("so\nAnswer:\n$$\n5\n$$", "5", "Answer:\n$$\n"),
        ("so **Answer**: 5", "5", "Answer**: "),
        ("so __Answer__: 5", "5", "Answer__: "),
        ("so Answer：5", "5", "Answer："),
        ("so Answer:" + "\n" * 11 + "5", "5", "Answer:" + "\n" * 11),
        # Boxes inside one another.
        (r"so \boxed{\boxed{5}}", "5", r"\boxed{\boxed{"),
        (r"so \boxed{ \fbox{ \boxed{5} } }", "5", r"\boxed{ \fbox{ \boxed{"),
        (r"so \boxed{\boxed{2},\boxed{3}}", r"\boxed{2},\boxed{3}", r"\boxed{"),
        (r"so \boxed{$\boxed{5}$}", r"$\boxed{5}$", r"\boxed{"),
        # Boxes that never close are none, and leave those inside them standing.
        (r"\boxed{so \boxed{5}", "5", r"\boxed{"),
        (r"\boxed{6} \boxed{5} \boxed{", "5", r"\boxed{"),
        (r"{so \boxed{5}", "5", r"\boxed{"),
        (r"so} \boxed{5}}", "5", r"\boxed{"),
        # Escaped braces, and a line break before a brace that groups.
        (r"so \boxed{\{5\}}", r"\{5\}", r"\boxed{"),
        (r"so \boxed{\}5\{}", r"\}5\{", r"\boxed{"),
        (r"so \boxed{1\\{2}}", r"1\\{2}", r"\boxed{"),
        ("Answer: 4 \\boxed{5\\}", "4 \\boxed{5\\}", "Answer: "),
        # A box comes before an answer line, wherever it stands.
        ("Answer: 4\nso \\boxed{5}", "5", "\\boxed{"),
        ("so \\boxed{5}\nAnswer: 4", "5", "\\boxed{"),
        ("Answer: 4 and \\boxed 5", "5", "\\boxed "),
        # Thoughts are text like any other.
        ("<think>\\boxed{4}</think>so \\boxed{5}", "5", "\\boxed{"),
        ("<think>\\boxed{5}</think>\nAnswer: 4", "5", "\\boxed{"),
        ("<think>Answer: 4</think>\nAnswer: 5", "5", "Answer: "),
        # Line ends and blanks.
        ("so \\boxed{\r\n5\r\n}\r\n", "5", "\\boxed{\r\n"),
        ("Answer: 5\r\nbye", "5", "Answer: "),
        ("so \\boxed{\u00a05\u3000}", "5", "\\boxed{\u00a0"),
        # A label without an answer leaves the one before it standing.
        ("Answer: 5\nAnswer:", "5", "Answer: "),
        ("**Answer: 5**\n\n**Final Answer:**", "5", "Answer: "),
        # An empty box is a mention of the format.
        (r"\boxed{5} then \boxed{ }", "5", r"\boxed{"),
        ("Answer: 5, that is \\boxed{}", "5, that is \\boxed{}", "Answer: "),
        ("The answer is 5", "5", "The answer is "),
    ],
)  # fmt: skip
def test_content_and_lead_in(text: str, content: str, lead_in: str) -> None:
    place = find_answer(text)
    assert text[place.start : place.end] == answer_text(text, place) == content
    assert text[place.lead_in_start : place.start] == lead_in
    assert compute_score("test", text, "5")["pred"] == normalize_answer(content)
    assert tiny_score("test", text, "5")["acc"] == (content == "5")
    run = scored_run([character.encode() for character in text], several=False)
    assert run == (place.lead_in_start, place.start, place.end)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        r"\boxed",
        r"\boxed{5",
        r"\boxed{5\}",
        r"\boxed{\boxed{}}",
        "Answer:",
        "Answer: ** __",
        "Answer:\nAnswer:",
        "Answer:\nso the final answer:",
        "Answer:" + "\n" * 12 + "5",
        "The answer is not 5",
    ],
)
def test_no_answer(text: str) -> None:
    assert find_answer(text) is None
    assert compute_score("test", text, "5")["status"] == "no_answer"
    assert not tiny_score("test", text, "5")["acc"]
    assert scored_run([character.encode() for character in text], several=False) is None


@pytest.mark.parametrize(
    ("text", "joined", "last"),
    [
        (r"\boxed{1} and \boxed{3}", "1, 3", "3"),
        (r"$\boxed{1}$, $\boxed{2}$ or $\boxed{\boxed{3}}$", "1, 2, 3", "3"),
        (r"\boxed{1};\boxed{3}", "1, 3", "3"),
        (r"\boxed{1} \text{and} \fbox{3}", "1, 3", "3"),
        (r"\boxed{1} then \boxed{3}", "3", "3"),
        (r"\boxed{1} and no \boxed{2}, \boxed{3}", "2, 3", "3"),
        (r"\boxed{1}" + " " * 41 + r"\boxed{3}", "3", "3"),
        (r"\boxed{} and \boxed{3}", "3", "3"),
        (r"\boxed{1} and \boxed{}", "1", "1"),
        (r"\boxed{\boxed{1} and \boxed{3}}", r"\boxed{1} and \boxed{3}", r"\boxed{1} and \boxed{3}"),
        (r"\boxed 1 and \boxed 3", "3", "3"),
    ],
)
def test_boxes_that_form_a_list(text: str, joined: str, last: str) -> None:
    assert answer(text, several=True) == joined
    assert answer(text) == last
    place = find_answer(text, several=True)
    assert [text[start:end] for start, end in place.parts] == joined.split(", ")
    assert text[place.lead_in_start] == "\\"
    assert place.lead_in_start < place.parts[0][0]
    for gold, graded in (('["1", "3"]', joined), ("3", last)):
        result = compute_score("test", text, gold)
        assert result["pred"] == normalize_answer(graded)


def test_formats() -> None:
    text = "Answer: 4\nso \\boxed{5}"
    assert [answer(text, name) for name in ("auto", "boxed", "answer_line")] == ["5", "5", "4"]
    assert answer("Answer: 4", "boxed") is None
    assert answer(r"\fbox{5}", "answer_line") is None
    assert answer("#### 5", "boxed+answer_line") is None
    with pytest.raises(ValueError, match="answer_format is 'box'; choose from auto, boxed, answer_line"):
        find_answer(text, "box")


def test_every_marker_finds_what_a_prompt_that_asks_for_it_shows() -> None:
    shown = {
        "boxed": r"\boxed{5}",
        "answer_line": "Answer: 5",
        "hashes": "#### 5",
        "answer_tag": "<answer>5</answer>",
        "sentence": 'End with: "The final answer is 5."',
        "heading": "**Final Answer**\n\n5",
        "chinese": "答案是5",
    }
    assert set(shown) == {marker.name for marker in MARKERS}
    for marker in MARKERS:
        text = shown[marker.name]
        place = marker.find(text, 0, False)
        assert (place.marker, answer_text(text, place)) == (marker.name, "5")
        assert [other.name for other in MARKERS if other.asked.search(text)] == [marker.name]


def test_tokens_that_never_make_a_character_count_as_they_decode() -> None:
    """A cut-off character at the end, and a long run of stray bytes, which must not cost its square."""
    for raw in (rb"\boxed{5} " + "語".encode()[:2], b"\xe8" * 20_000 + rb"\boxed{5}", b"\xaa" * 20_000 + rb"\boxed{5}"):
        pieces = [bytes([byte]) for byte in raw]
        started = time.process_time()
        assert scored_run(pieces, several=False) == (
            raw.index(b"\\"), raw.index(b"5"), raw.index(b"5") + 1,
        )  # fmt: skip
        assert time.process_time() - started < 20


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 140_000,
        r"\boxed{" * 120_000 + "}" * 120_000,
        r"\boxed{x" * 100_000 + "}" * 100_000,
        r"\boxed{ " * 100_000 + "5" + " }" * 100_000,
        "{" * 10**6,
        "}" * 10**6,
        "\\" * 10**6,
        r"\boxed{" + " " * 10**6 + "}",
        r"\boxed" + " " * 10**6,
        r"\boxed{1}, " * 90_000,
        r"\boxed 1 " * 110_000,
        "Answer: " * 125_000,
        "Answer:\n" * 125_000,
        ("Answer:" + "\n" * 20) * 37_000,
        ("answer **" + " " * 9) * 55_000,
        "answer" + " " * 10**6,
        "Answer:" + "*" * 10**6,
        "#" * 10**6,
        "#### " * 200_000,
        "####\n" * 200_000,
        "#### 1. x\n" * 100_000,
        "<answer>" * 125_000,
        "<answer></answer>" * 60_000,
        "</answer>" * 110_000,
        "the answer is " * 70_000,
        "the answer is not 5. " * 48_000,
        "the answer is x" + "the answer is if" * 60_000,
        ("the answer is " + "\\(" * 240 + "\n") * 2000,
        ("the answer is " + "$" * 481) * 2000,
        ("if the answer to the a b c" + " " * 9) * 28_000,
        "**Final Answer**\n" * 58_000,
        ("## Final Answer" + "\n" * 20) * 28_000,
        "答案是" * 330_000,
        "答案是不" * 250_000,
        ("答案是" + "\\(" * 240) * 2000,
        r"x=\boxed{1}, " * 80_000,
        r"\boxed{ } and " * 70_000,
        r"\boxed{" + "." * 10**6 + "}",
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_a_megabyte_of_anything_is_read_in_one_pass(text: str) -> None:
    started = time.process_time()
    find_answer(text, BOXED.name, several=True)
    for marker in MARKERS:  # together they are the format `auto`
        find_answer(text, marker.name)
    assert time.process_time() - started < 20  # a guard against quadratic growth, not a benchmark


def test_only_the_end_of_a_text_is_searched() -> None:
    assert answer("x" * 2 * MAX_SEARCH_CHARS + "Answer: 5") == "5"
    for marked in (r"\boxed{5}", r"\boxed 5 ", "Answer: 5\n"):
        assert answer(marked + "x" * MAX_SEARCH_CHARS) is None


def test_the_module_needs_nothing_but_the_standard_library() -> None:
    program = (
        "import sys, json, verl_ispo.answers.answer_place, verl_ispo.answers.ground_truth\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
        "print(json.dumps(sorted(name for name in sys.modules if name.startswith('verl_ispo'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded, ours = (json.loads(line) for line in done.stdout.splitlines())
    assert not {"torch", "numpy", "verl", "transformers"} & set(loaded)
    assert ours == [
        "verl_ispo",
        "verl_ispo.answers",
        "verl_ispo.answers.answer_place",
        "verl_ispo.answers.boxes",
        "verl_ispo.answers.ground_truth",
        "verl_ispo.answers.place",
        "verl_ispo.answers.written_markers",
    ]
