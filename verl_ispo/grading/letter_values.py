r"""Tell expressions with letters apart without a worker: ``2x+1`` and ``x^2`` differ where ``x`` is 5.

An identity holds at every point, so one point at which two exact values differ proves two expressions different. The
points are positive whole numbers, since a letter may stand for whole numbers alone. Equality is never decided here.
"""

from __future__ import annotations

import re

from .exact_numbers import exact_value, values_equal

MAX_LETTER_CHARS = 160
MAX_LETTERS = 6

_TOKEN = re.compile(r"(\\[A-Za-z]+|[A-Za-z])(\s*[(_'\[{])?")
# a/bc may be meant as a/(bc)
_UNCLEAR_QUOTIENT = re.compile(r"/ ?(?:\d+|[A-Za-z]|\\[a-z]+|\([^()]*\)) ?(?:\\cdot ?)?[A-Za-z(\\]")
_KEPT = frozenset((r"\frac", r"\sqrt", r"\cdot", r"\pi", "e"))
_GREEK = frozenset(
    rf"\{name}"
    for name in ("alpha", "beta", "gamma", "delta", "theta", "lambda", "mu", "rho", "omega", "sigma", "tau", "phi")
)
_POINTS = ((5, 3, 7, 2, 11, 13), (2, 7, 3, 11, 5, 13))


def differ_by_value(gold: str, answer: str) -> bool:
    """Whether two normalized expressions have different values at a point; `False` where that is not known."""
    if len(gold) > MAX_LETTER_CHARS or len(answer) > MAX_LETTER_CHARS:
        return False
    if _UNCLEAR_QUOTIENT.search(gold) or _UNCLEAR_QUOTIENT.search(answer):
        return False
    names = [_letters(text) for text in (gold, answer)]
    if names[0] is None or names[1] is None:
        return False
    letters = sorted(names[0] | names[1])
    if not 0 < len(letters) <= MAX_LETTERS:
        return False
    for point in _POINTS:
        values = dict(zip(letters, point, strict=False))
        left, right = (exact_value(_at(text, values)) for text in (gold, answer))
        if left is not None and right is not None and values_equal(left, right) is False:
            return True
    return False


def _letters(text: str) -> set[str] | None:
    """The letters of an expression, or `None` where it holds anything but letters, numbers and arithmetic."""
    found = set()
    for token in _TOKEN.finditer(text):
        name, following = token.groups()
        if name in _KEPT:
            continue
        if (name.startswith("\\") and name not in _GREEK) or name in ("i", "d") or following is not None:
            return None  # f(x) is no product, and x_1 another letter than x
        found.add(name)
    return found


def _at(text: str, values: dict[str, int]) -> str:
    return _TOKEN.sub(lambda token: token.group() if token.group(1) in _KEPT else f"({values[token.group(1)]})", text)
