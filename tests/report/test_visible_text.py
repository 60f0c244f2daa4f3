"""Nothing that a model writes may be invisible, reorder its neighbours, or be endless.

Not exercised: what fonts do with letters of every script.
"""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ispo.report.visible_text import visible


@given(st.text(alphabet=st.characters(), max_size=80), st.integers(1, 60))
def test_all_that_is_left_can_be_seen(text: str, max_chars: int):
    shown = visible(text, max_chars)
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert len(shown) <= 10 * max_chars + 40


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_plain_text_stays_as_it_is(text: str):
    assert visible(text, 60) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc", "a↵b⇥c"),
        ("\x00\x1b[31m\x7f", "␀␛[31m␡"),
        ("\u202eevil\u2066", "‹U+202E›evil‹U+2066›"),
        ("zero\u200bwidth\ufeff", "zero‹U+200B›width‹U+FEFF›"),
        ("\ud800", "‹U+D800›"),
        ("\u2028", "‹U+2028›"),
        ("e" + "\u0301" * 5, "e" + "\u0301" * 3 + "‹U+0301›" * 2),
        ("عربي 漢字 😀", "عربي 漢字 😀"),
    ],
)
def test_invisible_characters_get_a_sign(text: str, shown: str):
    assert visible(text, 60) == shown


def test_long_text_is_cut_and_counted():
    assert visible("x" * 5000, 10) == "x" * 10 + "…(+4,990 characters)"
