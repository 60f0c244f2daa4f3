"""Scorer of the tiny task: the last balanced ``\\boxed{}`` must hold the answer, exactly.

For verl: ``reward.custom_reward_function.path=pkg://verl_ispo.tiny_task.reward`` (or this file's path) and
``reward.custom_reward_function.name=compute_score``.
"""

from __future__ import annotations

import re
from typing import Any

MAX_SCORED_CHARS = 4096
"""Only the end of a longer response is read: the answer is there, and a scorer must take bounded time."""

# A whole number, perhaps written as 8.0. ASCII digits only: int() would also take other scripts' digits.
_WHOLE_NUMBER = re.compile(r"([+-]?[0-9]{1,18})(?:\.0{1,18})?")
_BOX = "\\boxed{"


def last_boxed(text: str) -> str | None:
    """Return the content of the last balanced ``\\boxed{}`` of a text, or `None` if there is none.

    A box that is opened and never closed is passed over, so a response that is cut off in its second box is scored on
    its first one. Linear in the length of ``text``.
    """
    content_end: dict[int, int] = {}  # index behind a "{" -> index of its "}"
    open_braces: list[int] = []
    for index, character in enumerate(text):
        if character == "{":
            open_braces.append(index + 1)
        elif character == "}" and open_braces:
            content_end[open_braces.pop()] = index
    start = text.rfind(_BOX)
    while start != -1:
        content_start = start + len(_BOX)
        if content_start in content_end:
            return text[content_start : content_end[content_start]]
        start = text.rfind(_BOX, 0, start)
    return None


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
    content = last_boxed(solution_str[-MAX_SCORED_CHARS:])
    number = None if content is None else _WHOLE_NUMBER.fullmatch(content.strip())
    correct = number is not None and int(number[1]) == int(expected[1])
    return {"score": float(correct), "acc": correct, "pred": "" if number is None else str(int(number[1]))}
