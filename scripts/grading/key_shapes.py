r"""What kind of text an answer key is, read without the grader, so that the grader is not tested with its own reader.

Everything here errs on the side of "unknown": a key that is not plainly of a kind belongs to none.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import mpmath

reals = mpmath.MPContext()
reals.dps = 40
"""Digits to which values are worked out; a context of its own, so that the grader's is as it is elsewhere."""

MAX_EXPONENT = 4_000
"""No larger power is worked out here."""

_TOKEN = re.compile(r"\d+(?:\.\d+)?|\.\d+|\\[A-Za-z]+|[-+*/^!(){}\[\]_ei,]|\s+")
_FRACTION = re.compile(
    r"(?P<sign>-?)(?:\\[dt]?frac\{(?P<top>-?\d+)\}\{(?P<bottom>\d+)\}|\\[dt]?frac(?P<t>\d)(?P<b>\d)"
    r"|(?P<over>\d+)/(?P<under>\d+))"
)
_SYMBOLIC_COMMANDS = frozenset(
    [
        *(r"\frac", r"\dfrac", r"\tfrac", r"\sqrt", r"\pi", r"\sin", r"\cos", r"\tan", r"\ln", r"\log", r"\cdot"),
        *(r"\times", r"\alpha", r"\beta", r"\theta", r"\lambda", r"\left", r"\right"),
    ]
)
_FUNCTIONS = {
    r"\sin": reals.sin, r"\cos": reals.cos, r"\tan": reals.tan, r"\ln": reals.log, r"\arctan": reals.atan,
}  # fmt: skip


class _NoValue(Exception):
    """The text is not a number that can be worked out here."""


@dataclass(frozen=True)
class Key:
    """One ground truth.

    Attributes:
        gold (`str`): as the prepared file has it; several answers are a JSON list of strings.
        info (`dict`): its ``extra_info``.
    """

    gold: str
    info: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def listed(self) -> tuple[str, ...]:
        """Several answers, where the file gives them as a list."""
        if self.info.get("multiple_answers") or self.gold.startswith('["'):
            try:
                answers = json.loads(self.gold)
            except ValueError:
                return ()
            return tuple(map(str, answers)) if isinstance(answers, list) and len(answers) > 1 else ()
        return ()

    @cached_property
    def text(self) -> str:
        """The key as a response would write it."""
        if self.gold.startswith('["') and not self.listed:
            try:
                return str(json.loads(self.gold)[0])
            except (ValueError, IndexError):
                return self.gold
        return ", ".join(self.listed) if self.listed else self.gold.strip()

    @cached_property
    def items(self) -> tuple[str, ...]:
        """The members of a bare list, none of which has a name; empty for any other key."""
        if self.listed:
            members: tuple[str, ...] = self.listed
        else:
            if as_integer(self.text) is not None or r"\text" in self.text or r"\in" in self.text:
                return ()
            members = tuple(split_commas(self.text))
        unusual = re.compile(r"[=<>:|&]|\\[lg]eq?(?![A-Za-z])|\\l?dots|\\pm|\\begin")
        plain = all(part and not unusual.search(part) for part in members)
        return members if len(members) > 1 and plain else ()

    @cached_property
    def brackets(self) -> tuple[str, tuple[str, ...], str] | None:
        """``(left, members, right)`` of a tuple or an interval of at least two members."""
        text = plain_brackets(self.text)
        if len(text) < 5 or text[0] not in "([" or text[-1] not in ")]" or not _is_one_bracket(text):
            return None
        members = tuple(part.strip() for part in split_commas(text[1:-1]))
        if len(members) < 2 or not all(members) or re.search(r"[=<>;&]|\\begin|\\text", text):
            return None
        return text[0], members, text[-1]

    @cached_property
    def interval(self) -> tuple[str, str, str, str] | None:
        """``(left, low, high, right)`` of what can only be an interval of numbers."""
        if self.brackets is None or len(self.brackets[1]) != 2:
            return None
        left, (low, high), right = self.brackets
        low_value, high_value = value_of(low), value_of(high)
        endless = r"\infty" in low + high
        if not endless and (low_value is None or high_value is None or not real_less(low_value, high_value)):
            return None
        if not all(value is not None or r"\infty" in end for value, end in ((low_value, low), (high_value, high))):
            return None
        return (left, low, high, right) if endless or left == "[" or right == "]" else None

    @cached_property
    def braces(self) -> tuple[str, ...] | None:
        r"""Members of an explicit set ``\{a, b\}``."""
        text = plain_brackets(self.text)
        if not (text.startswith(r"\{") and text.endswith(r"\}")) or text.count(r"\{") != 1:
            return None
        members = tuple(part.strip() for part in split_commas(text[2:-2]))
        unusual = re.search(r"[=<>:|]|\\mid|\\in|dots|\\text", text)
        return None if unusual or not all(members) else members

    @cached_property
    def value(self) -> Any:
        """The number that the key is, or `None`."""
        return None if self.listed else value_of(self.text)

    @cached_property
    def integer(self) -> int | None:
        """The key as a plain whole number."""
        return None if self.listed else as_integer(self.text)

    @cached_property
    def fraction(self) -> tuple[str, int, int] | None:
        """Sign, numerator and denominator of a plain fraction of whole numbers."""
        match = None if self.listed else _FRACTION.fullmatch(self.text.replace(" ", ""))
        if match is None:
            return None
        top = int(match["top"] or match["t"] or match["over"])
        bottom = int(match["bottom"] or match["b"] or match["under"])
        if bottom == 0 or (top < 0 and match["sign"]):
            return None
        return ("-" if match["sign"] or top < 0 else ""), abs(top), bottom

    @cached_property
    def decimal(self) -> str | None:
        """A plain finite decimal."""
        return self.text if re.fullmatch(r"-?\d*\.\d+", self.text) else None

    @cached_property
    def named(self) -> tuple[str, str] | None:
        """Name and value of ``x = 5`` or ``f(x) = 2x``."""
        match = re.fullmatch(r"([A-Za-z](?:\([a-z]\))?)\s*=\s*([^=<>]+)", self.text)
        if match is None or self.listed or re.search(r",|\\text|\\pm|\\in\b|\\quad|\\le|\\ge", match[2]):
            return None
        return match[1], match[2].strip()

    @cached_property
    def named_list(self) -> tuple[tuple[str, str], ...]:
        """Names and values of ``x=3, y=2``: different names, different numbers."""
        pairs = tuple(re.findall(r"([A-Za-z])\s*=\s*([^=,]+?)\s*(?:,|$)", self.text))
        names, values = {name for name, _ in pairs}, [value_of(value) for _, value in pairs]
        whole = re.sub(r"\s", "", ",".join(f"{name}={value}" for name, value in pairs)) == re.sub(r"\s", "", self.text)
        if self.listed or not whole or len(pairs) < 2 or len(names) < len(pairs) or None in values:
            return ()
        return pairs if len(set(values)) == len(values) else ()

    @cached_property
    def choice(self) -> str | None:
        """The letter of a multiple-choice key."""
        match = re.fullmatch(r"(?:\\text\{)?\(?([A-E])\)?\}?", self.text)
        return match[1] if match and not self.listed else None

    @cached_property
    def boolean(self) -> str | None:
        """Yes, No, True or False."""
        match = re.fullmatch(r"(?:\\text\{)?(Yes|No|True|False)\}?", self.text, re.IGNORECASE)
        return match[1] if match else None

    @cached_property
    def symbolic(self) -> bool:
        """An expression in letters that arithmetic changes: no names of sets, no free constants, no growth rates."""
        text = self.text
        commands = set(re.findall(r"\\[A-Za-z]+", text))
        if self.listed or self.value is not None or not commands <= _SYMBOLIC_COMMANDS or len(text) > 200:
            return False
        if re.search(r"[=<>,;:|&%$'\"]|\\[^A-Za-z]|[CcKO]|[A-Za-z]{4}|\.\.", re.sub(r"\\[A-Za-z]+", " ", text)):
            return False
        letters = re.sub(r"\\[A-Za-z]+", "", text)
        if not re.search(r"[a-z]", letters) or re.search(r"k|n.*\\pi|\\pi.*n", text):
            return False  # 2k\pi may stand for all multiples
        return bool(re.fullmatch(r"[a-z]", text.strip())) or bool(re.search(r"[-+^]|\d|\\frac|\\sqrt", text))

    @cached_property
    def scalar(self) -> bool:
        """One number or expression."""
        return self.value is not None or self.symbolic

    @cached_property
    def has_unit(self) -> bool:
        """Whether the key, or what the file says about it, has a unit, a percent sign or degrees."""
        return bool(self.info.get("unit")) or bool(re.search(r"circ|degree|\\%|%|\\\$|\\text|\\mathrm", self.text))

    def differs(self, text: str) -> bool:
        """Whether a text certainly has another value than the key, beyond its tolerance."""
        value = value_of(text)
        if self.value is None or value is None:
            return False
        tolerance = max([0.0, *map(float, _numbers(str(self.info.get("tolerance") or "")))])
        return bool(abs(value - self.value) > 1e-12 * (1 + abs(self.value)) + 2 * tolerance)


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d*)?(?:e-?\d+)?", text)


def plain_brackets(text: str) -> str:
    r"""The text without ``\left``, ``\right`` and sizes."""
    return re.sub(r"\\(?:left|right|big|Big|bigl|bigr)(?![A-Za-z])\s*", "", text).strip()


def _is_one_bracket(text: str) -> bool:
    depth = 0
    for index, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth <= 0 and index < len(text) - 1:
            return False
    return depth == 0


def split_commas(text: str) -> list[str]:
    r"""The parts between commas that are in no bracket; neither ``\,`` nor ``,\!`` is such a comma."""
    parts, start, depth = [], 0, 0
    for index, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0 and text[index - 1 : index] != "\\" and not text.startswith(r"\!", index + 1):
            parts.append(text[start:index].strip())
            start = index + 1
    return [*parts, text[start:].strip()]


def as_integer(text: str) -> int | None:
    """The whole number that a text is, with or without thousands separators."""
    if re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    if re.fullmatch(r"-?\d{1,3}(?:(?:,|\{,\}|,\\!\s?|\\,)\d{3})+", text):
        return int(re.sub(r"[^-\d]", "", text))
    return None


def real_less(left: Any, right: Any) -> bool:
    """Whether both numbers are real and the first is below the second."""
    return not reals.im(left) and not reals.im(right) and reals.re(left) < reals.re(right)


def value_of(text: str) -> Any:
    """The number that a text is, as mpmath has it; `None` where it is none, or too large to work out."""
    integer = as_integer(text)
    if integer is not None:
        return reals.mpf(integer)
    if len(text) > 200 or re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+|[ei]", "", text)):
        return None
    text = re.sub(r"\\(?:left|right)(?![A-Za-z])|\\[,;!]", " ", text)
    text = text.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    try:
        reader = _Reader(text)
        value = reader.sum()
        if reader.tokens:
            return None
        return value if reals.isfinite(value) else None
    except (_NoValue, ValueError, ZeroDivisionError, OverflowError, mpmath.libmp.NoConvergence):
        return None


class _Reader:
    """Recursive descent over plain arithmetic."""

    def __init__(self, text: str) -> None:
        found = _TOKEN.findall(text)
        if "".join(found) != text:
            raise _NoValue
        self.tokens = [token for token in found if not token.isspace()]

    def peek(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def take(self, expected: str = "") -> str:
        if not self.tokens or (expected and self.tokens[0] != expected):
            raise _NoValue
        return self.tokens.pop(0)

    def sum(self) -> Any:
        total = self.product()
        while self.peek() in ("+", "-"):
            total += self.product() if self.take() == "+" else -self.product()
        return total

    def product(self) -> Any:
        if self.peek() in ("-", "+"):
            return -self.product() if self.take() == "-" else self.product()
        value = self.power()
        while True:
            following = self.peek()
            if following in ("*", r"\cdot", r"\times"):
                self.take()
                value *= self.power()
            elif following == "/":
                self.take()
                value /= self.power()
            elif following in ("(", "e", "i", "{") or (following.startswith("\\") and following != "\\"):
                value *= self.power()
            else:
                return value

    def power(self) -> Any:
        base = self.atom()
        while self.peek() == "!":
            self.take()
            if base != int(reals.re(base)) or not 0 <= reals.re(base) <= 200:
                raise _NoValue
            base = reals.factorial(base)
        if self.peek() != "^":
            return base
        self.take()
        exponent = self.argument()
        if abs(exponent) > MAX_EXPONENT or self.peek() == "^":
            raise _NoValue
        return reals.power(base, exponent)

    def argument(self) -> Any:
        """A group in braces, or what TeX takes without them: one digit or command."""
        if self.peek() == "{":
            self.take()
            value = self.sum()
            self.take("}")
            return value
        token = self.peek()
        if token.isdigit() and len(token) > 1:
            self.tokens[0] = token[1:]
            return reals.mpf(token[0])
        return self.atom()

    def atom(self) -> Any:
        token = self.take()
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            if self.peek() == r"\frac" and "." not in token:
                part = self.atom()
                if not 0 < reals.re(part) < 1:
                    raise _NoValue
                return reals.mpf(token) + part
            return reals.mpf(token)
        if token in ("(", "{"):
            value = self.sum()
            self.take(")" if token == "(" else "}")
            return value
        if token == r"\frac":
            top = self.argument()
            return top / self.argument()
        if token == r"\sqrt":
            degree = reals.mpf(2)
            if self.peek() == "[":
                self.take()
                degree = self.atom()
                self.take("]")
            return reals.power(self.argument(), 1 / degree)
        if token == r"\pi":
            return +reals.pi
        if token == "e":
            return +reals.e
        if token == "i":
            return reals.mpc(0, 1)
        if token == r"\log" and self.peek() == "_":
            self.take()
            base = self.argument()
            return reals.log(self.bare_argument()) / reals.log(base)
        if token in _FUNCTIONS:
            return _FUNCTIONS[token](self.bare_argument())
        raise _NoValue

    def bare_argument(self) -> Any:
        """What a function without brackets is applied to, where that is not open to doubt."""
        if self.peek() in ("(", "{"):
            return self.atom()
        value = self.atom()
        if self.tokens and self.peek() not in ("+", "-", ")", "}"):
            raise _NoValue
        return value
