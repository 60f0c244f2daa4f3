r"""Ratios and times of day: ``11:21``, ``22 : 42``, ``\frac{11}{21}`` and ``11 \text{ to } 21``.

Ratios are equal where their parts are proportional. Times of day are not ratios, and ``6:15`` may be either; two texts
that can both be times are compared part by part.
"""

from __future__ import annotations

import re
from fractions import Fraction

from .exact_numbers import exact_value

_TIME = re.compile(r"\d{1,2}:[0-5]\d(?::[0-5]\d)?")
_TO = re.compile(r"\s?(?:\\text\{ ?to ?\}|(?<![A-Za-z\\])to(?![A-Za-z]))\s?")
_FRACTION = re.compile(r"\\frac\{[^{}]+\}\{[^{}]+\}|[^/:]+/[^/:]+|\\frac\{.+\}")


def compare_ratios(gold: str, answer: str) -> bool | list[tuple[str, str]] | None:
    """Compare two normalized texts, one of which may be a ratio.

    Returns:
        `bool` or `None`: the verdict, and `None` where the key is no ratio and the answer has no colon. `list`: pairs
        of texts that all have to be equal, where the parts are not plain numbers.
    """
    gold, answer = (_TO.sub(":", text) if _TO.search(text) else text for text in (gold, answer))
    if ":" not in gold:
        return False if ":" in answer else None
    parts = gold.split(":")
    if ":" not in answer:
        return _compare_with_fraction(gold, parts, answer)
    given = answer.split(":")
    if len(parts) != len(given) or not all(parts) or not all(given):
        return False
    values = [[exact_value(part) for part in side] for side in (parts, given)]
    if not all(isinstance(value, Fraction) for side in values for value in side):
        return list(zip(parts, given, strict=True))
    if values[0] == values[1]:
        return True
    if _TIME.fullmatch(gold) and _TIME.fullmatch(answer):
        return False
    return _proportional(*values)


def _proportional(left: list[Fraction], right: list[Fraction]) -> bool:
    if 0 in left or 0 in right:
        return False
    return len({first / second for first, second in zip(left, right, strict=True)}) == 1


def _compare_with_fraction(gold: str, parts: list[str], answer: str) -> bool | list[tuple[str, str]]:
    if len(parts) != 2 or not all(parts) or _FRACTION.fullmatch(answer) is None:
        return False
    top, bottom = parts
    if _TIME.fullmatch(gold):
        # 6:15 may be a time, and no time is 2/5
        return answer in (rf"\frac{{{top}}}{{{bottom}}}", f"{top}/{bottom}")
    value, first, second = exact_value(answer), exact_value(top), exact_value(bottom)
    if isinstance(value, Fraction) and isinstance(first, Fraction) and isinstance(second, Fraction):
        return second != 0 and value == first / second
    return [(rf"\frac{{{top}}}{{{bottom}}}", answer)]
