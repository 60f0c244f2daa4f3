r"""Whether everything that was written is in what was parsed: a symbolic "equal" has to be earned.

A lenient LaTeX parser drops what it does not know: sympy gets 5 for ``5_8``, ``n/2`` for ``[n/2]``, ``f(0)`` for
``f'(0)``, 1 for ``\gcd(k, p-1)`` and a product of letters for a word. What was dropped cannot tell two answers apart,
so a text that loses anything is not compared. The test is general: every letter, number, command and mark of the text
is a token, every leaf and function of the parsed expression accounts for tokens, and no token may be left over. Nothing
accounts for a command that is not listed here, so it is a loss by default.

The parser works some parts out that hold numbers alone (``\binom{6}{3}``, ``\gcd(12, 18)``, a determinant). There a
number counts as present if the result changes with it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import sympy
from sympy.core.function import AppliedUndef

_GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar"
)
GREEK = frozenset(_GREEK.split())
_STRUCTURE = frozenset({"frac", "sqrt", "cdot", "times", "rfloor", "rceil", "to", "infty", "cr"})
"""Commands whose meaning is the shape of the expression."""
_TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc")
_FUNCTIONS = {
    **{name: name for name in (*_TRIGONOMETRIC, "sinh", "cosh", "tanh", "coth", "log", "exp")},
    **{f"arc{name}": f"a{name}" for name in _TRIGONOMETRIC},
    "ln": "log", "lfloor": "floor", "lceil": "ceiling", "binom": "binomial", "sum": "Sum", "prod": "Product",
    "int": "Integral", "lim": "Limit", "max": "Max", "min": "Min",
}  # fmt: skip

_TOKEN = re.compile(
    r"\\(?:begin|end)\{(?P<environment>[a-z]*)\}(?:\{[clr|]*\})?"
    r"|\\text\{(?P<word>[^{}]*)\}|\\(?P<command>[A-Za-z]+)|(?P<escaped>\\.)"
    r"|(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<letter>[A-Za-z])|(?P<mark>[^\s{}()^_+\-*/.&])"
)
_INVERSE = re.compile(r"\\(sin|cos|tan|cot|sec|csc)\s*\^\s*\{\s*-\s*1\s*\}")
_ROOT_DEGREE = re.compile(r"\\sqrt\s*\[([^\[\]]*)\]")
_RATIO = re.compile(r"\\frac\{\s*-?(\d+)\s*\}\{\s*-?(\d+)\s*\}|(?<![\d.])(\d+)/(\d+)(?![\d.])")
_INTEGER = re.compile(r"(?<![\d.])\d{1,9}(?![\d.])")
_MAX_WORKED_OUT = 12
_OF_NUMBERS = frozenset({*_FUNCTIONS.values(), r"\gcd", r"\lcm", r"\pi", "e", ",", "!", "|"}) - {
    "Sum",
    "Product",
    "Integral",
}
_MEANS_MORE = re.compile(
    r"[\d)}\]]\s*_"  # a base, or an index of a group
    r"|(?<![_^\d])\d+\s+\.?\d|\d\.\d+\.\d"  # two numbers side by side
    r"|[A-Za-z]\s*\^\s*\{?\s*\(\s*(?:\d+|[A-Za-z])\s*\)"  # the third derivative, not the cube
)
_ENVIRONMENTS = frozenset({"", "pmatrix", "bmatrix", "matrix", "smallmatrix", "vmatrix", "array"})


def loses_something(text: str, parsed: object, parse: Callable[[str], object]) -> bool:
    """Whether something that was written is missing from the expression that a parser made of it.

    Args:
        text (`str`): The LaTeX text that was parsed.
        parsed (`object`): What the parser returned, not worked out.
        parse (`Callable`): The parser, for what is worked out in it; ``None`` for a text that it does not know.
    """
    if isinstance(parsed, sympy.MatrixBase):
        parsed = parsed.as_immutable()
    if not isinstance(parsed, sympy.Expr | sympy.MatrixBase) or _MEANS_MORE.search(text):
        return True
    written, numbers, ratios = _written(_ROOT_DEGREE.sub(r"\\sqrt{}{\1}", _INVERSE.sub(r"\\arc\1 ", text)))
    found, found_numbers, found_ratios = _found(parsed)
    if written is None:
        return True
    if written - found or _unaccounted(numbers, ratios, found_numbers, found_ratios):
        return not (set(written) <= _OF_NUMBERS and _depends_on_each_number(text, parsed, parse))
    return any(_absorbs(node) for node in sympy.preorder_traversal(parsed))


def _unaccounted(
    numbers: Counter[Fraction],
    ratios: list[tuple[Fraction, tuple[Fraction, ...]]],
    found: Counter[Fraction],
    found_ratios: Counter[Fraction],
) -> bool:
    """Whether a number or a ratio of integers is not in what was parsed. A ratio may have been reduced."""
    for ratio, (top, bottom) in ratios:
        if ratio.denominator != 1 and found_ratios[ratio]:
            found_ratios[ratio] -= 1
        elif ratio.denominator == 1 and found[ratio] and not found[bottom]:
            found[ratio] -= 1
        else:
            numbers.update((top, bottom))
    for number in numbers.elements():
        degree = 1 / number if number else number  # of a root
        if found[number]:
            found[number] -= 1
        elif found_ratios[degree]:
            found_ratios[degree] -= 1
        else:
            return True
    return False


def _depends_on_each_number(text: str, parsed: object, parse: Callable[[str], object]) -> bool:
    """Whether the result changes with each number of a text that has no letters."""
    matches = list(_INTEGER.finditer(text))
    if not 0 < len(matches) <= _MAX_WORKED_OUT:
        return False
    for match in matches:
        before, after, number = text[: match.start()], text[match.end() :], int(match.group())
        # two steps, since \binom{5}{2} is \binom{5}{3}
        others = [parse(f"{before}{number + step}{after}") for step in (1, 2)]
        if all(other is None or other == parsed for other in others):
            return False
    return True


def _written(text: str) -> tuple[Counter[str] | None, Counter[Fraction], list[tuple[Fraction, tuple[Fraction, ...]]]]:
    """Tokens of a text, its numbers, and its ratios of integers; `None` where nothing can account for one."""
    ratios = []

    def take_ratio(match: re.Match[str]) -> str:
        top, bottom = (Fraction(part) for part in match.groups() if part)
        if bottom == 0:
            return match.group()
        ratios.append((top / bottom, (top, bottom)))
        return "{}"

    text = _RATIO.sub(take_ratio, text)
    tokens: Counter[str] = Counter()
    numbers: Counter[Fraction] = Counter()
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "number":
            numbers[Fraction(match["number"])] += 1
        elif kind == "letter":
            tokens[match["letter"]] += 1
        elif kind == "word":
            tokens[match["word"] if len(match["word"]) == 1 else f"word {match['word']}"] += 1
        elif kind == "environment" and match["environment"] not in _ENVIRONMENTS:
            return None, numbers, ratios
        elif kind == "command" and match["command"] not in _STRUCTURE:
            tokens[_FUNCTIONS.get(match["command"], "\\" + match["command"])] += 1
        elif kind == "escaped" and match["escaped"] != r"\\":
            return None, numbers, ratios
        elif kind == "mark":
            tokens[match["mark"]] += 1
    if tokens["|"] % 2:
        return None, numbers, ratios
    tokens["|"] //= 2
    if tokens["Max"] or tokens["Min"]:
        del tokens[","]  # it separates their arguments
    return +tokens, numbers, ratios


def _found(parsed: sympy.Basic) -> tuple[Counter[str], Counter[Fraction], Counter[Fraction]]:
    """Tokens, numbers and ratios that an expression accounts for."""
    tokens: Counter[str] = Counter()
    numbers: Counter[Fraction] = Counter()
    ratios: Counter[Fraction] = Counter()
    for node in sympy.preorder_traversal(parsed):
        if isinstance(node, sympy.Symbol):
            _pay_name(node.name, tokens, numbers)
        elif isinstance(node, AppliedUndef):
            _pay_name(str(node.func), tokens, numbers)
            tokens[","] += len(node.args) - 1
        elif isinstance(node, sympy.Integer):
            numbers[Fraction(abs(int(node)))] += 1
        elif isinstance(node, sympy.Rational):
            ratios[abs(Fraction(node.p, node.q))] += 1
        elif isinstance(node, sympy.Float):
            numbers[abs(Fraction(str(node)))] += 1
        elif isinstance(node, sympy.core.numbers.Pi):
            tokens[r"\pi"] += 1
        elif isinstance(node, sympy.core.numbers.Exp1):
            tokens["e"] += 1
        else:
            _pay_node(node, tokens)
    return tokens, numbers, ratios


def _pay_node(node: sympy.Basic, tokens: Counter[str]) -> None:
    name = type(node).__name__
    tokens[name] += 1
    if name in ("Sum", "Product"):
        tokens["="] += len(node.limits)
    if name == "exp":
        tokens["e"] += 1
    elif name == "Abs":
        tokens["|"] += 1
    elif name == "factorial":
        tokens["!"] += 1
    elif name == "gamma":
        tokens[r"\Gamma"] += 1
    elif isinstance(node, sympy.Integral):
        tokens["d"] += len(node.limits)
    elif isinstance(node, sympy.Derivative):
        tokens["d"] += 2


def _pay_name(name: str, tokens: Counter[str], numbers: Counter[Fraction]) -> None:
    word = re.match(r"[A-Za-z]+", name)
    if word is not None and word.group() in GREEK:
        tokens["\\" + word.group()] += 1
        name = name[word.end() :]
    written, written_numbers, _ = _written(name)
    tokens.update(written or {})
    numbers.update(written_numbers)


def _absorbs(node: sympy.Basic) -> bool:
    """Whether the value of a part does not depend on something in it: ``0x``, ``x^0``, ``1^x``, ``dy/dx`` as zero."""
    if isinstance(node, sympy.Derivative):
        return not set(node.variables) <= node.expr.free_symbols
    if isinstance(node, sympy.Pow) and node.args:
        base, exponent = node.args
        return bool((exponent == 0 and _has_names(base)) or (base in (0, 1) and _has_names(exponent)))
    if not isinstance(node, sympy.Mul):
        return False
    zero = any(not _has_names(factor) and factor.is_number and factor.doit() == 0 for factor in node.args)
    return zero and any(_has_names(factor) for factor in node.args)


def _has_names(node: sympy.Basic) -> bool:
    return bool(node.free_symbols) or node.has(AppliedUndef)
