r"""Decide whether two scalars are the same expression, by math-verify and by evaluation at points. Runs in a worker.

math-verify's LaTeX parser reads both texts. Then there are two independent checks:

- ``math_verify.verify`` in both directions, since it is not symmetric;
- the values at fixed sample points, to 50 digits and relative to their size. math-verify compares with an absolute
  threshold, and so takes :math:`2^{-99}` for :math:`2^{-98}`.

Different values: not equal. Equal values at enough points: equal. Where there are no values, math-verify decides.

Equal has to be earned: a text that loses something in parsing is not compared
(:mod:`~verl_ispo.grading.parsing_loss`), and where the order of a product counts, the expressions have to be equal
in that order as well (:mod:`~verl_ispo.grading.ordered_products`).

The texts are untrusted. Only LaTeX is parsed (never ``sympy.parse_expr``, which evaluates Python), only what
:mod:`~verl_ispo.grading.expression_guard` admits gets that far, and the worker bounds time and memory.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from math_verify import verify
from math_verify.grader import should_treat_as_complex

from .answer_nodes import Collection, Difference, Node, Relation, Scalar, Union
from .comparison_rules import Verdict
from .expression_guard import MAX_NESTING, GoldNotUnderstood, check_expression
from .ordered_products import equal_in_order, ordered_names, replace_in_order
from .parsing_loss import loses_something
from .written_names import WrittenName, function_letters, multiplies_segments, replace_names, spell_out

MIN_POINTS = 6
"""Sample points at which both sides have a value, before equal values count as proof."""

# units=True would read "2h" as 2, and the end of "\\frac{1}{\\text{e}}" is lost with some of them
_NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none", equations=False
)
# math-verify reads every letter as a small one, and so R^2 as r^2
_CONVERSION = ConversionConfig(lowercase_symbols=False)
_FACTORIAL_POWER = re.compile(r"(\d+|[A-Za-z]|\([^()]*\))!(?=\^)")
_PLACEHOLDER = re.compile(r"Xi_\{?(\d+)\}?")
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
_DIGITS = 50
_AGREEMENT = sympy.Float("1e-40", _DIGITS)
_NOTHING = sympy.Float("1e-100")  # what is left of the difference of two equal numbers, relative to them
_MAX_WHOLE_DIGITS = 3000  # larger numbers are equal only if they are written so
_WORKED_OUT_NUMERICALLY = (sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit, sympy.Float)


@lru_cache(maxsize=512)
def _parse(text: str, is_real: bool) -> sympy.Expr | sympy.MatrixBase | None:
    """The text as a sympy object, or ``None`` where the parser does not know it or loses something of it."""
    parsed = _parse_leniently(text, is_real)
    if parsed is None or loses_something(text, parsed, lambda other: _parse_leniently(other, is_real)):
        return None
    return parsed


def _parse_leniently(text: str, is_real: bool) -> object | None:
    try:
        return latex2sympy(
            normalize_latex(text, _NORMALIZATION),
            is_real=is_real,
            convert_degrees=False,
            normalization_config=None,
            conversion_config=_CONVERSION,
        )
    except MemoryError:
        raise
    except Exception:  # the parser raises plain exceptions of many kinds for a text that it does not know
        return None


def _parse_together(*texts: str) -> list[sympy.Expr | sympy.MatrixBase | None]:
    """Parse texts with the same reading of their letters: the same letter or name is the same symbol in all of them."""
    is_real = not any(should_treat_as_complex(text) for text in texts)
    functions, segments = function_letters(*texts), any(multiplies_segments(text) for text in texts)
    names: dict[WrittenName, int] = {}

    def parse_named(text: str, depth: int = 0) -> sympy.Basic | None:
        if r"\Xi" in text or depth > MAX_NESTING:
            return None  # the placeholders' own letter
        text = replace_names(_FACTORIAL_POWER.sub(r"(\1!)", spell_out(text)), functions, segments, names)
        parsed = _parse(text, is_real)
        return None if parsed is None else _with_names(parsed, depth)

    def _with_names(parsed: sympy.Basic, depth: int) -> sympy.Basic | None:
        written = {number: name for name, number in names.items()}
        values = {}
        for symbol in parsed.free_symbols:
            if (placeholder := _PLACEHOLDER.fullmatch(symbol.name)) is None:
                continue
            name = written[int(placeholder.group(1))]
            arguments = [parse_named(argument, depth + 1) for argument in name.arguments]
            if not all(isinstance(argument, sympy.Expr) for argument in arguments):
                return None
            values[symbol] = (
                sympy.Function(name.name)(*arguments) if arguments else sympy.Symbol(name.name, real=is_real or None)
            )
        return replace_in_order(parsed, values) if values else parsed

    return [parse_named(text) for text in texts]


def _plain_symbols(expression: sympy.Basic) -> sympy.Basic:
    """Symbols by name alone, without assumptions; ``i`` is the imaginary unit."""
    names = {symbol: sympy.I if symbol.name == "i" else sympy.Symbol(symbol.name) for symbol in expression.free_symbols}
    return _exact_decimals(expression).xreplace(names)


def _exact_decimals(expression: sympy.Basic) -> sympy.Basic:
    decimals = expression.atoms(sympy.Float)
    return expression.xreplace({number: sympy.Rational(str(number)) for number in decimals}) if decimals else expression


def _sample_points(symbols: list[sympy.Symbol]) -> list[dict[sympy.Symbol, sympy.Rational]]:
    """Fixed points: six positive, four of mixed sign, four of integers of both parities."""
    points = []
    for index in range(14):
        point = {}
        for position, symbol in enumerate(symbols):
            first, second = _PRIMES[(index + 2 * position) % 12], _PRIMES[(3 * index + position + 5) % 12]
            value = Fraction(first, second) if first != second else Fraction(first + 1, second)
            if 6 <= index < 10 and (index + position) % 2 == 0:
                value = -value
            if index >= 10:
                value = Fraction(index - 8 + 3 * position + (position * index) % 2)
            point[symbol] = sympy.Rational(value.numerator, value.denominator)
        points.append(point)
    return points


def _value(expression: sympy.Basic, point: dict[sympy.Symbol, sympy.Rational]) -> sympy.Expr | None:
    number = expression.xreplace(point).doit() if point else expression.doit()
    if number.is_Rational:
        return number  # exact: x + 10^{-60} is not x
    number = number.evalf(_DIGITS, maxn=400)
    parts = number.as_real_imag() if isinstance(number, sympy.Expr) and number.is_number else (None, None)
    if any(not isinstance(part, sympy.Float | sympy.Integer | sympy.Rational) for part in parts):
        return None
    return number if all(part.is_finite for part in parts) else None


def _close(left: sympy.Expr, right: sympy.Expr) -> bool:
    if left.is_Rational and right.is_Rational:
        return bool(left == right)
    difference = sympy.Abs((left - right).evalf(_DIGITS))
    return bool(difference <= _AGREEMENT * max(sympy.Abs(left).evalf(_DIGITS), sympy.Abs(right).evalf(_DIGITS)))


def _differ_by_little(gold: sympy.Expr, answer: sympy.Expr, size: sympy.Expr) -> bool:
    """Whether two numbers of one ``size`` that look equal are not: ``e^{185}`` and ``e^{185} + 1``."""
    if gold.has(*_WORKED_OUT_NUMERICALLY) or answer.has(*_WORKED_OUT_NUMERICALLY):
        return False  # known to fewer digits
    digits = max(0, int(sympy.log(size, 10).evalf()) + 1) if size else 0
    if digits > _MAX_WHOLE_DIGITS:
        return gold != answer
    difference = sympy.Abs((gold - answer).evalf(_DIGITS, maxn=400 + 2 * digits))
    return bool(difference > _NOTHING * min(size, 1))


def _real(number: sympy.Expr) -> bool:
    size = sympy.Abs(number).evalf(_DIGITS)
    return bool(sympy.Abs(number.as_real_imag()[1]).evalf(_DIGITS) <= _AGREEMENT * size)


def _keeps_letters(*sides: sympy.Basic) -> bool:
    """Whether no letter of a side cancels when it is worked out: ``Z/2Z`` is not a half, nor ``5+x-x`` an answer."""
    return all(
        {symbol.name for symbol in side.free_symbols} - {"i"}
        == {symbol.name for symbol in _plain_symbols(side).free_symbols}
        for side in sides
    )


def _summed(expression: sympy.Basic) -> sympy.Basic:
    """Work out sums, products and derivatives before numbers replace their letters: no sum runs to n = 1/2."""
    return expression.doit() if expression.has(sympy.Sum, sympy.Product, sympy.Derivative) else expression


def _values_agree(gold: object, answer: object) -> Verdict:
    """Compare values at sample points: ``False`` for a difference, ``True`` for agreement at enough of them."""
    if not isinstance(gold, sympy.Expr) or not isinstance(answer, sympy.Expr):
        return None
    gold, answer = (_summed(_plain_symbols(side)) for side in (gold, answer))
    complex_answer = gold.has(sympy.I) or answer.has(sympy.I)
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    if len(symbols) > 8:
        return None
    agreed = 0
    for point in _sample_points(symbols) if symbols else [{}]:
        try:
            left, right = _value(gold, point), _value(answer, point)
        except (ArithmeticError, TypeError, ValueError, AttributeError, NotImplementedError, RecursionError):
            left = right = None
        if left is None or right is None:
            if not symbols:
                return None
            continue
        if not complex_answer and symbols and not _real(left) and not _real(right):
            continue  # outside the domain of both
        if not _close(left, right):
            return False
        if not agreed and not (left.is_Rational and right.is_Rational):
            sides = (side.xreplace(point).doit() for side in (gold, answer))
            if _differ_by_little(*sides, sympy.Abs(left)):
                return False
        agreed += 1
    return True if agreed >= (MIN_POINTS if symbols else 1) else None


class MathVerifyComparer:
    """The symbolic comparer of a worker; the module's docstring says how it decides."""

    def expressions_equal(self, gold: str, answer: str) -> Verdict:
        """Whether two LaTeX scalars are the same expression.

        Raises:
            GoldNotUnderstood: if the ground truth is not an expression that the parser knows.
            RefusedExpression: if one of them is too large to be worked out.
        """
        if not check_expression(answer):
            return False
        if not check_expression(gold):
            raise GoldNotUnderstood(f"the ground truth is not an expression: {gold[:80]!r}")
        gold_parsed, answer_parsed = _parse_together(gold, answer)
        if gold_parsed is None:
            raise GoldNotUnderstood(f"the parser does not know the ground truth: {gold[:80]!r}")
        if answer_parsed is None:
            return False
        if not _keeps_letters(gold_parsed, answer_parsed):
            return False
        by_value = _values_agree(gold_parsed, answer_parsed)
        if by_value is False:
            return False
        ordered = ordered_names(gold, answer, gold_parsed, answer_parsed)
        if ordered and not equal_in_order(gold_parsed, answer_parsed, ordered):
            return False
        if by_value is not None:
            return by_value
        return verify(gold_parsed, answer_parsed, timeout_seconds=None) and verify(
            answer_parsed, gold_parsed, timeout_seconds=None
        )

    def equations_equal(self, gold: tuple[str, str], answer: tuple[str, str]) -> Verdict:
        """Whether two equations differ by a constant factor only: the ratio of their differences of sides is constant.

        Raises:
            GoldNotUnderstood, RefusedExpression: as :meth:`expressions_equal` does.
        """
        if not all(check_expression(side) for side in answer):
            return False
        if not all(check_expression(side) for side in gold):
            raise GoldNotUnderstood(f"the ground truth is not an equation: {gold!r}")
        parsed = _parse_together(*gold, *answer)
        gold_sides, answer_sides = parsed[:2], parsed[2:]
        if not all(isinstance(side, sympy.Expr) for side in gold_sides):
            raise GoldNotUnderstood(f"the parser does not know the ground truth: {gold!r}")
        if not all(isinstance(side, sympy.Expr) for side in answer_sides):
            return False
        if not _keeps_letters(*gold_sides, *answer_sides):
            return False
        gold_zero, answer_zero = (_plain_symbols(left - right) for left, right in (gold_sides, answer_sides))
        symbols = sorted(gold_zero.free_symbols | answer_zero.free_symbols, key=str)
        if not symbols or len(symbols) > 8:
            return False
        ratios = []
        for point in _sample_points(symbols):
            left, right = _value(gold_zero, point), _value(answer_zero, point)
            if left is None or right is None or not _real(left) or not _real(right) or right == 0:
                continue
            ratios.append((left / right).evalf(_DIGITS))
        return len(ratios) >= MIN_POINTS and ratios[0] != 0 and all(_close(ratios[0], ratio) for ratio in ratios)

    def sets_equal(self, gold: Node, answer: Node) -> Verdict:
        """Whether two unions, differences or conditions such as ``x \\ne 1`` are the same set of real numbers.

        Raises:
            GoldNotUnderstood, RefusedExpression: as :meth:`expressions_equal` does.
        """
        gold_set, answer_set = _real_set(gold), _real_set(answer)
        if gold_set is None:
            raise GoldNotUnderstood(f"the ground truth is not a set of real numbers: {str(gold)[:80]}")
        if answer_set is None:
            return False
        return gold_set == answer_set or bool(gold_set.symmetric_difference(answer_set).is_empty)


def _real_set(node: Node) -> sympy.Set | None:
    """A set of real numbers, or ``None`` where the node is not one or its ends are not known numbers."""
    if isinstance(node, Union):
        parts = [_real_set(part) for part in node.parts]
        return None if None in parts else sympy.Union(*parts)
    if isinstance(node, Difference):
        left, right = _real_set(node.left), _real_set(node.right)
        return None if left is None or right is None else sympy.Complement(left, right)
    if isinstance(node, Relation) and node.operator == r"\ne":
        point = _real_number(Scalar(node.right))
        return None if point is None else sympy.Complement(sympy.S.Reals, sympy.FiniteSet(point))
    if not isinstance(node, Collection):
        return None
    numbers = [_real_number(item) for item in node.items]
    if None in numbers:
        return None
    if node.unordered:
        return sympy.FiniteSet(*numbers)
    if len(numbers) != 2 or not {node.left, node.right} <= set("()[]"):
        return None
    return sympy.Interval(*numbers, left_open=node.left == "(", right_open=node.right == ")")


def _real_number(node: Node) -> sympy.Expr | None:
    if not isinstance(node, Scalar) or not check_expression(node.text):
        return None
    number = _parse_together(node.text)[0]
    if not isinstance(number, sympy.Expr):
        return None
    number = _plain_symbols(number).doit()
    return number if number.is_extended_real and not number.free_symbols else None
