r"""Sets of numbers by conditions: ``x > 2 \text{ and } x \le 5``, ``|x| < 1``, ``\{x \mid x > 2\}``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from .answer_nodes import Assignment, Collection, Difference, Node, Relation, Scalar, Union
from .exact_numbers import exact_value

MAX_LISTED = 64
"""A set of integers between bounds is listed up to this size."""

REAL_LINE = Collection("(", ")", (Scalar(r"-\infty"), Scalar(r"\infty")))
EMPTY_SET = Scalar(r"\emptyset")

_NUMBER = r"(?:\d{1,9}(?:\.\d{1,9})?|\\frac\{\d{1,9}\}\{\d{1,9}\}|\d{1,9}/\d{1,9})"
_ABSOLUTE = re.compile(rf"\|(?P<factor>-?{_NUMBER}?)(?P<name>[a-vxy])(?P<shift>[-+]{_NUMBER})?\|")
_BUILDER = re.compile(
    r"\(?(?P<name>[A-Za-z]|\\[a-z]{2,8})\)?(?: ?\\in ?\\mathbb\{(?P<domain>[A-Z])\})?"
    r"(?:[:|]|\\text\{ ?such that ?\})(?P<condition>.+)"
)


def _end_value(end: Node) -> Fraction | float | None:
    if not isinstance(end, Scalar) or end.unit or end.percent or end.scale != 1:
        return None
    if end.text in (r"\infty", r"+\infty", r"-\infty"):
        return -math.inf if end.text.startswith("-") else math.inf
    value = exact_value(end.text)
    if value is None or isinstance(value, Fraction):
        return value
    middle = float(value.mid)
    return middle if float(value.delta) < 1e-12 * max(1.0, abs(middle)) else None


def conjunction(conditions: Sequence[Node], is_plain_list: bool = False) -> Node | None:
    """The set in which conditions on one variable hold at once.

    Args:
        conditions (`Sequence[Node]`): intervals with a variable, and relations ``x \\ne 1``.
        is_plain_list (`bool`, *optional*, defaults to `False`):
            The conditions are separated by commas alone, which could separate alternatives, too. They count as
            conditions at once only where they bound the variable from both sides.

    Returns:
        `Node` or `None`: with the variable; `None` where the conditions are of another kind, or not comparable.
    """
    intervals = [item for item in conditions if isinstance(item, Collection)]
    points = [item for item in conditions if isinstance(item, Relation) and item.operator == r"\ne"]
    names = {item.variable for item in intervals} | {item.left for item in points}
    if len(intervals) + len(points) < len(conditions) or len(names) != 1 or "" in names:
        return None
    if not intervals:
        return Difference(REAL_LINE, Collection("{", "}", tuple(Scalar(point.right) for point in points)))
    bounding = [item for item in intervals if item.items != REAL_LINE.items]  # x \\in \\mathbb{R} says nothing
    if len(bounding) == 1 and not points:
        return bounding[0]
    lows, highs = [], []
    for interval in intervals:
        if len(interval.items) != 2 or not {interval.left, interval.right} <= set("()[]"):
            return None
        low, high = (_end_value(end) for end in interval.items)
        if low is None or high is None:
            return None
        # of two equal ends the open one counts
        lows.append((low, interval.left == "(", interval.items[0]))
        highs.append((high, interval.right != ")", interval.items[1]))
    low, high = max(lows, key=lambda end: end[:2]), min(highs, key=lambda end: end[:2])
    bounded = [sum(not math.isinf(end[0]) for end in ends) for ends in (lows, highs)]
    if is_plain_list and (max(bounded) > 1 or low[0] >= high[0] or (sum(bounded) < 2 and not points)):
        return None
    name = names.pop()
    if low[0] > high[0] or (low[0] == high[0] and (low[1] or not high[1])):
        return EMPTY_SET
    whole = Collection("(" if low[1] else "[", "]" if high[1] else ")", (low[2], high[2]), name)
    if not points:
        return whole
    excluded = tuple(Scalar(point.right) for point in points)
    return Difference(replace(whole, variable=""), Collection("{", "}", excluded))


def absolute_bound(left: str, operator: str, right: str) -> Node | None:
    r"""``|x-a| < b`` as an interval and ``|x-a| > b`` as a union, with the variable; `None` for anything else.

    ``|z|`` and ``|w|`` are left alone, since a complex number may be meant.
    """
    match = _ABSOLUTE.fullmatch(left)
    bound = exact_value(right) if match is not None else None
    if match is None or bound is None or bound <= 0:
        return None
    name, factor, shift = match["name"], match["factor"] or "1", match["shift"] or "0"
    scale = exact_value(factor if factor != "-" else "-1")
    if factor == "1" and shift == "0":
        low, high = (
            Scalar(f"-{right}" if re.fullmatch(r"[\w.]+|\\(?:frac|sqrt)[^+-]*", right) else f"-({right})"),
            Scalar(right),
        )
    elif isinstance(bound, Fraction) and isinstance(scale, Fraction) and scale != 0:
        offset = exact_value(shift.lstrip("+"))
        if not isinstance(offset, Fraction):
            return None
        low, high = (Scalar(str(end)) for end in sorted(((-bound - offset) / scale, (bound - offset) / scale)))
    else:
        return None
    if operator in ("<", r"\le"):
        left_bracket, right_bracket = ("[", "]") if operator == r"\le" else ("(", ")")
        return Collection(left_bracket, right_bracket, (low, high), name)
    if operator in (">", r"\ge"):
        closed = operator == r"\ge"
        below = Collection("(", "]" if closed else ")", (Scalar(r"-\infty"), low))
        return Union((below, Collection("[" if closed else "(", ")", (high, Scalar(r"\infty")))), name)
    return None


def builder_parts(inside: str) -> tuple[str, str, str] | None:
    r"""``(variable, domain, condition)`` of what stands in the braces of a set given by a condition.

    The domain is the letter of ``\mathbb{Z}``, and ``R`` where none is given.
    """
    match = _BUILDER.fullmatch(inside)
    return None if match is None else (match["name"], match["domain"] or "R", match["condition"].strip())


def set_by_condition(name: str, domain: str, condition: Node) -> Node | None:
    """The set of numbers that a condition on a name describes; `None` where it describes no known set."""
    if isinstance(condition, Assignment) and condition.name == name and not condition.parameters and domain == "R":
        value = condition.value
        return value if isinstance(value, Collection) and value.unordered else Collection("{", "}", (value,))
    if condition == EMPTY_SET:
        return EMPTY_SET
    if isinstance(condition, Difference) and domain == "R":
        return condition
    if isinstance(condition, Relation) and domain == "R" and condition.operator == r"\ne" and condition.left == name:
        return Difference(REAL_LINE, Collection("{", "}", (Scalar(condition.right),)))
    if not isinstance(condition, Collection | Union) or condition.variable != name:
        return None
    if domain == "R":
        return replace(condition, variable="")
    return _integers(condition, domain) if isinstance(condition, Collection) and domain in "ZN" else None


def _integers(interval: Collection, domain: str) -> Node | None:
    low, high = (_end_value(end) for end in interval.items)
    if not isinstance(low, Fraction) or not isinstance(high, Fraction) or (domain == "N" and low < 1):
        return None
    first, last = math.ceil(low), math.floor(high)
    first += interval.left == "(" and first == low
    last -= interval.right == ")" and last == high
    if not 0 <= last - first < MAX_LISTED:
        return None
    return Collection("{", "}", tuple(Scalar(str(number)) for number in range(first, last + 1)))
