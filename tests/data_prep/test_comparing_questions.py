r"""Decontamination and near duplicates against plain reference code.

Derivation. Both use hashes and sorted arrays for speed. Here the same rules are written down with tuples and sets, and
on small alphabets, where runs collide often, both must agree. For near duplicates MinHash may miss a pair with a small
probability (4 in 10,000 at the threshold), so agreement is required for the pairs that it proposes, and for planted
pairs well above the threshold.

Not exercised: the rate of misses.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_problems import problem

from data_prep.decontamination import MIN_CONTAINED_WORDS, BenchmarkIndex, BenchmarkQuestions
from data_prep.near_duplicates import THRESHOLD, find_near_duplicates
from data_prep.text_normalization import normalized_texts
from tests.examples import examples

WORDS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=14).map(" ".join)


def overlap(training: list[str], benchmark: list[str], n: int) -> float:
    """The larger of the shares of words that lie in a shared run of n words (or of the whole, if that is shorter)."""
    n = min(n, len(benchmark))
    in_training, in_benchmark = set(), set()
    for i in range(len(training) - n + 1):
        for j in range(len(benchmark) - n + 1):
            if training[i : i + n] == benchmark[j : j + n]:
                in_training.update(range(i, i + n))
                in_benchmark.update(range(j, j + n))
    return max(len(in_training) / len(training), len(in_benchmark) / len(benchmark))


def is_contaminated(training: list[str], benchmark: list[str], n: int, min_overlap: float) -> bool:
    if len(benchmark) < min(n, MIN_CONTAINED_WORDS):
        return training == benchmark
    share = overlap(training, benchmark, n)
    return share > 0 and share >= min_overlap


@settings(max_examples=examples(200))
@given(
    training=st.lists(WORDS, min_size=1, max_size=5),
    benchmark=st.lists(WORDS, min_size=1, max_size=5),
    n=st.integers(5, 9),
    min_overlap=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_contamination_agrees_with_the_rule_as_written(training, benchmark, n, min_overlap):
    index = BenchmarkIndex([BenchmarkQuestions("made", benchmark, {})], n, min_overlap)
    found = {match.text: match for match in index.matches(normalized_texts(training)) if match.contaminated}
    expected = {
        number
        for number, text in enumerate(training)
        if any(is_contaminated(text.split(), question.split(), n, min_overlap) for question in benchmark)
    }
    assert set(found) == expected
    for number, match in found.items():
        best = max(
            overlap(training[number].split(), question.split(), n)
            for question in benchmark
            if is_contaminated(training[number].split(), question.split(), n, min_overlap)
        )
        assert match.overlap == round(best, 3)
        assert f" {match.shared_words} " in f" {training[number]} "
        assert f" {match.shared_words} " in f" {match.benchmark_question} "


def test_a_formula_is_no_contamination_and_any_run_is_if_wanted():
    tail = "can be written as m over n where m and n are relatively prime positive integers find m plus n"
    benchmark = BenchmarkQuestions("made", [f"{problem(1)} It {tail}"], {})
    training = normalized_texts([f"{problem(2)} The ratio {tail}", problem(3)])
    (match,) = BenchmarkIndex([benchmark]).matches(training)
    assert (match.text, match.contaminated) == (0, False)
    (match,) = BenchmarkIndex([benchmark], min_overlap=0.0).matches(training)
    assert match.contaminated


def test_a_short_benchmark_question_counts_if_contained_and_a_tiny_one_if_equal():
    index = BenchmarkIndex([BenchmarkQuestions("made", ["Evaluate $(1+2i)6-3i$ now", "Simplify $\\sqrt{242}$."], {})])
    training = [
        "Please evaluate $(1+2i)6-3i$ now!",
        "simplify \\(\\sqrt{242}\\)",
        "Simplify $\\sqrt{242}$ twice",
        "Evaluate",
    ]
    assert [match.text for match in index.matches(normalized_texts(training)) if match.contaminated] == [0, 1]


def jaccard(one: str, other: str) -> float:
    def shingles(text):
        words = text.split()
        return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}

    return len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))


def near(texts: list[str]) -> list[tuple[int, int, float]]:
    batches = [(np.arange(len(texts)), pa.array(texts, pa.string()))]
    return find_near_duplicates(batches, len(texts)).pairs


@settings(max_examples=examples(100))
@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=3, max_size=12).map(" ".join), max_size=8))
def test_reported_pairs_are_near_and_equal_texts_are_reported(texts):
    pairs = near(texts)
    assert pairs == sorted(set(pairs))
    for first, second, similarity in pairs:
        assert first < second
        assert similarity == pytest.approx(jaccard(texts[first], texts[second]), abs=1e-4)
        assert similarity >= THRESHOLD
    equal = {(i, j) for i in range(len(texts)) for j in range(i + 1, len(texts)) if texts[i] == texts[j]}
    assert equal <= {(first, second) for first, second, _ in pairs}


def test_planted_near_duplicates_are_all_found_among_many():
    texts = normalized_texts([problem(number) for number in range(500)]).to_pylist()
    planted = [(number, len(texts) + index) for index, number in enumerate(range(10, 500, 25))]
    texts += [texts[number] + " again" for number, _ in planted]
    expected = {pair for pair in planted if jaccard(texts[pair[0]], texts[pair[1]]) >= 0.9}
    assert len(expected) == 20
    assert {(first, second) for first, second, _ in near(texts)} == expected


def test_the_result_does_not_depend_on_the_batches():
    texts = [f"one two three four five six seven {'x' * (i % 3)}" for i in range(12)] + ["too short"]
    whole = near(texts)
    batches = [(np.arange(i, min(i + 5, 13)), pa.array(texts[i : i + 5])) for i in range(0, 13, 5)]
    assert find_near_duplicates(batches, 13).pairs == whole
    assert whole
