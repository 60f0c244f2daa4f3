r"""An approximation behind an exact value: ``\frac{2}{3} \approx 0.667``.

It says nothing new where it is the value to its last digit, rounded or cut off there. Where it is not, the answer
contradicts itself, and is none.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import mpmath

from .exact_numbers import decimal_places, exact_value
from .units import split_unit

_FUNCTIONS = {"ln": mpmath.log, "log": mpmath.log, "sin": mpmath.sin, "cos": mpmath.cos, "tan": mpmath.tan}
_CALL = re.compile(
    r"\\(?P<name>ln|log|sin|cos|tan)(?:_\{(?P<base>\d{1,4})\})? ?"
    r"(?:\((?P<round>[^()]{1,60})\)|\{(?P<group>[^{}]{1,60})\}|(?P<number>\d{1,9}(?:\.\d{1,9})?))(?P<degrees>\\degree)?"
)
_NAME = re.compile(r"(?!\\pi|e$)\\?[A-Za-z](?:_?\w)?(?:\([a-z]\))?")
MAX_CALLS = 8


def approximates(decimal: str, exact: str) -> bool:
    r"""Whether a decimal is the exact value to its last digit, rounded or cut off.

    Args:
        decimal (`str`): normalized, such as ``0.667``, possibly with a unit or a percent sign.
        exact (`str`): normalized; without letters, other than in the common functions. The two may be exchanged.
    """
    decimal, exact = (
        split_unit(text.strip())[0].removesuffix("%").strip().rstrip(".").removesuffix(r"\ldots")
        for text in (decimal, exact)
    )
    places, exact_places = decimal_places(decimal), decimal_places(exact)
    if exact_places is not None and (places is None or exact_places < places):
        decimal, exact, places = exact, decimal, exact_places  # 0.667 \approx \frac{2}{3}
    given, value = exact_value(decimal), _value(exact)
    if not isinstance(given, Fraction) or value is None:
        return False
    if places is None:  # a whole number says little of a small one: 2 is not about 2.5
        return given == value or (given.denominator == 1 and abs(given - value) < min(1, abs(value) / 20))
    unit = Fraction(1, 10**places)
    is_cut_off = 0 <= abs(value) - abs(given) < unit and given * value >= 0
    return abs(given - value) <= unit / 2 or is_cut_off


def _value(text: str) -> Fraction | None:
    """A number, exactly or to some 15 digits; calls of functions are worked out first, with plain arguments only."""
    for _ in range(MAX_CALLS):
        call = _CALL.search(text)
        if call is None:
            break
        argument = exact_value(call["round"] or call["group"] or call["number"])
        if argument is None:
            return None
        with mpmath.workdps(30):
            number = _middle(argument) * (mpmath.pi / 180 if call["degrees"] else 1)
            if call["name"] in ("ln", "log") and number <= 0:
                return None
            result = _FUNCTIONS[call["name"]](number)
            if call["base"]:
                result /= mpmath.log(int(call["base"])) or mpmath.nan
            if not mpmath.isfinite(result):
                return None
            digits = mpmath.nstr(result, 25, min_fixed=-math.inf, max_fixed=math.inf)
            text = f"{text[: call.start()]}({digits}){text[call.end() :]}"
    value = exact_value(text)
    if value is None or isinstance(value, Fraction):
        return value
    return Fraction(mpmath.nstr(_middle(value), 15))


def _middle(value: Any) -> Any:
    if isinstance(value, Fraction):
        return mpmath.mpf(value.numerator) / value.denominator
    return mpmath.mpf(value.mid)


def approximation_readings(text: str) -> list[str] | None:
    r"""The exact and the approximate answer of ``x = \frac{2}{3} \approx 0.667``, each with the name in front.

    Returns:
        `list[str]` or `None`: empty where the two contradict each other; `None` where there are not two such answers.
    """
    match = re.fullmatch(r"(?P<name>[A-Za-z]\w*=)?(?P<exact>[^=]+)\\approx(?P<decimal>[^=,]+)", text)
    if match is None or r"\approx" in match["exact"] or _NAME.fullmatch(match["exact"].strip()):
        return None
    if not approximates(match["decimal"], match["exact"]):
        return []
    return [(match["name"] or "") + match[part] for part in ("exact", "decimal")]
