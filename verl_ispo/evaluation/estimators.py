"""One problem's score from its samples: pass@k, avg@k, maj@k."""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Sequence


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
    n, c, k = _whole(n, "n"), _whole(c, "c"), _whole(k, "k")
    if n < 1:
        raise ValueError(f"n = {n}: pass@k needs at least one sample")
    if not 0 <= c <= n:
        raise ValueError(f"c = {c}: of n = {n} samples between 0 and {n} can be correct")
    if k < 1:
        raise ValueError(f"k = {k}: give at least 1")
    if k > n:
        raise ValueError(f"k = {k} is more than n = {n}: pass@{k} needs at least {k} samples of each problem")
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - c, k)) / subsets


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


def _whole(value: int, name: str) -> int:
    if isinstance(value, bool):
        raise ValueError(f"{name} = {value!r} is not a whole number")
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} = {value!r} is not a whole number") from None
