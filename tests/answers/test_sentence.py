r"""Where the sentence or line begins that holds an answer's marker.

What goes wrong in general: a decimal point ends a sentence, a line break does not, or the beginning depends on how
much of the text was read.

Derivation: rows judged by hand; for the last fault any text is cut anywhere, and a shorter piece has to give the same
beginning or say that it cannot tell.

Not exercised: abbreviations ("e.g. 5"), behind which a sentence begins too.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from verl_ispo.answers.answer_place import find_answer
from verl_ispo.answers.sentence import MAX_SENTENCE_CHARS, sentence_start


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        ("6*7 = 42. ", "So it is $"),
        ("6*7 = 42.\n", "So it is $"),
        ("6*7 = 42\n\n  ", ""),
        ("", "We get 3.5 * 2, e.g.7, so "),
        ("  ", "We get "),
        ("Is it? ", "Yes: "),
        ("It is (surely.) ", "Then "),
        ("It is $x = 2.$ ", "Then "),
        ("是这样的。", "答案是"),
        ("so 5</think>", "The answer is "),
        ("1. one\n2. ", "two "),
    ],
)
def test_by_hand(before: str, sentence: str) -> None:
    text = before + sentence + r"\boxed{7}. And so on."
    place = find_answer(text)
    assert place is not None
    start = sentence_start(text, place.lead_in_start, is_whole=True)
    assert text[:start] == before
    assert text[start : place.closing] == sentence + r"\boxed{7}"


def test_a_run_of_words_without_an_end_is_no_sentence() -> None:
    text = "word " * MAX_SENTENCE_CHARS
    assert sentence_start(text, MAX_SENTENCE_CHARS + 1, is_whole=True) == MAX_SENTENCE_CHARS + 1
    assert sentence_start(text, MAX_SENTENCE_CHARS, is_whole=True) == 0
    assert sentence_start(text, MAX_SENTENCE_CHARS, is_whole=False) is None


@given(st.text(alphabet='a.!? \n"*$。<think>/', max_size=40), st.integers(0, 40))
@settings(max_examples=examples(300))
def test_how_much_is_read_changes_nothing(text: str, cut: int) -> None:
    whole = sentence_start(text, len(text), is_whole=True)
    assert 0 <= whole <= len(text)
    assert whole == len(text) or not text[whole].isspace()
    cut = min(cut, len(text))
    part = sentence_start(text[cut:], len(text) - cut, is_whole=False)
    assert part is None or part + cut == whole


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        (r"so $\boxed{42}$.", r"\boxed{42}"),
        (r"\boxed{\boxed{ 42 }} it is", r"\boxed{\boxed{ 42 }}"),
        (r"so \boxed 42.", r"\boxed 42"),
        (r"x=\boxed{1}, y=\boxed{2}.", r"x=\boxed{1}, y=\boxed{2}"),
        ("so\nAnswer: 42\nbye", "Answer: 42"),
        ("so #### 42", "#### 42"),
        ("so <answer> 42 </answer> bye", "<answer> 42 </answer>"),
        ("The final answer is 42. Bye.", "The final answer is 42"),
    ],
)
def test_a_marker_ends_with_what_closes_it(text: str, marked: str) -> None:
    place = find_answer(text, several=True)
    assert place is not None
    assert text[place.lead_in_start : place.closing] == marked
