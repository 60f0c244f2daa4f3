r"""Exact value of arithmetic written in LaTeX, with bounded work: rationals as `Fraction`, the rest as enclosures.

This is the fast path: it needs neither sympy nor a worker. A text made of numbers, ``\frac``, ``\sqrt``, ``\pi``, ``e``
and ``+ - \cdot / ^ !`` has a value; any other text has none here (``None``), and goes to the symbolic path.

An irrational value is an interval of :mod:`mpmath` that is certain to hold it. Two disjoint intervals prove two answers
different; overlapping ones prove nothing, so equality of irrationals is never decided here.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import mpmath

MAX_BITS = 16_384
"""Larger numerators or denominators are left to the symbolic path (about 4,900 decimal digits)."""
MAX_TEXT_CHARS = 400
MAX_DIGITS = 4_000
MAX_DEPTH = 24
MAX_FACTORIAL = 1_000

Value = Any
"""A `Fraction`, or an interval of mpmath."""

_intervals = mpmath.iv.__class__()
_intervals.prec = 160

_TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<command>\\[A-Za-z]+)|(?P<symbol>[-+/^!(){}\[\]e])|(?P<space>\s+)"
)
_SCIENTIFIC = re.compile(r"(?P<mantissa>-?(?:\d+(?:\.\d*)?|\.\d+))[eE](?P<exponent>[-+]?\d{1,4})")
_GROUPED_DIGITS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[-+]?\d{1,3}(?: \d{3})+(?:\.\d+)?")
_REPEATING = re.compile(r"(-?)(\d*)\.(\d*)\\overline\{(\d+)\}")
_MIXED_TEXT = re.compile(r"(-?)(\d+) (\d+)/(\d+)")
_DECIMAL = re.compile(r"[-+]?\d*\.(\d+)")


class _NotArithmetic(Exception):
    """The text is not plain arithmetic, or too large to work out here."""


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise _NotArithmetic
    return value


def _interval(value: Value) -> Any:
    if isinstance(value, Fraction):
        return _intervals.mpf(value.numerator) / _intervals.mpf(value.denominator)
    return value


def _add(left: Value, right: Value) -> Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return _bounded(left + right)
    return _interval(left) + _interval(right)


def _multiply(left: Value, right: Value) -> Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return _bounded(left * right)
    return _interval(left) * _interval(right)


def _divide(left: Value, right: Value) -> Value:
    if isinstance(right, Fraction):
        if right == 0:
            raise _NotArithmetic
        return _multiply(left, 1 / right)
    if right.a <= 0 <= right.b:
        raise _NotArithmetic
    return _interval(left) / right


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(exponent, Fraction) and exponent.denominator == 1 and isinstance(base, Fraction):
        power = int(exponent)
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(power) * bits > MAX_BITS or (base == 0 and power <= 0):
            raise _NotArithmetic
        return base**power
    if isinstance(exponent, Fraction) and abs(exponent) > 64:
        raise _NotArithmetic
    base, exponent = _interval(base), _interval(exponent)
    if base.a <= 0 or exponent.b > 64 or exponent.a < -64 or base.b > 1e12:
        raise _NotArithmetic
    return _intervals.exp(exponent * _intervals.log(base))


def _root(radicand: Value, degree: int) -> Value:
    if isinstance(radicand, Fraction):
        if radicand < 0:
            raise _NotArithmetic
        top, bottom = _exact_root(radicand.numerator, degree), _exact_root(radicand.denominator, degree)
        if top is not None and bottom is not None:
            return Fraction(top, bottom)
    radicand = _interval(radicand)
    if radicand.a <= 0:
        raise _NotArithmetic
    return _intervals.exp(_intervals.log(radicand) / degree)


def _exact_root(number: int, degree: int) -> int | None:
    if number in (0, 1):
        return number
    if number.bit_length() > 256:
        raise _NotArithmetic
    guess = round(float(mpmath.root(number, degree)))
    return guess if guess**degree == number else None


class _Parser:
    """Recursive descent over the tokens of one text; depth and operand sizes are bounded."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(text):
            token = _TOKEN.match(text, position)
            if token is None:
                raise _NotArithmetic
            if token.lastgroup != "space":
                self.tokens.append((token.lastgroup or "", token.group()))
            position = token.end()
        self.position = 0
        self.depth = 0

    def peek(self) -> str:
        return self.tokens[self.position][1] if self.position < len(self.tokens) else ""

    def accept(self, token: str) -> bool:
        if self.peek() == token:
            self.position += 1
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise _NotArithmetic

    def sum(self) -> Value:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NotArithmetic
        total = self.product()
        while (sign := self.peek()) in ("+", "-") and sign:
            self.position += 1
            term = self.product()
            total = _add(total, term if sign == "+" else _multiply(Fraction(-1), term))
        self.depth -= 1
        return total

    def product(self) -> Value:
        value = self.signed()
        while True:
            following = self.peek()
            if following in (r"\cdot", r"\times", "/") and following:
                self.position += 1
                factor = self.signed()
                value = _divide(value, factor) if following == "/" else _multiply(value, factor)
            elif following in ("(", "e", r"\pi", r"\sqrt", r"\frac") and following:
                value = _multiply(value, self.power())  # 2\sqrt{3}; mixed numbers are taken in `atom`
            else:
                return value

    def signed(self) -> Value:
        if self.accept("-"):
            return _multiply(Fraction(-1), self.signed_again())
        if self.accept("+"):
            return self.signed_again()
        return self.power()

    def signed_again(self) -> Value:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NotArithmetic
        value = self.signed()
        self.depth -= 1
        return value

    def power(self) -> Value:
        base = self.atom()
        if self.accept("!"):
            step = 2 if self.accept("!") else 1  # 7!! is 7 times 5 times 3, not the factorial of 7!
            if not isinstance(base, Fraction) or base.denominator != 1 or not 0 <= base <= MAX_FACTORIAL:
                raise _NotArithmetic
            base = _bounded(Fraction(math.prod(range(int(base), 0, -step))))
        if not self.accept("^"):
            return base
        if self.accept("{"):
            exponent = self.sum()
            self.expect("}")
        elif self.peek() in ("-", "+"):
            exponent = self.signed()
        else:
            exponent = self.atom(may_be_mixed=False)  # x^2\frac{1}{2} has a product behind its exponent
        if self.peek() in ("^", "!"):
            raise _NotArithmetic
        return _power(base, exponent)

    def group(self) -> Value:
        self.expect("{")
        value = self.sum()
        self.expect("}")
        return value

    def atom(self, may_be_mixed: bool = True) -> Value:
        kind, token = self.tokens[self.position] if self.position < len(self.tokens) else ("", "")
        self.position += 1
        if kind == "number":
            value = _bounded(Fraction(token))
            if may_be_mixed and self.peek() == r"\frac":
                part = self.proper_fraction()
                if value.denominator != 1 or "." in token or part is None:
                    raise _NotArithmetic
                return value + part
            return value
        if token in ("(", "{"):
            value = self.sum()
            self.expect(")" if token == "(" else "}")
            return value
        if token == r"\frac":
            numerator = self.group()
            return _divide(numerator, self.group())
        if token == r"\sqrt":
            degree = Fraction(2)
            if self.accept("["):
                degree = self.atom()
                self.expect("]")
            if not isinstance(degree, Fraction) or degree.denominator != 1 or not 2 <= degree <= 32:
                raise _NotArithmetic
            return _root(self.group(), int(degree))
        if token == r"\pi":
            return _intervals.pi
        if token == "e":
            return _intervals.exp(_intervals.mpf(1))
        raise _NotArithmetic

    def proper_fraction(self) -> Fraction | None:
        r"""The fraction of a mixed number, as in ``1\frac{4}{5}``; ``None`` where it is not one of plain integers."""
        parts = [token for _, token in self.tokens[self.position : self.position + 7]]
        if len(parts) < 7 or (parts[1], parts[3], parts[4], parts[6]) != ("{", "}", "{", "}"):
            return None
        if not (parts[2].isdigit() and parts[5].isdigit()) or not 0 < int(parts[2]) < int(parts[5]):
            return None
        self.position += 7
        return Fraction(int(parts[2]), int(parts[5]))


def exact_value(text: str) -> Value | None:
    r"""Value of a normalized text, or ``None`` where it is not plain arithmetic or too large.

    Args:
        text (`str`): As :func:`~verl_ispo.grading.normalization.normalize_answer` returns it.

    Returns:
        `Fraction`, interval of mpmath, or `None`.
    """
    if text.isascii() and text.isdigit():
        return Fraction(int(text)) if len(text) <= MAX_DIGITS else None
    if len(text) > MAX_TEXT_CHARS:
        return None
    if not re.search(r"\d|\\pi|e", text):
        return None
    grouped = text.removeprefix("+")
    if _GROUPED_DIGITS.fullmatch(grouped):
        return Fraction(re.sub(r"[, ]", "", grouped))
    scientific = _SCIENTIFIC.fullmatch(text)
    if scientific is not None:
        exponent = int(scientific["exponent"])
        if abs(exponent) > MAX_BITS // 8:
            return None
        return Fraction(scientific["mantissa"]) * Fraction(10) ** exponent
    repeating = _REPEATING.fullmatch(text)
    if repeating is not None:
        sign, whole, fixed, cycle = repeating.groups()
        value = Fraction(int((whole or "0") + fixed)) + Fraction(int(cycle), 10 ** len(cycle) - 1)
        return (-1 if sign else 1) * value / 10 ** len(fixed)
    mixed = _MIXED_TEXT.fullmatch(text)
    if mixed is not None:
        sign, whole, top, bottom = mixed.groups()
        if not 0 < int(top) < int(bottom):
            return None
        return (-1 if sign else 1) * (int(whole) + Fraction(int(top), int(bottom)))
    try:
        parser = _Parser(text)
        value = parser.sum()
        return value if parser.position == len(parser.tokens) else None
    except (_NotArithmetic, ZeroDivisionError, OverflowError, ValueError):
        return None


def values_equal(left: Value, right: Value, tolerance: Fraction | None = None) -> bool | None:
    """Compare two values; ``None`` where neither equality nor difference is proven.

    Args:
        left, right (`Fraction` or interval): From :func:`exact_value`.
        tolerance (`Fraction`, *optional*): Largest absolute difference that still counts as equal.
    """
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left == right if tolerance is None else abs(left - right) <= tolerance
    difference = _interval(left) - _interval(right)
    bound = _interval(tolerance) if tolerance is not None else _intervals.mpf(0)
    if difference.a > bound.b or difference.b < -bound.b:
        return False
    if tolerance is not None and -bound.a <= difference.a and difference.b <= bound.a:
        return True
    return None


def decimal_places(text: str) -> int | None:
    """Digits after the point where the text is one decimal number such as ``-0.125``, else ``None``."""
    match = _DECIMAL.fullmatch(text)
    return len(match.group(1)) if match else None


def significant_digits(text: str) -> int:
    """Significant digits of a decimal number: ``0.00123`` has three."""
    return len(re.sub(r"\D", "", text).lstrip("0"))
