"""Whether a text holds an answer already: hand-judged rows, and properties on generated ones."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from verl_ispo.probe.answer_in_text import is_number_of, states


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("12 + 7 = 19. The answer is ", "19", True),
        ("12 + 7 = 19.0. The answer is ", "19", True),
        ("so we get $19$.", "19.", True),
        ("there are 1,200 of them", "1200", True),
        ("it is 190 or 119", "19", False),
        ("it is 1.19", "19", False),
        ("the temperature falls by 5", "-5", True),
        ("so x = \\frac{1}{2} here", "\\frac{1}{2}", True),
        ("the set {a, b}", "a", True),
        ("a banana", "nan", False),
        ("Paris, the capital", "Paris", True),
        ("", "19", False),
        ("19", "", False),
        ("19", " $ ", False),
        ("x" * 100, "x" * 100, True),
        ("x" * 300, "x" * 300, False),
    ],
)
def test_a_text_states_an_answer(text: str, answer: str, expected: bool) -> None:
    assert states(text, answer) is expected


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("Tom has 14 apples and buys 3.", "14", True),
        ("Tom has 14 apples and buys 3.", "3.00", True),
        ("Tom has 14 apples and buys 3.", "4", False),
        ("Tom has fourteen apples.", "14", False),
        ("Which city?", "Paris", False),
    ],
)
def test_a_number_of_the_question(question: str, answer: str, expected: bool) -> None:
    assert is_number_of(question, answer) is expected


@given(before=st.text(max_size=20), number=st.integers(0, 10**9), after=st.text(max_size=20))
@settings(max_examples=examples(50))
def test_a_whole_number_is_found_wherever_it_stands(before: str, number: int, after: str) -> None:
    """What goes wrong: an answer is found by its place in a form of words, and missed in another."""
    assert states(f"{before} {number} {after}", str(number))


@given(text=st.text(max_size=40), answer=st.text(max_size=12))
@settings(max_examples=examples(100))
def test_no_text_is_an_error(text: str, answer: str) -> None:
    """What goes wrong: digits of other scripts, signs and separators are numbers to one reader and none to another."""
    assert isinstance(states(text, answer), bool)
    assert isinstance(is_number_of(text, answer), bool)


@pytest.mark.parametrize("text", ["1" * 10**6, "1," * 10**6, "a" * 10**6, "1." * 10**6], ids=["1", "1,", "a", "1."])
def test_a_long_text_takes_little_time(text: str) -> None:
    started = time.process_time()
    states(text, "7")
    states(text, "ab")
    assert time.process_time() - started < 2.0
