"""pass@k, G-Pass@k, avg@k and maj@k of one problem, against their definitions.

- pass@k is the share of all subsets of k samples that hold a correct one: every subset is enumerated, for n up to 8.
- G-Pass@k_tau is the share of those that hold at least tau * k correct ones, and mG-Pass@k its integral: both by the
  same enumeration, the integral by a fine grid that no jump falls on.
- pass@k is unbiased: its mean over binomial outcomes is 1 - (1 - p)^k, summed exactly over all counts.
- maj@k is the expected score of a vote with ties broken at random: every order of the tied answers is enumerated.

Not exercised: nothing of these functions is left out; which samples go in is checked in ``test_table.py``.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ispo.evaluation import pass_at_k
from verl_ispo.evaluation.estimators import avg_at_k, g_pass_at_k, maj_at_k, mg_pass_at_k


@pytest.mark.parametrize("n", range(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n: int):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        samples = [True] * c + [False] * (n - c)
        subsets = list(itertools.combinations(samples, k))
        assert pass_at_k(n, c, k) == sum(map(any, subsets)) / len(subsets)


@pytest.mark.parametrize("n", range(1, 8))
def test_g_pass_at_k_is_the_share_of_subsets_with_so_many_correct_samples(n: int):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        correct = [sum(subset) for subset in itertools.combinations([True] * c + [False] * (n - c), k)]
        for percent in (1, 25, 50, 55, 75, 100):
            expected = sum(100 * count >= percent * k for count in correct) / len(correct)
            assert g_pass_at_k(n, c, k, percent / 100) == expected
        # midpoints of 840 cells: their edges hold every j / k, so that the sum is the integral
        taus = [Fraction(2 * cell + 1, 1680) for cell in range(420, 840)]
        mean = np.mean([sum(count >= tau * k for count in correct) / len(correct) for tau in taus])
        assert mg_pass_at_k(n, c, k) == pytest.approx(mean)


def test_mg_pass_at_k_is_the_papers_sum_for_an_even_k():
    """2 / k times the sum of G-Pass@k_(i / k) for i above k / 2; for k = 2 that is G-Pass@2 with tau = 1."""
    for n, c, k in itertools.product((8, 9), range(9), (2, 4, 8)):
        paper = 2 / k * sum(g_pass_at_k(n, c, k, i / k) for i in range(k // 2 + 1, k + 1))
        assert mg_pass_at_k(n, c, k) == pytest.approx(paper)
    assert mg_pass_at_k(4, 3, 2) == g_pass_at_k(4, 3, 2, 1.0) == 0.5


@given(n=st.integers(1, 100), data=st.data())
def test_g_pass_at_k_lies_between_all_and_any(n: int, data: st.DataObject):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    tau = data.draw(st.floats(0.001, 1.0))
    every, some = g_pass_at_k(n, c, k, 1.0), g_pass_at_k(n, c, k, 1 / (2 * k))
    assert some == pytest.approx(pass_at_k(n, c, k))
    assert every == math.comb(c, k) / math.comb(n, k)
    assert every <= g_pass_at_k(n, c, k, tau) <= some
    assert every <= mg_pass_at_k(n, c, k) <= some


def test_g_pass_at_k_takes_the_threshold_as_it_is_written():
    """0.55 * 20 is 11.000000000000002 in float64, which would ask for 12 correct samples."""
    assert g_pass_at_k(20, 11, 20, 0.55) == 1.0


@pytest.mark.parametrize("tau", [0.0, -0.5, 1.01, float("nan")])
def test_a_threshold_that_is_no_share_is_refused(tau: float):
    with pytest.raises(ValueError, match=r"tau = .*: give a share above 0 and up to 1"):
        g_pass_at_k(4, 2, 2, tau)


@given(n=st.integers(1, 40), data=st.data(), percent=st.integers(0, 100))
def test_pass_at_k_is_unbiased(n: int, data: st.DataObject, percent: int):
    k = data.draw(st.integers(1, n))
    p = Fraction(percent, 100)
    expected = sum(math.comb(n, c) * p**c * (1 - p) ** (n - c) * Fraction(pass_at_k(n, c, k)) for c in range(n + 1))
    assert float(expected) == pytest.approx(float(1 - (1 - p) ** k), abs=1e-12)


@given(n=st.integers(1, 300), data=st.data())
def test_pass_at_k_stays_in_range_and_grows_with_c_and_k(n: int, data: st.DataObject):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    value = pass_at_k(n, c, k)
    assert 0.0 <= value <= 1.0
    assert c == n or value <= pass_at_k(n, c + 1, k)
    assert k == n or value <= pass_at_k(n, c, k + 1)
    assert pass_at_k(n, c, 1) == c / n


def test_pass_at_k_is_exact_where_floats_would_overflow_or_cancel():
    assert pass_at_k(100_000, 1, 1000) == 0.01  # C(100000, 1000) has 2,430 digits
    assert pass_at_k(10**12, 1, 1) == 1e-12


@pytest.mark.parametrize(
    ("n", "c", "k", "named"),
    [
        (4, 2, 5, "k = 5 is more than n = 4"),
        (4, 2, 0, "k = 0"),
        (4, 2, -1, "k = -1"),
        (4, 5, 1, "c = 5"),
        (4, -1, 1, "c = -1"),
        (0, 0, 1, "n = 0"),
        (4, 2.0, 1, "c = 2.0"),
        (4, float("nan"), 1, "c = nan"),
        (4, 2, "1", "k = '1'"),
        (4, True, 1, "c = True"),
    ],
)
def test_pass_at_k_refuses_nonsense_by_name(n, c, k, named: str):
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        pass_at_k(n, c, k)


def test_pass_at_k_takes_numpy_integers():
    assert pass_at_k(np.int64(4), np.int64(2), np.int32(2)) == 5 / 6


@given(st.lists(st.sampled_from(["", "7", "8", "9"]), min_size=1, max_size=8))
def test_maj_at_k_is_the_expected_vote_over_all_tie_breaks(predictions: list[str]):
    correct = [prediction == "7" for prediction in predictions]
    votes = Counter(prediction for prediction in predictions if prediction)
    if not votes:
        expected = Fraction(0)
    else:
        # every order of the answers, each vote won by the first of the most frequent ones
        orders = list(itertools.permutations(votes))
        wins = sum(max(order, key=lambda answer: votes[answer]) == "7" for order in orders)
        expected = Fraction(wins, len(orders))
    assert maj_at_k(predictions, correct) == pytest.approx(float(expected))


def test_maj_at_k_averages_grades_that_a_time_out_made_differ():
    assert maj_at_k(["7", "7", "8"], [True, False, False]) == 0.5


def test_avg_at_k_is_the_share_of_right_samples():
    assert avg_at_k([True, False, False, True]) == 0.5


@pytest.mark.parametrize("estimate", [lambda: avg_at_k([]), lambda: maj_at_k([], [])])
def test_no_sample_is_an_error(estimate):
    with pytest.raises(ValueError, match="no sample"):
        estimate()
