r"""Normal forms of questions: what they remove, and what they must keep.

Derivation. Two spellings of one problem differ in delimiters, spacing, typographic quotes and invisible characters;
they must have the same normalized text. Two problems that differ in a sign, a digit or an operator must not.
N-gram hashes are checked against a plain loop over the words.

Not exercised: synonyms and rewordings, which no normal form can unite.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.text_normalization import ngram_hashes, normalized_texts, word_hashes, word_lists


def normal(text: str) -> str:
    return normalized_texts([text])[0].as_py()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Find $x$.", "Find \\( x \\)"),
        ("Find $$x$$!", "find   x?"),
        (r"\left( \dfrac{1}{2} \right)", r"(\frac{1}{2})"),
        (r"\dfrac12", r"\frac{1}{2}"),
        ("“smart” ‘quotes’ – dash", "\"smart\" 'quotes' - dash"),
        ("zero\u200bwidth \u202eright-to-left", "zerowidth right-to-left"),
        (r"a\,b\quad c", "a b c"),
        ("x - 5", "x-5"),
        ("caf\u00e9", "cafe\u0301"),
        (r"a \leq b", r"a \le b"),
        ("one\n\n two", "one two"),
    ],
)
def test_spellings_of_one_problem_meet(one, other):
    assert normal(one) == normal(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x - 5", "x + 5"),
        ("1 1/2 + x", "11/2 + x"),
        ("Find 10² mod 7", "Find 102 mod 7"),
        ("x_1", "x_2"),
        ("a < b", "a > b"),
        ("f(x)", "f[x]"),
        (r"\sin x", r"\cos x"),
        ("is 3! even", "is 3 even"),
    ],
)
def test_different_problems_stay_apart(one, other):
    assert normal(one) != normal(other)


@given(st.text())
def test_normalizing_twice_changes_nothing_more_for_plain_text(text):
    plain = "".join(character for character in text if character.isalnum() or character in " +-=<>()")
    assert normal(normal(plain)) == normal(plain)


@given(st.lists(st.text(), max_size=5))
def test_a_text_is_normalized_alike_alone_and_among_others(texts):
    assert normalized_texts(texts).to_pylist() == [normal(text) for text in texts]


def test_lone_surrogates_do_not_stop_it():
    assert normal("a\ud800b") == "a?b"


def test_words():
    words = word_lists(normalized_texts([r"Find $\frac{2x}{3}$, 求最大值 of AB_1.", ""])).to_pylist()
    assert words == [["find", "frac", "2", "x", "3", "求", "最", "大", "值", "of", "ab", "1"], [""]]


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "c", "dd"]), min_size=1, max_size=8), max_size=6), st.integers(1, 5)
)
def test_ngram_hashes_agree_with_a_plain_loop(texts, n):
    lists = pa.array(texts, pa.list_(pa.string()))
    runs, text_of_run, starts = ngram_hashes(*word_hashes(lists), n)
    expected = [(t, p, tuple(words[p : p + n])) for t, words in enumerate(texts) for p in range(len(words) - n + 1)]
    assert [(t, p) for t, p, _ in expected] == list(zip(text_of_run.tolist(), starts.tolist(), strict=True))
    by_hash = dict(zip(runs.tolist(), (run for _, _, run in expected), strict=True))
    assert [by_hash[run] for run in runs.tolist()] == [run for _, _, run in expected]
    assert len(by_hash) == len({run for _, _, run in expected})


def test_hashes_do_not_depend_on_the_batch():
    alone, _ = word_hashes(pa.array([["seven"]]))
    among, _ = word_hashes(pa.array([["one", "two"], ["seven"]]))
    assert alone[0] == among[2]
    assert alone.dtype == np.uint64
