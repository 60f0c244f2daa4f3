"""Scorer of the tiny task: the final answer must be the number, exactly.

For verl: ``reward.custom_reward_function.path=pkg://verl_ispo.tiny_task.reward`` (or this file's path) and
``reward.custom_reward_function.name=compute_score``.
"""

from __future__ import annotations

import re
from typing import Any

from verl_ispo.answers.answer_place import answer_text, find_answer

# A whole number, perhaps written as 8.0. ASCII digits only: int() would also take other scripts' digits.
_WHOLE_NUMBER = re.compile(r"([+-]?[0-9]{1,18})(?:\.0{1,18})?")


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Score one response; the signature is verl's.

    Args:
        data_source (`str`): not used; every level is scored alike.
        solution_str (`str`): the response, untrusted. Never evaluated.
        ground_truth (`str`): the answer as a whole number.
        extra_info (`dict`, *optional*): not used.

    Returns:
        `dict`: ``score`` 1.0 or 0.0, ``acc`` the same as a `bool`, ``pred`` the number that was read, or ``""``.

    Raises:
        ValueError: if ``ground_truth`` is not a whole number, which is a fault of the data.
    """
    expected = _WHOLE_NUMBER.fullmatch(str(ground_truth).strip())
    if expected is None:
        raise ValueError(
            f"ground_truth {str(ground_truth)[:80]!r} of data source {data_source!r} is not a whole number; "
            "write the data with `python -m verl_ispo.tiny_task.make_data`"
        )
    place = find_answer(solution_str)
    number = None if place is None else _WHOLE_NUMBER.fullmatch(answer_text(solution_str, place))
    correct = number is not None and int(number[1]) == int(expected[1])
    return {"score": float(correct), "acc": correct, "pred": "" if number is None else str(int(number[1]))}
