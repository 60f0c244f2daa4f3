r"""Products whose order counts: ``MN`` is not ``NM`` unless the letters are plainly numbers.

Capital letters side by side may be matrices, points or operators; so may anything be in a cross product. They commute
only where the ground truth says that they are numbers: they stand with ``\pi``, under a root, in a function or in a
denominator, or they are only ever joined by a dot. Nor may ``\Delta`` be moved past a letter. Small letters commute:
``ab`` is ``ba``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import sympy
from sympy.core.function import AppliedUndef

_NUMBERS = re.compile(
    r"\\(?:pi|sqrt|sin|cos|tan|cot|log|ln|exp|binom)(?![A-Za-z])|!|\\frac\{[^{}]*\}\{[^{}]*[A-Za-z][^{}]*\}"
)
_SIDE_BY_SIDE = re.compile(r"[A-Z](?:_(?:\{[^{}]*\}|\w))?(?:\^(?:\{[^{}]*\}|\w))?\s*[A-Z(]|\)\s*[A-Z(]")
_OPERATOR = re.compile(r"\\times(?![A-Za-z])|\\Delta\s*[a-z]")
_CAPITAL = re.compile(r"[A-Z](?![A-Z])")  # two capitals are the length of a segment here
_VECTORS = re.compile(r"(?:vec|overrightarrow|mathbf|Delta)")


def ordered_names(gold_text: str, answer_text: str, gold: sympy.Basic, answer: sympy.Basic) -> frozenset[str]:
    """Names of the symbols that do not commute in this pair; empty where the order of no product counts.

    Args:
        gold_text, answer_text (`str`): The two texts as they were written.
        gold, answer (`sympy.Basic`): What was parsed.
    """
    crossed = any(_OPERATOR.search(text) for text in (gold_text, answer_text))
    if not crossed and (_NUMBERS.search(gold_text) or not _side_by_side(gold_text, answer_text)):
        return frozenset()
    arguments = [argument for side in (gold, answer) for call in side.atoms(AppliedUndef) for argument in call.args]
    outside = _without_arguments(gold, answer)
    symbols = {symbol.name for part in (*outside, *arguments) for symbol in part.free_symbols}
    if not crossed:
        symbols = {name for name in symbols if _CAPITAL.match(name) or _VECTORS.search(name)}
    if any(_multiplies_two(part, symbols) for part in (*outside, *arguments)):
        return frozenset(symbols)
    return frozenset()


def _side_by_side(*texts: str) -> bool:
    return any(_SIDE_BY_SIDE.search(text) or _VECTORS.search(text) for text in texts)


def _without_arguments(*sides: sympy.Basic) -> list[sympy.Basic]:
    """The sides with a symbol for each value of a function: ``P(A)`` is a number, whatever ``A`` is."""
    values: dict[sympy.Basic, sympy.Symbol] = {}
    replaced = []
    for side in sides:
        calls = {call: call.doit() for call in side.atoms(AppliedUndef)}
        symbols = {
            call: values.setdefault(value, sympy.Symbol(f"value {len(values)}")) for call, value in calls.items()
        }
        replaced.append(replace_in_order(side, symbols))
    return replaced


def replace_in_order(node: sympy.Basic, values: Mapping[sympy.Basic, sympy.Basic]) -> sympy.Basic:
    """The expression with parts replaced and nothing worked out, so that its products keep their order."""
    if node in values:
        return values[node]
    if isinstance(node, sympy.MatrixBase) or not node.args:
        return node.xreplace(values)
    arguments = [replace_in_order(argument, values) for argument in node.args]
    if all(new is old for new, old in zip(arguments, node.args, strict=True)):
        return node
    if isinstance(node, sympy.Add | sympy.Mul | sympy.Pow):
        return node.func(*arguments, evaluate=False)
    return node.func(*arguments)


def _multiplies_two(expression: sympy.Basic, names: set[str]) -> bool:
    for node in sympy.preorder_traversal(expression):
        if isinstance(node, sympy.Mul) and len({symbol.name for symbol in node.free_symbols} & names) > 1:
            return True
    return False


def equal_in_order(gold: sympy.Expr, answer: sympy.Expr, names: frozenset[str]) -> bool:
    """Whether two expressions are equal when the symbols of these names do not commute."""
    symbols = gold.free_symbols | answer.free_symbols
    ordered = {symbol: sympy.Symbol(symbol.name, commutative=symbol.name not in names) for symbol in symbols}
    try:
        sides = _without_arguments(*(replace_in_order(side, ordered) for side in (gold, answer)))
        left, right = (sympy.expand(side.xreplace(ordered).doit()) for side in sides)
        return sympy.expand(left - right) == 0
    except (AttributeError, NotImplementedError, TypeError, ValueError, RecursionError):
        return False
