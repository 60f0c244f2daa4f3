r"""Try a key on the grader before anything is trained or measured with it.

A key that the grader cannot read scores every response 0, and one that it reads as something vaguer than what is
written may accept what it should not. So each key is graded twice: as the answer in a box, which has to be correct, and
against a number that it should not equal, which has to be wrong. A text that equals the key's is accepted without being
read, so it is the number that shows whether the key can be read. Both go the way that a response goes, the worker
processes included. Ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verl_ispo.answers.answer_place import answer_text, find_answer

from .answer_check import AnswerTooLarge, check_answer
from .expression_guard import GoldNotUnderstood, RefusedExpression
from .ground_truth_reading import lists_several, read_ground_truth
from .normalization import normalize_answer
from .settings import pool_settings, time_limit_s
from .worker_pool import shared_pool

FOREIGN_ANSWERS = ("-7919.25", "-6841.75")
"""An answer that no key should accept; the second one is for keys that hold the first."""


def key_fault(
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    timeout_s: float | None = None,
    workers: int | None = None,
) -> str:
    """Why responses cannot be graded by a key; empty for a key that works.

    Args:
        ground_truth (`Any`), extra_info (`Mapping`, *optional*): as for
            :func:`~verl_ispo.grading.reward_function.compute_score`.
        timeout_s (`float`, *optional*), workers (`int`, *optional*): as there.

    Returns:
        `str`: begins with ``"error"``, ``"timeout"``, ``"rejects itself"`` or ``"accepts"``.

    Raises:
        ValueError: if a limit is not a number above 0.
        GraderUnavailableError: if no worker can be started.
    """
    limit_s, settings = time_limit_s(timeout_s), pool_settings(workers)

    def status(answer: str) -> str:
        verdict = check_answer(gold, answer)
        if verdict is not None:
            return "correct" if verdict else "wrong"
        outcome = shared_pool(settings).check(gold, answer, limit_s)
        return outcome.status if outcome.status in ("correct", "wrong") else f"{outcome.status}: {outcome.reason}"

    try:
        gold = read_ground_truth(ground_truth, extra_info)
        response = rf"\boxed{{{gold.text}}}"
        place = find_answer(response, several=gold.multiple_answers or lists_several(gold.text))
        own = "wrong" if place is None else status(normalize_answer(answer_text(response, place)))
        if own != "correct":
            return "rejects itself" if own == "wrong" else own
        foreign = FOREIGN_ANSWERS[FOREIGN_ANSWERS[0] in gold.text]
        against = status(foreign)
    except (ValueError, AnswerTooLarge, GoldNotUnderstood, RefusedExpression, RuntimeError) as error:
        return f"error: {type(error).__name__}: {error}"
    if against == "correct":
        return f"accepts the foreign answer {foreign}"
    return "" if against == "wrong" else against
