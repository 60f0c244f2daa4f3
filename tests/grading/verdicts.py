"""The verdict on one answer, as the tests of the readers ask for it."""

from __future__ import annotations

from verl_ispo.grading import compute_score
from verl_ispo.grading.answer_check import check_answer
from verl_ispo.grading.expression_guard import GoldNotUnderstood, RefusedExpression
from verl_ispo.grading.ground_truth_reading import read_ground_truth
from verl_ispo.grading.normalization import normalize_answer


def exact(answer: str, gold: str) -> bool | None:
    """The verdict without a worker."""
    try:
        return check_answer(read_ground_truth(gold), normalize_answer(answer))
    except (GoldNotUnderstood, RefusedExpression):
        return None


def accepted(answer: str, gold: str, **extra_info: object) -> bool:
    """Whether the answer, in a box, is correct."""
    return compute_score("test", rf"\boxed{{{answer}}}", gold, extra_info)["status"] == "correct"
