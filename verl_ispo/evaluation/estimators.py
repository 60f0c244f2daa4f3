"""One problem's score from its samples: pass@k, G-Pass@k, avg@k, maj@k."""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the probability that at least one of ``k`` samples is correct.

    1 - C(n - c, k) / C(n, k): the share of all subsets of ``k`` out of the ``n`` samples that hold a correct one (Chen
    et al. 2021, "Evaluating Large Language Models Trained on Code", eq. 1). Counted in whole numbers, so that nothing
    is rounded before the one division: no overflow, and no cancellation where the probability is small.

    Args:
        n (`int`): samples drawn for the problem, at least 1.
        c (`int`): how many of them are correct.
        k (`int`): samples that a user would draw, 1 to ``n``.

    Returns:
        `float`: in [0, 1].

    Raises:
        ValueError: if ``k > n`` (it cannot be estimated without bias), or a value is not a whole number in its range.
    """
    n, c, k = _checked(n, c, k)
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - c, k)) / subsets


def g_pass_at_k(n: int, c: int, k: int, tau: float) -> float:
    """Unbiased estimate of the probability that at least ``tau * k`` of ``k`` samples are correct.

    G-Pass@k_tau = sum over j from ceil(tau k) to k of C(c, j) C(n - c, k - j) / C(n, k): the share of all subsets of
    ``k`` out of the ``n`` samples that hold so many correct ones (arXiv 2412.13147). ``tau = 1`` asks that all are
    correct; for ``tau <= 1 / k`` it is pass@k. ``tau`` is taken as the decimal number that is written, so that
    ceil(0.55 * 20) is 11.

    Args:
        n, c, k (`int`): as for `pass_at_k`.
        tau (`float`): share of the ``k`` samples that has to be correct, above 0 and up to 1.

    Returns:
        `float`: in [0, 1].

    Raises:
        ValueError: as `pass_at_k`, or if ``tau`` is out of its range.
    """
    n, c, k = _checked(n, c, k)
    if not 0.0 < tau <= 1.0:
        raise ValueError(f"tau = {tau}: give a share above 0 and up to 1")
    return _subsets_with(n, c, k, math.ceil(Fraction(str(tau)) * k)) / math.comb(n, k)


def mg_pass_at_k(n: int, c: int, k: int) -> float:
    """Mean of G-Pass@k_tau over tau in (0.5, 1] (arXiv 2412.13147): how often the model is correct, and stays so.

    2 times the integral, which is exact: G-Pass@k_tau is constant for tau in ((j - 1) / k, j / k]. For an even ``k`` it
    is the paper's sum, 2 / k times the terms j > k / 2. For an odd ``k`` the paper's sum leaves out the half interval
    above 0.5, so that it could not reach 1; here it counts (ours).

    Args:
        n, c, k (`int`): as for `pass_at_k`.

    Returns:
        `float`: in [0, 1].

    Raises:
        ValueError: as `pass_at_k`.
    """
    n, c, k = _checked(n, c, k)
    # in halves of 1 / k: the part of ((j - 1) / k, j / k] that is above 0.5
    halves = [(least, 2 * least - max(k, 2 * least - 2)) for least in range(k // 2 + 1, k + 1)]
    return sum(width * _subsets_with(n, c, k, least) for least, width in halves) / (k * math.comb(n, k))


def avg_at_k(correct: Sequence[bool]) -> float:
    """Share of a problem's samples that are correct; its mean over problems is avg@k.

    Raises:
        ValueError: if there is no sample.
    """
    if len(correct) == 0:
        raise ValueError("avg@k of no sample is undefined")
    return sum(map(bool, correct)) / len(correct)


def maj_at_k(predictions: Sequence[str], correct: Sequence[bool]) -> float:
    """Probability that the most frequent answer of a problem's samples is correct.

    The rule, which is ours: samples vote for the same answer when their texts here are the same; `equal_votes` gives
    equal answers one text. The ground truth is not used to merge different spellings of the correct answer, since a
    real vote could not do so either. Samples without an answer do not vote; without any vote the score is 0. A tie is
    broken at random, and the score is the expected value over the tied answers. Where samples with one answer were
    graded differently (a time-out, another spelling), the answer's score is the share of its samples that are correct.

    Args:
        predictions (`Sequence[str]`): each sample's answer, or a name for it, ``""`` for none.
        correct (`Sequence[bool]`): each sample's grade.

    Raises:
        ValueError: if there is no sample.
    """
    if len(predictions) == 0:
        raise ValueError("maj@k of no sample is undefined")
    grades: dict[str, list[bool]] = defaultdict(list)
    for prediction, is_correct in zip(predictions, correct, strict=True):
        if prediction:
            grades[prediction].append(bool(is_correct))
    if not grades:
        return 0.0
    most = max(map(len, grades.values()))
    tied = [votes for votes in grades.values() if len(votes) == most]
    return sum(sum(votes) for votes in tied) / (most * len(tied))


def _subsets_with(n: int, c: int, k: int, least: int) -> int:
    """Subsets of ``k`` samples with at least ``least`` correct ones."""
    return sum(math.comb(c, correct) * math.comb(n - c, k - correct) for correct in range(least, min(c, k) + 1))


def _checked(n: int, c: int, k: int) -> tuple[int, int, int]:
    n, c, k = _whole(n, "n"), _whole(c, "c"), _whole(k, "k")
    if n < 1:
        raise ValueError(f"n = {n}: pass@k needs at least one sample")
    if not 0 <= c <= n:
        raise ValueError(f"c = {c}: of n = {n} samples between 0 and {n} can be correct")
    if k < 1:
        raise ValueError(f"k = {k}: give at least 1")
    if k > n:
        raise ValueError(f"k = {k} is more than n = {n}: pass@{k} needs at least {k} samples of each problem")
    return n, c, k


def _whole(value: int, name: str) -> int:
    if isinstance(value, bool):
        raise ValueError(f"{name} = {value!r} is not a whole number")
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} = {value!r} is not a whole number") from None
