"""Intervals and tests over problems.

The unit is always the problem: samples of one problem are averaged before they come here, and training seeds are
averaged problem by problem or compared as whole runs, so neither ever counts as more problems.

**Which bootstrap.** Over problems, as `scipy.stats.bootstrap` does it: BCa (Efron 1987) for scores, the percentile
interval for paired differences. Both were chosen by their exact coverage for correct and incorrect answers, every
outcome weighted by its probability (``tests/evaluation/test_statistics.py``). For scores at n = 30 and 40 and p from
0.02 to 0.9, BCa covers 95 to 99 % and the percentile interval falls to 91 %. For two equally good methods, of which one
alone solves 6 to 20 % of 30 to 50 problems, the percentile interval of the difference covers 95 to 99 %, BCa falls to
91 %. Where one is better and very few problems tell them apart, both fall under 90 %: read the exact test beside them.

**Where all problems score the same** resampling shows no spread, and an interval of no width would be false. For scores
that are all 0 or all 1 the exact binomial (Clopper-Pearson) interval is used instead. It holds for averages too: a
score in [0, 1] with mean m is above 0 with probability at least m, so n zeros have a probability of at most (1 - m)^n.
For any other common value there is no interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE_LEVEL = 0.95
RESAMPLES = 9999
_RESAMPLES_AT_ONCE = 1000
_ROUNDING = 1e-12
_SEED = 20260608
"""Seed of the resampling: the same scores give the same interval."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A two-sided 95 % confidence interval, and how it was made."""

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class PairedTest:
    """A two-sided paired test.

    Attributes:
        p_value: two-sided.
        name: ``mcnemar_exact`` or ``sign_flip``.
        only_first, only_second: problems that only one of the two solved (McNemar), or scored higher on (sign flip).
    """

    p_value: float
    name: str
    only_first: int
    only_second: int


def as_scores(values: ArrayLike, what: str, low: float = 0.0) -> Scores:
    """One score per problem as a float64 vector.

    Raises:
        ValueError: if there is no problem, or a score is NaN or outside of [``low``, 1].
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"{what}: one score for each problem is needed, got an array of shape {scores.shape}")
    bad = ~((scores >= low) & (scores <= 1.0))
    if bad.any():
        index = int(np.argmax(bad))
        raise ValueError(f"{what}: the score of problem {index} is {scores[index]}, outside of [{low:g}, 1]")
    return scores


def mean_interval(scores: ArrayLike) -> Interval | None:
    """Interval of the mean score over problems that could have been drawn.

    Args:
        scores (`ArrayLike` of shape `(problems,)`): in [0, 1].

    Returns:
        `Interval`, or `None` where all problems share one score that is neither 0 nor 1.
    """
    values = as_scores(scores, "mean_interval")
    if not is_flat(values):
        return _bootstrap([values], "BCa")
    if values[0] not in (0.0, 1.0):
        return None
    exact = stats.binomtest(int(values.sum()), values.size).proportion_ci(CONFIDENCE_LEVEL, "exact")
    return Interval(float(exact.low), float(exact.high), "clopper_pearson")


def macro_mean_interval(groups: Sequence[ArrayLike]) -> Interval | None:
    """Interval of the plain mean of several benchmarks' means; problems are resampled within their benchmark.

    A benchmark whose problems all score the same adds no width, so the interval is too narrow there; the caller says
    so. `None` if that holds for all of them.
    """
    return _bootstrap([as_scores(group, "macro_mean_interval") for group in groups], "BCa")


def difference_interval(first: ArrayLike, second: ArrayLike) -> Interval | None:
    """Paired bootstrap: interval of the mean difference ``first - second`` on the same problems in the same order.

    Where all differences are 0 the interval is [-u, u] with u = 1 - 0.05^(1/n), by the argument in the module's
    docstring for the absolute difference (and its mirror image about +1 or -1 where all of them are that).

    Returns:
        `Interval`, or `None` where all differences share one other value.
    """
    differences = _differences(first, second)
    if not is_flat(differences):
        return _bootstrap([differences], "percentile")
    value = float(differences[0])
    bound = 1.0 - (1.0 - CONFIDENCE_LEVEL) ** (1.0 / differences.size)
    if value not in (-1.0, 0.0, 1.0):
        return None
    # About +1 and -1 the difference can lie on one side only, and up to twice as far.
    low = {-1.0: -1.0, 0.0: -bound, 1.0: 1.0 - 2.0 * bound}[value]
    high = {-1.0: -1.0 + 2.0 * bound, 0.0: bound, 1.0: 1.0}[value]
    return Interval(low, high, "no_discordant_problem")


def macro_difference_interval(pairs: Sequence[tuple[ArrayLike, ArrayLike]]) -> Interval | None:
    """Paired bootstrap of the difference of two macro means; problems are resampled within their benchmark."""
    return _bootstrap([_differences(first, second) for first, second in pairs], "percentile")


def mcnemar_exact(first: ArrayLike, second: ArrayLike) -> PairedTest:
    """Exact McNemar test of two methods' correct and incorrect answers to the same problems.

    Under the null hypothesis a problem that only one method solves is either's with probability 1/2: a binomial test of
    the discordant problems. Without any the p-value is 1.

    Args:
        first, second (`ArrayLike` of shape `(problems,)`): 0 or 1, in the same order of problems.

    Raises:
        ValueError: if a score is neither 0 nor 1.
    """
    one, two = as_scores(first, "mcnemar_exact"), as_scores(second, "mcnemar_exact")
    _differences(one, two)
    if not np.isin(np.concatenate([one, two]), (0.0, 1.0)).all():
        raise ValueError("mcnemar_exact: scores must be 0 or 1; use sign_flip_test for averages")
    only_first, only_second = int(((one == 1) & (two == 0)).sum()), int(((one == 0) & (two == 1)).sum())
    discordant = only_first + only_second
    p_value = float(stats.binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return PairedTest(p_value, "mcnemar_exact", only_first, only_second)


def sign_flip_test(pairs: Sequence[tuple[ArrayLike, ArrayLike]]) -> PairedTest:
    """Paired permutation test of the (macro) mean difference; for averages, where McNemar's does not apply.

    Under the null hypothesis the two methods are exchangeable on each problem, so the sign of each difference is a coin
    toss. All sign patterns where there are few, else 9999 random ones (`scipy.stats.permutation_test`).

    Args:
        pairs (`Sequence` of two `ArrayLike`): for each benchmark the two methods' scores, in the same order.
    """
    differences = [_differences(first, second) for first, second in pairs]
    # Each benchmark has the same weight, each problem its share of it; zeros cannot change a sum.
    weighted = np.concatenate([difference / difference.size for difference in differences]) / len(differences)
    only_first, only_second = int((weighted > _ROUNDING).sum()), int((weighted < -_ROUNDING).sum())
    weighted = weighted[np.abs(weighted) > _ROUNDING]
    if weighted.size < 2:
        # Scipy needs two observations. With one difference both of its signs are as far from 0, so p is 1.
        return PairedTest(1.0, "sign_flip", only_first, only_second)
    test = stats.permutation_test(
        (weighted,),
        lambda values, axis: values.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=_RESAMPLES_AT_ONCE,
        rng=np.random.default_rng(_SEED),
    )
    return PairedTest(float(test.pvalue), "sign_flip", only_first, only_second)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): adjusted p-values, in the order given, that hold for all of them together.

    Raises:
        ValueError: if a p-value is NaN or outside of [0, 1].
    """
    # statsmodels takes a second to import, and only this needs it
    from statsmodels.stats.multitest import multipletests

    for index, p_value in enumerate(p_values):
        if not 0.0 <= p_value <= 1.0:
            raise ValueError(f"holm: p-value {index} is {p_value}, outside of [0, 1]")
    if len(p_values) == 0:
        return []
    return [float(adjusted) for adjusted in multipletests(list(p_values), method="holm")[1]]


def between_seeds(scores: Sequence[float]) -> tuple[float, float | None]:
    """Mean over training seeds, and their standard deviation (n - 1), `None` for a single seed."""
    if not scores or any(math.isnan(score) for score in scores):
        raise ValueError(f"between_seeds: one score for each seed is needed, got {list(scores)}")
    return float(np.mean(scores)), float(np.std(scores, ddof=1)) if len(scores) > 1 else None


def _differences(first: ArrayLike, second: ArrayLike) -> Scores:
    one, two = as_scores(first, "first method"), as_scores(second, "second method")
    if one.shape != two.shape:
        raise ValueError(f"paired scores need the same problems: {one.size} and {two.size} were given")
    return one - two


def _macro_mean(*groups: Scores, axis: int = -1) -> Scores:
    return np.mean([group.mean(axis=axis) for group in groups], axis=0)


def is_flat(scores: Scores) -> bool:
    """Whether all problems score the same; averages over seeds leave rounding behind."""
    return bool(np.ptp(scores) < _ROUNDING)


def _bootstrap(groups: Sequence[Scores], method: str) -> Interval | None:
    """Bootstrap of the mean of the groups' means; `None` where all groups are flat."""
    if all(is_flat(group) for group in groups):
        return None
    # scipy needs two observations in each group; a constant one is the same at any length
    groups = [np.repeat(group, 2) if group.size == 1 else group for group in groups]
    result = stats.bootstrap(
        groups,
        _macro_mean,
        confidence_level=CONFIDENCE_LEVEL,
        n_resamples=RESAMPLES,
        batch=_RESAMPLES_AT_ONCE,
        vectorized=True,
        axis=-1,
        method=method,
        rng=np.random.default_rng(_SEED),
    )
    low, high = map(float, result.confidence_interval)
    return Interval(low, high, f"bootstrap_{method.lower()}")
