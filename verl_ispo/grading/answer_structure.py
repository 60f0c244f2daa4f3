r"""Split an answer into its parts: tuples, sets, intervals, lists, matrices, equations, inequalities; and scalars.

The parts are compared one by one, so that the parser behind the symbolic path sees scalars alone. What a bracket means
is decided here, once, for both sides:

- ``(a, b)`` and ``[a, b]`` keep their brackets: a pair and an open interval are written alike, and are the same answer;
- a bare list, ``\{...\}``, ``a and b``, ``a \pm b`` and several assignments to one name are sets, in any order;
- ``1,000`` is a number, ``1, 000`` and ``1,2`` are lists, and within brackets a comma always separates.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from fractions import Fraction

from .answer_nodes import Assignment, Collection, Difference, Matrix, Node, Relation, Scalar, Union
from .approximations import approximates
from .exact_numbers import decimal_places, exact_value, values_equal
from .latex_groups import group_end
from .phrases import phrase_meaning
from .set_notation import REAL_LINE, absolute_bound, builder_parts, conjunction, set_by_condition
from .units import split_scale, split_unit

MAX_DEPTH = 12
MAX_ITEMS = 64


_AND_OR = (
    r"\\text\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\lor(?![A-Za-z])|\\vee(?![A-Za-z])"
)
_SEPARATOR = re.compile(rf"\s*(?:[,;]\s*(?:{_AND_OR})?|{_AND_OR}|\\text\{{\s*[,;]\s*\}})\s*")
_AND = re.compile(r"\s*\\(?:land|wedge)(?![A-Za-z])\s*")
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?")
_COMMA = re.compile(r"\s*[,;]\s*")
_CONDITION = re.compile(r":|\||\\text\{ ?such that")
_NAME = (
    r"(?:\\text\{[A-Za-z ]{1,40}\}|[A-Za-z]{1,3}|\\(?!frac|sqrt|not|neg|pi(?![A-Za-z]))[A-Za-z]+)"
    r"(?:_(?:\{[^{}]{1,16}\}|[A-Za-z0-9]|\\[A-Za-z]+))?'{0,3}"
)
_NAMED = re.compile(rf"({_NAME})(?:\(([A-Za-z](?:,[A-Za-z])*)\))?")
_THOUSANDS = re.compile(rf"(?:{_NAME}\s*=\s*)?[-+]?\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?")
_FUNCTION = re.compile(rf"{_NAME}\([A-Za-z](?:,[A-Za-z])*\)")
_DENIES = re.compile(r"\b(?:not|never|no|but|except|unlike|neither|nor|wrong|incorrect|false)\b", re.IGNORECASE)
_PLAIN_NAME = re.compile(r"(?:[A-Za-z]|\\[A-Za-z]+)(?:_(?:\{[^{}]{1,16}\}|[A-Za-z0-9]))?")
_COMPARISON = re.compile(
    r"(\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\ne(?![A-Za-z])|\\in(?![A-Za-z])|\\approx(?![A-Za-z])|(?<!\\)[<>=])"
)
_MATRIX = re.compile(
    r"\\begin\{(p|b|small|)matrix\}(.*)\\end\{\1matrix\}|\\begin\{array\}\{[^{}]*\}(.*)\\end\{array\}", re.DOTALL
)
_SYSTEM = re.compile(r"\\begin\{(cases|aligned|align\*?|gathered|array)\}(?:\{[clr|]*\})?(.*)\\end\{\1\}", re.DOTALL)
_EQUATION_ROW = re.compile(r"[^=<>,;]+=[^=<>,;]+")
_NAMES = re.compile(rf"\(\s*{_NAME}(?:\s*,\s*{_NAME}){{1,9}}\s*\)")
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}


class TooComplex(Exception):
    """The text is nested deeper, or lists more items, than is split here."""


def split_top_level(text: str, pattern: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Split at matches of ``pattern`` outside all brackets; returns the pieces and the separators between them."""
    pieces, separators = [], []
    depth = start = index = 0
    while index < len(text):
        char = text[index]
        if depth == 0:
            match = pattern.match(text, index)
            if match is not None and match.end() > index:
                pieces.append(text[start:index])
                separators.append(match.group())
                start = index = match.end()
                continue
        if char == "\\":
            following = text[index + 1 : index + 2]
            if following == "{" or text.startswith((r"\langle", r"\lfloor", r"\lceil", r"\begin"), index):
                depth += 1
            elif following == "}" or text.startswith((r"\rangle", r"\rfloor", r"\rceil", r"\end"), index):
                depth = max(0, depth - 1)
            index += 2
            continue
        if char in "{([":
            depth += 1
        elif char in "})]":
            depth = max(0, depth - 1)
        index += 1
    pieces.append(text[start:])
    return pieces, separators


def _outer_brackets(text: str) -> tuple[str, str, str] | None:
    """``(left, inside, right)`` where one pair of brackets, of equal or mixed kind, encloses the whole text."""
    for left, right in ((r"\{", r"\}"), (r"\langle", r"\rangle")):
        if text.startswith(left) and text.endswith(right):
            inside = text[len(left) : -len(right)]
            if inside.count(left) == inside.count(right) and not _closes_early(inside, left, right):
                return left[:2], inside.strip(), right[:2]
    if len(text) < 2 or text[0] not in "([" or text[-1] not in ")]":
        return None
    inside = text[1:-1]
    depth, index = 0, 0
    while index < len(inside):
        if inside[index] == "\\":
            index += 2
            continue
        depth += (inside[index] in "([") - (inside[index] in ")]")
        if depth < 0:
            return None
        index += 1
    return (text[0], inside, text[-1]) if depth == 0 else None


def _closes_early(inside: str, left: str, right: str) -> bool:
    depth = 0
    for token in re.finditer(f"{re.escape(left)}|{re.escape(right)}", inside):
        depth += 1 if token.group() == left else -1
        if depth < 0:
            return True
    return False


def _strip_group(text: str) -> str:
    while text.startswith("{") and group_end(text, 0) == len(text):
        text = text[1:-1].strip()
    return text


def _expand_signs(text: str) -> list[str]:
    r"""``a \pm b`` becomes ``a + b`` and ``a - b``; ``\mp`` takes the sign opposite to ``\pm``."""
    signs = re.findall(r"\\(?:pm|mp)(?![A-Za-z])", text)
    if not signs or len(signs) > 3:
        return [text]
    tied = r"\mp" in signs
    choices = [0, 1] if tied else range(2 ** len(signs))
    variants = []
    for choice in choices:
        position = -1

        def sign(match: re.Match[str], choice: int = choice) -> str:
            nonlocal position
            position += 1
            negative = choice if tied else choice >> position & 1
            return "-" if bool(negative) != (tied and match.group() == r"\mp") else "+"

        variant = re.sub(r"\\(?:pm|mp)(?![A-Za-z])", sign, text)
        variants.append(re.sub(r"(^|[=(\[,{])\s*\+", r"\1", variant).replace("+ ", "+"))
    return variants


def parse_answer(text: str, several: bool = False, depth: int = 0) -> Node:
    r"""Split a normalized answer into its parts.

    Args:
        text (`str`): As :func:`~verl_ispo.grading.normalization.normalize_answer` returns it.
        several (`bool`, *optional*, defaults to `False`):
            The problem has several answers, so a top-level comma always separates, even in ``100,200``.
        depth (`int`, *optional*, defaults to 0): Depth within the answer; bounded by :data:`MAX_DEPTH`.

    Raises:
        TooComplex: if the answer is nested deeper than :data:`MAX_DEPTH` or lists more than :data:`MAX_ITEMS` items.
    """
    if depth > MAX_DEPTH:
        raise TooComplex(f"answer nested deeper than {MAX_DEPTH} levels")
    if _PLAIN_NUMBER.fullmatch(text):
        return Scalar(text)
    text = _system_rows(_strip_group(text.strip()))
    if (matrix := _parse_matrix(text, depth)) is not None:
        return matrix
    if (opened_outward := re.fullmatch(r"(\]|\[)([^\[\]]+)(\]|\[)", text)) is not None and "," in text:
        left, inside, right = opened_outward.groups()  # ]1, 2] is (1, 2]
        text = f"{'(' if left == ']' else '['}{inside}{')' if right == '[' else ']'}"
    if text.startswith((r"\neg", r"\lnot", r"\not")):
        return Scalar(text)  # what an answer denies is no answer
    if text[:1].isalpha() or text.startswith((r"\text", r"\mathbb")):
        text = phrase_meaning(text) or text
    if text == r"\mathbb{R}":
        return REAL_LINE
    if several or not _THOUSANDS.fullmatch(split_unit(text)[0]):
        pieces, separators = split_top_level(text, _SEPARATOR)
        pieces = [piece for piece in pieces if piece.strip()]
        if separators and pieces and (len(pieces) > 1 or several):
            return _parse_list(pieces, separators, depth)
    if r"\land" in text or r"\wedge" in text:
        pieces, _ = split_top_level(text, _AND)
        if 1 < len(pieces) <= MAX_ITEMS and all(piece.strip() for piece in pieces):
            together = conjunction([parse_answer(piece, depth=depth + 1) for piece in pieces])
            if together is not None:
                return together
    unions, separators = split_top_level(text, re.compile(r"\s*\\cup(?![A-Za-z])\s*"))
    if separators and r"\in" not in re.findall(r"\\[A-Za-z]+", unions[0]):
        return Union(tuple(parse_answer(part, depth=depth + 1) for part in unions[:MAX_ITEMS]))
    sides, separators = split_top_level(text, re.compile(r"\s*\\(?:setminus|backslash)(?![A-Za-z])\s*"))
    if len(sides) == 2 and all(sides) and r"\in" not in re.findall(r"\\[A-Za-z]+", sides[0]):
        return Difference(parse_answer(sides[0], depth=depth + 1), parse_answer(sides[1], depth=depth + 1))
    if (relation := _parse_comparison(text, depth)) is not None:
        return relation
    if (brackets := _outer_brackets(text)) is not None and brackets[0] == r"\{":
        return _parse_braces(text, brackets[1], depth)
    if re.search(r"\\(?:pm|mp)(?![A-Za-z])", text):
        variants = _expand_signs(text)
        if len(variants) > 1:
            return _flat_set([parse_answer(variant, depth=depth + 1) for variant in variants])
    if (collection := _parse_brackets(text, depth)) is not None:
        return collection
    return _parse_scalar(text)


def _system_rows(text: str) -> str:
    r"""``\begin{cases}x=3\\y=5\end{cases}`` and ``x=3\\y=5`` as the list ``x=3,y=5``; any other text as it is."""
    # \left\{ ... \right. opens a brace that nothing closes
    system = _SYSTEM.fullmatch(text.removeprefix(r"\{").lstrip() if text.endswith("}") else text)
    body = system.group(2) if system is not None else text
    if "\\\\" not in body or r"\begin" in body or r"\text" in body:
        return text
    rows = [row.strip().rstrip(",;.").strip() for row in body.replace("&", "").split("\\\\")]
    rows = [row for row in rows if row]
    # a row of a function given in cases has its value before the condition, and no equation
    if not all(_EQUATION_ROW.fullmatch(row) for row in rows):
        return text
    return ",".join(rows)


def _flat_set(items: list[Node]) -> Collection:
    """A list of items in any order; the lists among them, not the sets, are taken apart."""
    flat: list[Node] = []
    for item in items:
        is_list = isinstance(item, Collection) and item.unordered and not item.braces
        flat.extend(item.items if is_list else [item])
    if len(flat) > MAX_ITEMS:
        raise TooComplex(f"answer lists more than {MAX_ITEMS} items")
    return Collection("{", "}", tuple(flat))


def _parse_list(pieces: list[str], separators: list[str], depth: int) -> Node:
    if len(pieces) > MAX_ITEMS:
        raise TooComplex(f"answer lists more than {MAX_ITEMS} items")
    items = [parse_answer(piece, depth=depth + 1) for piece in pieces]
    first = items[0]
    if isinstance(first, Collection) and all(isinstance(item, Assignment) for item in first.items):
        # (x, y) = (1, 2), (3, 4) gives both pairs these names
        items = [first, *(_with_names_of(first, item) for item in items[1:])]
    if isinstance(first, Assignment) and not any(isinstance(item, Assignment) for item in items[1:]):
        # x = 1, 2, 3 assigns all of them
        return Assignment(first.name, first.parameters, _flat_set([first.value, *items[1:]]))
    assignments = [item for item in items if isinstance(item, Assignment)]
    if len(assignments) == len(items) and len({(item.name, item.parameters) for item in assignments}) == 1:
        values = [item.value for item in assignments]
        return Assignment(assignments[0].name, assignments[0].parameters, _flat_set(values))
    intervals = all(isinstance(item, Collection) and item.variable for item in items)
    if intervals and all("or" in separator or "lor" in separator or "vee" in separator for separator in separators):
        return Union(tuple(items), variable=items[0].variable if isinstance(items[0], Collection) else "")
    if not any("or" in separator or "vee" in separator for separator in separators):
        is_plain_list = any("and" not in separator for separator in separators)
        if (together := conjunction(items, is_plain_list)) is not None:
            return together
    return _flat_set(items)


def _with_names_of(named: Collection, item: Node) -> Node:
    if not isinstance(item, Collection) or (item.left, len(item.items)) != (named.left, len(named.items)):
        return item
    if named.unordered or any(isinstance(value, Assignment) for value in item.items):
        return item
    return replace(item, items=tuple(replace(name, value=value) for name, value in
                                     zip(named.items, item.items, strict=True)))  # fmt: skip


def _parse_matrix(text: str, depth: int) -> Node | None:
    brackets = _outer_brackets(text)
    in_brackets = (
        brackets is not None and brackets[0] in "([" and re.match(r"\s*\\begin\{(?:array|matrix)\}", brackets[1])
    )
    inner = brackets[1] if brackets is not None and in_brackets else text
    match = _MATRIX.fullmatch(inner)
    if match is None:
        return None
    body = match.group(2) if match.group(2) is not None else match.group(3)
    if r"\begin" in body:
        return None
    rows = [row for row in re.split(r"\\\\|\\cr(?![A-Za-z])", body.replace(r"\hline", "")) if row.strip()]
    if len(rows) > MAX_ITEMS or any(row.count("&") > MAX_ITEMS for row in rows):
        raise TooComplex(f"matrix with more than {MAX_ITEMS} rows or columns")
    return Matrix(tuple(tuple(parse_answer(cell, depth=depth + 1) for cell in row.split("&")) for row in rows))


def _parse_comparison(text: str, depth: int) -> Node | None:
    pieces, operators = split_top_level(text, _COMPARISON)
    if not operators or len(pieces) > 12:
        return None
    pieces = [piece.strip() for piece in pieces]
    if r"\approx" in operators:
        cut = operators.index(r"\approx")
        is_name = _NAMED.fullmatch(pieces[cut]) is not None
        exact = pieces[cut + 1] if is_name else pieces[cut]
        if not is_name and not all(approximates(piece, exact) for piece in pieces[cut + 1 :]):
            return Relation(r"\approx", exact, pieces[cut + 1])
        rest = [part for pair in zip(pieces[:cut], operators[:cut], strict=True) for part in pair]
        return parse_answer("".join([*rest, exact]), depth=depth + 1) if exact else None
    if not all(pieces):
        return None
    if set(operators) == {"="}:
        if not _chain_holds(pieces):
            return Scalar(text)  # x = 5 = 6 is no answer
        if len(pieces) == 2 and (values := _named_tuple(*pieces, depth)) is not None:
            return values
        if len(pieces) == 2 and exact_value(pieces[0]) is not None and exact_value(pieces[1]) is None:
            pieces = pieces[::-1]  # 5 = x
        if len(pieces) == 2 and _FUNCTION.fullmatch(pieces[1]) and not _FUNCTION.fullmatch(pieces[0]):
            pieces = pieces[::-1]  # x+1 = f(x)
        named = _NAMED.fullmatch(pieces[0])
        if named is None:
            return Relation("=", pieces[0], pieces[-1])
        if r"\text" in named.group(1) and (named.group(2) or _DENIES.search(named.group(1))):
            return Scalar(text)  # \text{not }x = 5
        parameters = tuple((named.group(2) or "").split(",")) if named.group(2) else ()
        return Assignment(_strip_group(named.group(1)), parameters, parse_answer(pieces[-1], depth=depth + 1))
    if operators == [r"\in"] and _PLAIN_NAME.fullmatch(pieces[0]):
        members = parse_answer(pieces[1], depth=depth + 1)
        if isinstance(members, Union) or (isinstance(members, Collection) and not members.unordered):
            return replace(members, variable=pieces[0])
        if isinstance(members, Scalar) and exact_value(members.text) is not None:
            return Scalar(text)  # a number has no members
        return Assignment(pieces[0], (), members)
    if operators == [r"\in"] and _NAMES.fullmatch(pieces[0]) and pieces[1].startswith(r"\{"):
        return parse_answer(pieces[1], depth=depth + 1)
    if len(pieces) == 2 and operators[0] in _FLIPPED | {r"\ne": r"\ne"}:
        return _inequality(pieces[0], operators[0], pieces[1])
    if (len(pieces) == 3 and operators[0][:2] == operators[1][:2]) or set(operators) in ({"<", r"\le"}, {">", r"\ge"}):
        if len(pieces) != 3 or not _PLAIN_NAME.fullmatch(pieces[1]):
            return None
        low, high = (pieces[0], pieces[2]) if operators[0] in ("<", r"\le") else (pieces[2], pieces[0])
        low_operator, high_operator = operators if operators[0] in ("<", r"\le") else operators[::-1]
        if not {low_operator, high_operator} <= {"<", r"\le", ">", r"\ge"}:
            return None
        return Collection(
            "[" if "e" in low_operator else "(",
            "]" if "e" in high_operator else ")",
            (_parse_scalar(low), _parse_scalar(high)),
            variable=pieces[1],
        )
    return None


def _chain_holds(pieces: list[str]) -> bool:
    """Whether the numbers of a chain of equations are equal, up to the last digit of a decimal; ``5 = 6`` are not."""
    values = [(piece, value) for piece in pieces if (value := exact_value(piece)) is not None]
    for (left, left_value), (right, right_value) in itertools.pairwise(values):
        places = [count for count in map(decimal_places, (left, right)) if count is not None]
        rounding = Fraction(1, 2 * 10 ** min(places)) if places else None
        if values_equal(left_value, right_value, rounding) is False:
            return False
    return True


def _named_tuple(left: str, right: str, depth: int) -> Node | None:
    """``(a, b) = (2, 13)`` as the tuple of ``a = 2`` and ``b = 13``; ``None`` for any other equation."""
    if _NAMES.fullmatch(left) is None:
        return None
    names = [name.strip() for name in left[1:-1].split(",")]
    values = parse_answer(right, depth=depth + 1)
    if not isinstance(values, Collection) or values.left != "(" or len(values.items) != len(names):
        return None
    items = tuple(Assignment(name, (), value) for name, value in zip(names, values.items, strict=True))
    return replace(values, items=items)


def _inequality(left: str, operator: str, right: str) -> Node:
    for bounded in ((left, operator, right), (right, _FLIPPED.get(operator, operator), left)):
        if (absolute := absolute_bound(*bounded)) is not None:
            return absolute
    if _PLAIN_NAME.fullmatch(right) and not _PLAIN_NAME.fullmatch(left) and operator in _FLIPPED:
        left, operator, right = right, _FLIPPED[operator], left
    if _PLAIN_NAME.fullmatch(left) and not re.search(r"(?<![\\A-Za-z])[A-DF-Za-df-z](?![A-Za-z])", right):
        if operator in (">", r"\ge"):
            return Collection("[" if operator == r"\ge" else "(", ")", (_parse_scalar(right), Scalar(r"\infty")), left)
        if operator in ("<", r"\le"):
            return Collection("(", "]" if operator == r"\le" else ")", (Scalar(r"-\infty"), _parse_scalar(right)), left)
    if operator in (">", r"\ge"):
        left, operator, right = right, _FLIPPED[operator], left
    return Relation(operator, left, right)


def _parse_braces(text: str, inside: str, depth: int) -> Node:
    if split_top_level(inside, _CONDITION)[1]:
        return _parse_builder(inside, depth) or Scalar(text)  # a set given by a property
    pieces = split_top_level(inside, _COMMA)[0][: MAX_ITEMS + 1]
    items = [parse_answer(piece, depth=depth + 1) for piece in pieces if piece.strip()]
    return replace(_flat_set(items), braces=True)


def _parse_brackets(text: str, depth: int) -> Node | None:
    brackets = _outer_brackets(text)
    if brackets is None:
        return None
    left, inside, right = brackets
    pieces, separators = split_top_level(inside, _COMMA)
    if not separators:
        if (left, right) == ("(", ")"):
            return parse_answer(inside, depth=depth + 1)
        return None
    if len(pieces) > MAX_ITEMS:
        raise TooComplex(f"answer lists more than {MAX_ITEMS} items")
    if not all(piece.strip() for piece in pieces):
        return None
    return Collection(left, right, tuple(parse_answer(piece, depth=depth + 1) for piece in pieces))


def _parse_builder(inside: str, depth: int) -> Node | None:
    """The set of numbers that a condition describes, or `None` where it describes another set."""
    parts = builder_parts(inside)
    if parts is None:
        return None
    name, domain, condition = parts
    return set_by_condition(name, domain, parse_answer(condition, depth=depth + 1))


def _parse_scalar(text: str) -> Scalar:
    text = _strip_group(text.strip())
    percent = text.endswith("%")
    if percent:
        text = text[:-1].rstrip()
    text, scale = split_scale(text)
    text, unit = (text, "") if percent else split_unit(text)
    text, scale = split_scale(text) if scale == 1 else (text, scale)
    text = _strip_group(text)
    brackets = _outer_brackets(text)
    if brackets is not None and brackets[0] == "(" and brackets[2] == ")" and "," not in text:
        text = brackets[1]
    return Scalar(re.sub(r"^\+\s*", "", text), unit, percent, scale)


def with_unit(node: Node, unit: str) -> Node:
    """The node with ``unit`` on every scalar that has none; ``%`` makes them percentages."""
    if isinstance(node, Scalar):
        if unit == "%":
            return replace(node, percent=True)
        return replace(node, unit=node.unit or unit)
    if isinstance(node, Collection) and node.unordered:
        return replace(node, items=tuple(with_unit(item, unit) for item in node.items))
    if isinstance(node, Assignment):
        return replace(node, value=with_unit(node.value, unit))
    return node
