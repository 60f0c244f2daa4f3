"""Intervals and tests over problems, against exact calculation, simulation and hand-worked cases.

- **Coverage of the mean's interval.** For 0/1 scores the coverage is computed exactly, not simulated: the interval of
  every possible count c of correct answers, weighted by the binomial probability of c. Nominal is 95 %; the band is
  0.94 to 0.998 (the scores are discrete). A percentile interval at n = 40, p = 0.9 has 0.914 and falls out of it.
- **Coverage for averages** of 16 samples: simulated problems with a beta-distributed difficulty. Samples pooled as if
  they were problems cover less than 60 %.
- **Coverage of the difference's interval** of two equally good methods, exactly again, over all counts of problems that
  only one of them solves.
- **Tests**: McNemar's p-value by counting coin tosses, the sign-flip test by enumerating all signs, Holm's by hand.
- **Flat scores**: bounds worked out by hand.

Not exercised: the coverage of the macro average's interval; more than 95 % as a level.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.examples import examples
from verl_ispo.evaluation.statistics import (
    between_seeds,
    difference_interval,
    holm,
    macro_difference_interval,
    macro_mean_interval,
    mcnemar_exact,
    mean_interval,
    sign_flip_test,
)

LOWEST_COVERAGE, HIGHEST_COVERAGE = 0.94, 0.998


def zeros_and_ones(ones: int, n: int) -> np.ndarray:
    return np.repeat([1.0, 0.0], [ones, n - ones])


@pytest.mark.parametrize("n", [30, 40])
def test_exact_coverage_of_the_mean_for_right_and_wrong_answers(n: int):
    intervals = [mean_interval(zeros_and_ones(ones, n)) for ones in range(n + 1)]
    for p in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9):
        covers = [interval.low - 1e-9 <= p <= interval.high + 1e-9 for interval in intervals]
        coverage = float(stats.binom.pmf(np.arange(n + 1), n, p) @ covers)
        assert LOWEST_COVERAGE <= coverage <= HIGHEST_COVERAGE, (n, p, coverage)


def test_the_percentile_interval_of_a_mean_would_fail_that_band():
    n, p, coverage = 40, 0.9, 0.0
    for ones in range(n + 1):
        scores = zeros_and_ones(ones, n)
        low, high = np.quantile(np.random.default_rng(0).choice(scores, (4000, n)).mean(1), [0.025, 0.975])
        coverage += stats.binom.pmf(ones, n, p) * (low - 1e-9 <= p <= high + 1e-9)
    assert coverage < LOWEST_COVERAGE


def test_coverage_of_an_average_of_samples_by_simulation():
    rng = np.random.default_rng(7)
    problems, samples, trials = 40, 16, 200
    hits = pooled_hits = 0
    for _ in range(trials):
        difficulty = rng.beta(0.5, 0.8, problems)
        correct = rng.random((problems, samples)) < difficulty[:, None]
        interval = mean_interval(correct.mean(1))
        hits += interval.low <= 0.5 / 1.3 <= interval.high
        pooled = stats.binomtest(int(correct.sum()), correct.size).proportion_ci(0.95)
        pooled_hits += pooled.low <= 0.5 / 1.3 <= pooled.high
    # 95 % of 200 is 190 with a standard error of 3.1; three of them either way
    assert 181 <= hits <= 199
    # samples pooled as if they were problems: what this interval must not be
    assert pooled_hits < 120


@pytest.mark.parametrize(("n", "discordant_share"), [(30, 0.1), (50, 0.06), (50, 0.2)])
def test_exact_coverage_of_the_difference_of_equally_good_methods(n: int, discordant_share: float):
    coverage = total = 0.0
    for discordant in range(n + 1):
        weight = stats.binom.pmf(discordant, n, discordant_share)
        if weight < 1e-3:
            continue
        for only_first in range(discordant + 1):
            part = weight * stats.binom.pmf(only_first, discordant, 0.5)
            first = np.repeat([1.0, 0.0, 0.0], [only_first, discordant - only_first, n - discordant])
            second = np.repeat([0.0, 1.0, 0.0], [only_first, discordant - only_first, n - discordant])
            interval = difference_interval(first, second)
            coverage += part * (interval.low - 1e-9 <= 0.0 <= interval.high + 1e-9)
            total += part
    assert LOWEST_COVERAGE <= coverage / total <= HIGHEST_COVERAGE


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30).filter(lambda counts: len(set(counts)) > 1))
@settings(max_examples=examples(15))
def test_intervals_hold_the_mean_repeat_exactly_and_ignore_the_order_of_pairs(counts: list[int]):
    scores = np.array(counts) / 4
    interval = mean_interval(scores)
    assert 0.0 <= interval.low <= scores.mean() + 1e-12
    assert scores.mean() - 1e-12 <= interval.high <= 1.0
    assert mean_interval(scores) == interval
    mirrored = difference_interval(np.zeros_like(scores), scores)
    forward = difference_interval(scores, np.zeros_like(scores))
    assert mirrored.low == pytest.approx(-forward.high, abs=1e-9)


def test_all_wrong_or_all_right_has_the_exact_binomial_bound():
    # no correct answer in n: the bound p solves (1 - p)^n = 0.025
    bound = 1 - 0.025 ** (1 / 30)
    none, every = mean_interval(np.zeros(30)), mean_interval(np.ones(30))
    assert (none.low, none.high) == (0.0, pytest.approx(bound))
    assert (every.low, every.high) == (pytest.approx(1 - bound), 1.0)
    assert none.method == "clopper_pearson"
    assert mean_interval([1.0]).low == pytest.approx(0.025)


def test_one_common_score_between_has_no_interval():
    assert mean_interval([0.5, 0.5, 0.5]) is None
    assert macro_mean_interval([[0.5, 0.5], [1.0, 1.0]]) is None
    assert difference_interval([0.5, 0.5], [0.25, 0.25]) is None


def test_rounding_left_by_averaging_seeds_is_no_spread():
    thirds = np.array([0.1 + 0.2, 0.3, 0.3])  # 0.30000000000000004
    assert mean_interval(thirds) is None


def test_no_discordant_problem_leaves_room_for_a_difference():
    same = difference_interval(np.ones(30), np.ones(30))
    assert same.high == -same.low == pytest.approx(1 - 0.05 ** (1 / 30))
    assert difference_interval(np.ones(30), np.zeros(30)).high == 1.0
    assert difference_interval(np.zeros(30), np.ones(30)).low == -1.0


def test_the_macro_mean_weighs_benchmarks_and_not_problems():
    small, large = np.array([1.0, 0.0]), np.repeat([0.0, 1.0], [900, 100])
    interval = macro_mean_interval([small, large])
    assert interval.low < 0.3 < interval.high  # mean of 0.5 and 0.1
    pooled = mean_interval(np.concatenate([small, large]))
    assert pooled.high < 0.2  # which is what weighing problems would give


def test_a_paired_interval_is_narrower_than_the_difference_of_two_unpaired_ones():
    rng = np.random.default_rng(3)
    baseline = (rng.random(100) < 0.5).astype(float)
    better = np.maximum(baseline, rng.random(100) < 0.3)
    interval = difference_interval(better, baseline)
    separate = mean_interval(better)
    assert interval.low > 0
    assert interval.high - interval.low < separate.high - separate.low


def test_mcnemar_counts_coin_tosses():
    # 7 problems only the first solves, 1 only the second: p = 2 (C(8,0) + C(8,1)) / 2^8
    first = np.array([1] * 7 + [0] + [1] * 5 + [0] * 5)
    second = np.array([0] * 7 + [1] + [1] * 5 + [0] * 5)
    test = mcnemar_exact(first, second)
    assert (test.only_first, test.only_second) == (7, 1)
    assert test.p_value == pytest.approx(2 * (1 + 8) / 256)
    assert mcnemar_exact(second, first).p_value == pytest.approx(test.p_value)
    assert mcnemar_exact([1, 0], [1, 0]).p_value == 1.0


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=12))
def test_mcnemar_is_the_share_of_tosses_at_least_as_uneven(answers: list[tuple[int, int]]):
    first, second = zip(*answers, strict=True)
    only_first = sum(a > b for a, b in answers)
    discordant = sum(a != b for a, b in answers)
    uneven = abs(2 * only_first - discordant)
    tosses = [abs(2 * k - discordant) >= uneven for k in range(discordant + 1)]
    expected = sum(math.comb(discordant, k) for k in range(discordant + 1) if tosses[k]) / 2**discordant
    assert mcnemar_exact(first, second).p_value == pytest.approx(expected)


def test_the_sign_flip_test_enumerates_all_signs():
    first, second = np.array([0.75, 1.0, 0.5, 1.0, 0.25]), np.array([0.5, 0.25, 0.75, 0.25, 0.25])
    differences = first - second
    seen = abs(differences.sum())
    # the fifth difference is 0, so 2^4 patterns tell
    sums = [abs(np.dot(signs, differences[:4])) for signs in itertools.product([1, -1], repeat=4)]
    test = sign_flip_test([(first, second)])
    assert test.p_value == pytest.approx(np.mean([value >= seen - 1e-12 for value in sums]))
    assert (test.only_first, test.only_second) == (3, 1)
    assert sign_flip_test([(first, first)]).p_value == 1.0


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, then never falling
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5]) == [0.5]
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_seeds_have_a_mean_and_a_spread_and_are_no_problems():
    mean, deviation = between_seeds([0.2, 0.3, 0.4])
    assert (mean, deviation) == (pytest.approx(0.3), pytest.approx(0.1))
    assert between_seeds([0.2]) == (0.2, None)
    # three seeds that agree on every problem leave the interval as it is: still 30 problems
    scores = zeros_and_ones(9, 30)
    assert mean_interval(np.mean([scores, scores, scores], axis=0)) == mean_interval(scores)


@pytest.mark.parametrize(
    "calculate",
    [
        lambda: mean_interval([0.5, float("nan")]),
        lambda: mean_interval([]),
        lambda: mean_interval([0.5, 1.5]),
        lambda: mean_interval([[0.5], [0.2]]),
        lambda: difference_interval([0.5, 0.2], [0.5]),
        lambda: macro_difference_interval([([0.5], [float("inf")])]),
        lambda: mcnemar_exact([0.5], [1.0]),
        lambda: holm([0.5, float("nan")]),
        lambda: holm([1.5]),
        lambda: between_seeds([]),
        lambda: between_seeds([float("nan")]),
    ],
)
def test_nonsense_is_refused(calculate):
    with pytest.raises(ValueError, match=r"\w"):
        calculate()
