r"""Which samples of a problem vote for the same answer: ``\frac12``, ``0.5`` and ``1/2`` are one vote each for one.

Two answers agree if the grader's exact path says so with either one as the ground truth. No worker runs and no
problem's ground truth is looked at, so ``x+1`` and ``1+x`` stay two answers, and a vote costs no more than its pairs.

Agreement is no equivalence: a percentage agrees with a fraction and with a bare number (``50\%`` with ``0.5`` and with
``50``), a bare number with every unit. A chain of such pairs must not join 0.5 with 50, nor may it matter which sample
came first. So **two answers are one if they agree with exactly the same answers of the problem**, themselves included.
Equal sets make an equivalence whatever the pairs are, and no order enters. Where ``0.5``, ``50\%`` and ``50`` are all
voted for, all three stay apart; without ``50``, the first two are one. The rule is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from verl_ispo.answers.ground_truth import GroundTruth
from verl_ispo.grading.answer_check import AnswerTooLarge, check_answer
from verl_ispo.grading.exact_numbers import exact_value
from verl_ispo.grading.expression_guard import GoldNotUnderstood, RefusedExpression
from verl_ispo.grading.normalization import normalize_answer

MAX_COMPARED_CHARS = 300
"""Longer answers agree with their own text alone."""

_APART = 1e-3
"""Two plain numbers that are this far apart, relative to the larger, are not compared: no rounding joins them."""


def vote_names(predictions: Sequence[str], several: bool = False) -> list[str]:
    """One name for each answer: equal answers have the same name.

    Args:
        predictions (`Sequence[str]`): each sample's answer as the grader returned it, ``""`` for none.
        several (`bool`, *optional*, defaults to `False`): the problem asks for several answers.

    Returns:
        `list[str]`: in the order of ``predictions``; ``""`` for those without an answer. A name is the shortest
        spelling that was voted for, the first in alphabetical order of equally short ones.
    """
    normalized = {prediction: normalize_answer(prediction) or prediction for prediction in set(predictions)}
    names = _names(frozenset(normalized.values()) - {""}, several)
    return [names.get(normalized[prediction], "") for prediction in predictions]


@lru_cache(maxsize=8192)
def _names(answers: frozenset[str], several: bool) -> dict[str, str]:
    """The name of each distinct normalized answer of a problem."""
    ordered = sorted(answers, key=lambda answer: (len(answer), answer))
    numbers = [_plain_number(answer) for answer in ordered]
    agrees_with = [1 << index for index in range(len(ordered))]  # one bit for each answer
    for index, answer in enumerate(ordered):
        for other in range(index):
            if not _far_apart(numbers[index], numbers[other]) and _agree(answer, ordered[other], several):
                agrees_with[index] |= 1 << other
                agrees_with[other] |= 1 << index
    names: dict[int, str] = {}
    return {answer: names.setdefault(pattern, answer) for answer, pattern in zip(ordered, agrees_with, strict=True)}


def _plain_number(answer: str) -> float | None:
    """About the value of a plain number, `None` for anything else."""
    value = exact_value(answer) if len(answer) <= MAX_COMPARED_CHARS else None
    try:
        number = None if value is None else float(value if isinstance(value, Fraction) else value.mid)
    except OverflowError:
        return None
    return number if number is not None and math.isfinite(number) else None


def _far_apart(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and abs(one - other) > _APART * max(abs(one), abs(other))


def _agree(one: str, other: str, several: bool) -> bool:
    """Whether the exact path accepts each of two answers as the other's ground truth."""
    if max(len(one), len(other)) > MAX_COMPARED_CHARS:
        return False
    try:
        return all(
            check_answer(GroundTruth(gold, multiple_answers=several), answer) is True
            for gold, answer in ((one, other), (other, one))
        )
    except (AnswerTooLarge, GoldNotUnderstood, RefusedExpression, ValueError):
        return False
