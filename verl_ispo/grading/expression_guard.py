"""What may be parsed: mathematics in LaTeX, of bounded length, depth and size of its numbers. Needs no sympy."""

from __future__ import annotations

import re

MAX_EXPRESSION_CHARS = 800
MAX_NESTING = 24
MAX_POWER_LEVELS = 2

_ALLOWED = re.compile(r"[A-Za-z0-9\\^_{}()\[\]|+\-*/=<>,.!':& ]+")
_PYTHON = re.compile(r"__|(?<!\\)\b(?:import|lambda|exec|eval|open|print|getattr|globals|locals|compile|subprocess)\b")
_HUGE_LITERAL = re.compile(r"\d{5,}\s*[})]?\s*!|!\s*!|\^\s*\{[\d^{}]*\}\s*!|\^\s*[{(]*-?\d{6,}|\d{1000,}")
_NUMERIC_TOWER = re.compile(r"\^\{?(\d+)\}?\^\{?(\d+)|\^\{(\d+)\^\{?(\d+)")


class RefusedExpression(Exception):
    """The text is too long or too deep to work out, or its numbers are too large."""


class GoldNotUnderstood(Exception):
    """The ground truth is not an expression that the parser knows, so nothing can be compared with it."""


def check_expression(text: str) -> bool:
    """Whether a text may be parsed: ``False`` where it is not mathematics.

    Raises:
        RefusedExpression: if the text is too long, too deep, or names numbers that are too large to work out.
    """
    if not _ALLOWED.fullmatch(text) or _PYTHON.search(text):
        return False
    if len(text) > MAX_EXPRESSION_CHARS:
        raise RefusedExpression(f"expression of {len(text)} characters (limit {MAX_EXPRESSION_CHARS})")
    depth = deepest = 0
    for char in re.sub(r"\\[{}]", "", text):
        depth += (char in "{([") - (char in "})]")
        deepest = max(deepest, depth)
    if deepest > MAX_NESTING:
        raise RefusedExpression(f"expression nested {deepest} levels deep (limit {MAX_NESTING})")
    if _HUGE_LITERAL.search(text) or _power_levels(text) > MAX_POWER_LEVELS or _huge_tower(text):
        raise RefusedExpression("a number is too large to work out")
    return True


def _power_levels(text: str) -> int:
    """Height of the highest tower of powers: 1 for ``x^{2}y^{3}``, 2 for ``a^{b^c}`` and for ``a^b^c``."""
    highest = chain = 0
    open_groups: list[int] = []  # for each open bracket: how many levels of exponent it is in
    in_exponent = after_exponent = False
    for char in text.replace(" ", ""):
        if char == "^":
            chain = chain + 1 if after_exponent else 1
            highest = max(highest, sum(open_groups) + chain)
            in_exponent, after_exponent = True, False
        elif char in "{([":
            open_groups.append(chain if in_exponent else 0)
            in_exponent = after_exponent = False
        elif char in "})]":
            chain = open_groups.pop() if open_groups else 0
            in_exponent, after_exponent = False, chain > 0
        elif not (in_exponent and char in "+-"):
            in_exponent, after_exponent = False, in_exponent
    return highest


def _huge_tower(text: str) -> bool:
    """Whether a number is raised to a power of numbers that has more than six digits, as in ``10^{10^{10}}``."""
    for tower in _NUMERIC_TOWER.finditer(text):
        base, exponent = (int(part[:7]) for part in tower.groups() if part)
        if base > 1 and exponent * base.bit_length() > 24:
            return True
    return False
