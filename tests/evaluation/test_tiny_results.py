"""Tables and statistics of very few problems, samples and seeds: a number, or a stated gap, and never an exception.

What goes wrong in general: a library's function asks for two observations, or divides by a spread of 0, where a
benchmark has one problem, two methods differ on one, all problems score the same, or there is one sample or one seed.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.conftest import ResultWriter
from tests.examples import examples
from verl_ispo import cli
from verl_ispo.evaluation.statistics import (
    Interval,
    between_seeds,
    difference_interval,
    holm,
    macro_difference_interval,
    macro_mean_interval,
    mcnemar_exact,
    mean_interval,
    sign_flip_test,
)

few_scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=4)
few_pairs = st.lists(st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * 2), min_size=1, max_size=4)
SLACK = 1e-12


def is_an_interval(interval: Interval | None, low: float, mean: float) -> bool:
    """None, or finite ends around the mean, in [low, 1]."""
    return interval is None or (
        low - SLACK <= interval.low <= mean + SLACK <= interval.high + 2 * SLACK <= 1 + 3 * SLACK
    )


@given(few_scores, few_scores)
@settings(max_examples=examples(60))
def test_intervals_of_few_scores_hold_their_mean(scores: list[float], more: list[float]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, other = sum(scores) / len(scores), sum(more) / len(more)
        assert is_an_interval(mean_interval(scores), 0.0, mean)
        assert is_an_interval(macro_mean_interval([scores, more]), 0.0, (mean + other) / 2)
        assert is_an_interval(macro_mean_interval([scores]), 0.0, mean)


@given(few_pairs, few_pairs)
@settings(max_examples=examples(25))
def test_comparisons_of_few_pairs_give_a_probability(pairs: list[tuple[float, float]], more: list[tuple[float, float]]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (first, second), others = zip(*pairs, strict=True), tuple(zip(*more, strict=True))
        for benchmarks in ([(first, second)], [(first, second), others]):
            test = sign_flip_test(benchmarks)
            assert 0.0 < test.p_value <= 1.0
            assert test.only_first == sum(a > b for one, two in benchmarks for a, b in zip(one, two, strict=True))
            assert test.only_second == sum(a < b for one, two in benchmarks for a, b in zip(one, two, strict=True))
            means = [sum(one) / len(one) - sum(two) / len(two) for one, two in benchmarks]
            assert is_an_interval(macro_difference_interval(benchmarks), -1.0, sum(means) / len(means))
        assert is_an_interval(
            difference_interval(first, second), -1.0, sum(first) / len(first) - sum(second) / len(second)
        )
        if {*first, *second} <= {0.0, 1.0}:
            assert mcnemar_exact(first, second).p_value >= sign_flip_test([(first, second)]).p_value - SLACK


def test_one_problem_that_tells_two_methods_apart_proves_nothing():
    """Either of them would be ahead with probability 1/2: p is 1, and the problem is counted."""
    for first, second in (([1.0], [0.0]), ([0.75, 0.5, 0.5], [0.25, 0.5, 0.5])):
        test = sign_flip_test([(first, second)])
        assert (test.p_value, test.only_first, test.only_second) == (1.0, 1, 0)
        assert sign_flip_test([(second, first)]).p_value == 1.0
        assert sign_flip_test([(first, second), ([0.5] * 3, [0.5] * 3)]).p_value == 1.0


@given(few_pairs)
@settings(max_examples=examples(40))
def test_the_sign_flip_test_of_few_pairs_is_the_share_of_patterns(pairs: list[tuple[float, float]]):
    differences = [first - second for first, second in pairs if first != second]
    seen = sum(differences)
    sums = [sum(sign * d for sign, d in zip(signs, differences, strict=True))
            for signs in itertools.product((1, -1), repeat=len(differences))]  # fmt: skip
    above, below = (sum(s >= seen - SLACK for s in sums), sum(s <= seen + SLACK for s in sums))
    expected = min(1.0, 2 * min(above, below) / len(sums))
    assert sign_flip_test([tuple(zip(*pairs, strict=True))]).p_value == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_few_seeds_have_a_mean_and_a_deviation_from_two_on(scores: list[float]):
    mean, deviation = between_seeds(scores)
    assert mean == pytest.approx(sum(scores) / len(scores))
    assert (deviation is None) is (len(scores) == 1)
    assert deviation is None or (math.isfinite(deviation) and deviation >= 0)


@pytest.mark.parametrize("p_values", [[], [0.0], [1.0], [0.5, 0.5], [1.0, 0.02]])
def test_holm_of_one_or_two_p_values(p_values: list[float]):
    adjusted = holm(p_values)
    assert all(0.0 <= p <= q <= 1.0 for p, q in zip(p_values, adjusted, strict=True))


ONE, TWO = {"aime24": "1"}, {"aime24": "10"}
TINY = {
    "one problem, equal": [("GRPO", ONE, None, None), ("ISPO", ONE, None, None)],
    "one problem, different": [("GRPO", ONE, None, None), ("ISPO", {"aime24": "0"}, None, None)],
    "one problem of two differs": [("GRPO", TWO, None, None), ("ISPO", {"aime24": "11"}, None, None)],
    "one sample, one problem differs": [
        ("GRPO", TWO, {"aime24": ["1", "0"]}, None), ("ISPO", TWO, {"aime24": ["1", "1"]}, None)],
    "one of thirty differs by one sample": [
        ("GRPO", {"aime24": "0" * 30}, {"aime24": ["0000"] * 30}, None),
        ("ISPO", {"aime24": "0" * 30}, {"aime24": ["0000"] * 29 + ["0100"]}, None)],
    "several seeds, one problem differs": [
        ("GRPO", TWO, None, 1), ("GRPO", TWO, None, 2), ("ISPO", {"aime24": "11"}, None, 1)],
    "two benchmarks of one problem": [
        ("GRPO", {"aime24": "1", "amc23": "0"}, {"aime24": ["1"], "amc23": ["0"]}, None),
        ("ISPO", {"aime24": "1", "amc23": "1"}, {"aime24": ["1"], "amc23": ["1"]}, None)],
    "all correct, all incorrect": [
        ("GRPO", {"aime24": "1111"}, {"aime24": ["11"] * 4}, None),
        ("ISPO", {"aime24": "0000"}, {"aime24": ["00"] * 4}, None)],
    "alone": [("GRPO", ONE, {"aime24": ["1"]}, None)],
}  # fmt: skip


@pytest.mark.parametrize("kind", TINY)
def test_the_table_of_tiny_results(
    kind: str, write_result: ResultWriter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folders = [
        write_result(f"r{index}", greedy, sampled, method=method, training_seed=seed)
        for index, (method, greedy, sampled, seed) in enumerate(TINY[kind])
    ]
    assert cli.main(["table", *map(str, folders), "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "table.md", "scores.csv", "comparisons.csv", "table.tex",
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert not re.search(r"\bnan\b", shown)
    if "differ" in kind:
        assert "1.000" in (tmp_path / "out" / "table.md").read_text()
