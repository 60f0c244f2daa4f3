r"""Where a text first states an answer: as a whole number or word, never as a part of another.

What goes wrong in general: a digit inside a longer number counts as a statement, so that a trace is cut where it says
nothing; or a statement in other dress (thousands, a dollar sign, capitals) is passed over, so that a trace that has
said the answer counts as reasoning.

Derivation: rows judged by hand, and for integers a reference that reads whole numbers off the text one by one.

Not exercised: equal values in other spellings (1/2 and 0.5), which are not looked for.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from verl_ispo.answers.statement import MAX_STATED_CHARS, first_statement

FOUND = [  # text, answer, what begins where the statement begins
    ("312 and then 12.", "12", "12."),
    ("12.5, 1/12, 12/5, -12, x=12", "12", "12"),
    ("it is $12$", "12", "12$"),
    ("it is \\(12\\) or so", "12", "12\\"),
    ("10-5=5", "5", "5"),
    ("x = -5", "-5", "-5"),
    ("x = \u22125", "-5", "\u22125"),
    ("1,000 km", "1000", "1,000"),
    ("1{,}000 km", "1,000", "1{,}000"),
    ("so $18 in all", r"\$18", "18 in"),
    ("some 5% of it", r"5\%", "5%"),
    ("5x, 5cm, 5th, 5_1, then 5", "5", "5"),
    (r"\sqrt{5}, \frac{5}{2}, \frac{2}{5}, x^5, x^{5}, 5^2, 5\pi, 5", "5", "5"),
    ("3.14 is it", "3.14", "3.14 is"),
    ("答案是5。", "5", "5。"),
    ("PARIS it is", r"\text{Paris}", "PARIS"),
    ("the Eiffel\n tower", "Eiffel Tower", "Eiffel"),
    ("a plan: A", "A", "A"),
    (r"1/2 or \frac{1}{2}", r"\frac{1}{2}", r"\frac"),
    ("东京 是 东京", "东京", "东京 是"),
]
NOT_FOUND = [
    ("312, 120, 1 2, 12.5, 1.12, .12, 0,12", "12"),
    ("-12, (-12), = -12, x^12", "12"),
    ("10-5 and f(x)-5", "-5"),
    ("12", "twelve"),
    ("comparison", "Paris"),
    ("non-Paris", "Paris"),
    ("a b c", "A"),
    ("10,000", "10"),
    (r"-\frac{1}{2}, 3\frac{1}{2}", r"\frac{1}{2}"),
    ("100", "1e2"),
    ("anything", ""),
    ("anything", "$ $"),
    ("x" * (MAX_STATED_CHARS + 1), "x" * (MAX_STATED_CHARS + 1)),
]


@pytest.mark.parametrize(("text", "answer", "begins"), FOUND)
def test_stated(text: str, answer: str, begins: str) -> None:
    position = first_statement(text, [answer], len(text))
    assert position is not None
    assert text[position:].startswith(begins)
    # the last character of the statement belongs to it
    assert first_statement(text, [answer], position) is None


@pytest.mark.parametrize(("text", "answer"), NOT_FOUND)
def test_not_stated(text: str, answer: str) -> None:
    assert first_statement(text, [answer], len(text)) is None


def test_a_list_is_stated_with_its_last_part() -> None:
    text = "first 1, then 3, and 1 again"
    assert first_statement(text, ["3", "1"], len(text)) == text.index("3")
    assert first_statement(text, ["1", "4"], len(text)) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 130), st.sampled_from([" ", ", ", ".", ". ", " + ", "=", "\n", "$", "x", " (", ") "]))
    ),
    st.integers(0, 130),
)
@settings(max_examples=examples(300))
def test_a_whole_number_and_no_part_of_one(pieces: list[tuple[int, str]], answer: int) -> None:
    text = "".join(f"{number}{between}" for number, between in pieces)
    # A number with its decimals, and letters and points that touch it.
    whole = [match for match in re.finditer(r"[\w.]*\d[\w.]*", text) if re.fullmatch(rf"{answer}\.?", match.group())]
    expected = whole[0].start() if whole else None
    assert first_statement(text, [str(answer)], len(text)) == expected


@given(
    st.text(alphabet="12 -.,/$\\{}^_ax中", max_size=40),
    st.text(alphabet="12 -.,/$\\{}^_ax中", max_size=6),
    st.integers(0, 40),
)
@settings(max_examples=examples(300))
def test_any_text(text: str, answer: str, end: int) -> None:
    """A statement lies before the end; a later end changes nothing; no answer is an error."""
    found = first_statement(text, [answer], min(end, len(text)))
    if found is not None:
        assert 0 <= found < end
        assert text[found] == "\u2212" or text[found].casefold() in answer.casefold()


@pytest.mark.parametrize("text", ["12 " * 100_000, "1" * 300_000, " " * 300_000, "\\frac{" * 50_000])
def test_hostile_lengths(text: str) -> None:
    for answer in ("13", "1 " * 90 + "2", "\\frac{" * 30, "$" * 200):
        first_statement(text, [answer], len(text))
