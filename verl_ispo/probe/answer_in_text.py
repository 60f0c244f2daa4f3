"""Whether a text already holds an answer: a trace that states it, or a question that it was copied from (rules ours).

Looser than `verl_ispo.answers.statement`, at whose finding a trace is cut: there 19.0 does not state 19, nor 5 state
-5. For the share of traces that give their answer away, equal numbers count in any spelling and with any sign.

Both texts are untrusted. They are searched by one pattern without backtracking and over a bounded length, and numbers
are compared as decimals of bounded length, never evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation

MAX_TEXT_CHARS = 200_000
"""Of a longer text the end is searched, which is nearest to the answer."""
MAX_ANSWER_CHARS = 200
"""A longer answer is no number or word that a text would repeat: it counts as not there."""
_MAX_NUMBER_CHARS = 40
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def numbers_in(text: str) -> Iterator[Decimal]:
    """The numbers of a text, without their signs; a comma is read as one between thousands."""
    for match in _NUMBER.finditer(text[-MAX_TEXT_CHARS:]):
        number = _as_number(match.group())
        if number is not None:
            yield number


def states(text: str, answer: str) -> bool:
    """Whether a text holds an answer: the same number, or the same words between characters that are no letters.

    Args:
        text (`str`): the trace before the lead-in.
        answer (`str`): text of A.
    """
    answer = _bare(answer)
    if not answer or len(answer) > MAX_ANSWER_CHARS:
        return False
    number = _as_number(answer)
    if number is not None:
        return any(found == number for found in numbers_in(text))
    text = text[-MAX_TEXT_CHARS:]
    begin = text.find(answer)
    while begin >= 0:
        end = begin + len(answer)
        inside_word = _joins(text[begin - 1 : begin], answer[0]) or _joins(answer[-1], text[end : end + 1])
        if not inside_word:
            return True
        begin = text.find(answer, begin + 1)
    return False


def is_number_of(question: str, answer: str) -> bool:
    """Whether an answer is a number that stands in the question."""
    number = _as_number(_bare(answer))
    return number is not None and any(found == number for found in numbers_in(question))


def _bare(answer: str) -> str:
    return answer.strip().strip("$ .").strip()


def _as_number(text: str) -> Decimal | None:
    """An unsigned number, or a signed one without its sign: an answer's sign is often left to the words around it."""
    digits = text.lstrip("+-−").replace(",", "").replace("\\!", "")
    if not digits[:1].isdigit() or len(digits) > _MAX_NUMBER_CHARS or not digits.isascii():
        return None
    try:
        return Decimal(digits)
    except InvalidOperation:
        return None


def _joins(before: str, after: str) -> bool:
    return bool(before and after) and before.isalnum() and after.isalnum()
