r"""Products whose order counts: ``MN`` is not ``NM`` unless the letters are plainly numbers.

Capital letters side by side may be matrices, points or operators; so may anything be in a cross product. They commute
only where the ground truth says that they are numbers: they stand with ``\pi``, under a root, in a function or in a
denominator, or they are only ever joined by a dot. Small letters commute: ``ab`` is ``ba``.
"""

from __future__ import annotations

import re

import sympy

_NUMBERS = re.compile(
    r"\\(?:pi|sqrt|sin|cos|tan|cot|log|ln|exp|binom)(?![A-Za-z])|!|\\frac\{[^{}]*\}\{[^{}]*[A-Za-z][^{}]*\}"
)
_SIDE_BY_SIDE = re.compile(r"[A-Z](?:_(?:\{[^{}]*\}|\w))?(?:\^(?:\{[^{}]*\}|\w))?\s*[A-Z(]|\)\s*[A-Z]")
_VECTORS = re.compile(r"(?:vec|overrightarrow|mathbf|Delta)")


def ordered_names(gold_text: str, answer_text: str, gold: sympy.Basic, answer: sympy.Basic) -> frozenset[str]:
    """Names of the symbols that do not commute in this pair; empty where the order of no product counts.

    Args:
        gold_text, answer_text (`str`): The two texts as they were written.
        gold, answer (`sympy.Basic`): What was parsed.
    """
    crossed = r"\times" in gold_text or r"\times" in answer_text
    if not crossed and (_NUMBERS.search(gold_text) or not _side_by_side(gold_text, answer_text)):
        return frozenset()
    symbols = {symbol.name for symbol in gold.free_symbols | answer.free_symbols}
    if not crossed:
        symbols = {name for name in symbols if name[:1].isupper() and not name.startswith("Xi")} | {
            name for name in symbols if _VECTORS.search(name)
        }
    if any(_multiplies_two(side, symbols) for side in (gold, answer)):
        return frozenset(symbols)
    return frozenset()


def _side_by_side(*texts: str) -> bool:
    return any(_SIDE_BY_SIDE.search(text) or _VECTORS.search(text) for text in texts)


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
        left, right = (sympy.expand(side.xreplace(ordered).doit()) for side in (gold, answer))
        return sympy.expand(left - right) == 0
    except (AttributeError, NotImplementedError, TypeError, ValueError, RecursionError):
        return False
