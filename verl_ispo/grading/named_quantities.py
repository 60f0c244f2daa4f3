r"""When the right side of an equation is the answer, and when the equation itself is.

The rule: the right side alone is the answer where the left side *names one quantity* that the question asks for. The
equation is the answer where its left side is an expression in unknowns, so that the right side means nothing alone.

- A quantity: a value of a function or a probability (``f(2)``, ``P(A)``), a size (``|w|``), an angle, a function of
  one (``\sin A``), an indexed name (``x_1``, ``y_{\min}``), a derivative, and what is made of those and of two or more
  other letters without a coefficient (``AB+CD``, ``a+b``, ``\frac{S_1}{S_2}``, ``V_1:V_2``, ``x_1x_2``).
- An equation: anything in the coordinates ``x``, ``y``, ``z`` as they stand (``4x+3y=6``, ``x^2+y^2=1``, ``|x|=1``),
  anything with one letter to be solved for (``2a=10``, ``a^2=4``), and anything with a coefficient (``2a+3b=5``).

An *answer* such as ``x+y=5`` to a key of 5 repeats the question, so there coordinates are letters like any other; with
a coefficient (``4x+3y=6``) it remains an equation.
"""

from __future__ import annotations

import re

from .latex_groups import group_end
from .parsing_loss import GREEK

MAX_SIDE_CHARS = 300
"""A longer left side names nothing: its brackets are searched once for each call in it."""

_QUANTITY = "\u00a7"  # in place of a part that is one quantity; no normalized text has this sign
_DERIVATIVE = re.compile(
    r"\\frac\{(?:d|\\partial)(?:\^\{?\d\}?)?([A-Za-z])(?:\([a-z]\))?\}\{(?:d|\\partial)[^{}]*(?:\{\d\})?\}"
)
_FUNCTION = re.compile(r"(?:[A-Za-z]|\\(?:phi|psi|varphi|Gamma|zeta|sigma|mathbb\{[A-Z]\}))\^\{-1\}\([a-z]\)")
_FUNCTION_NAMES = frozenset("fghpquvdABCDEFGHKLMNPQRSTUVWXYZ")  # n(n+1) is a product
_INDEXED = re.compile(r"(?:[A-Za-z]|\\[A-Za-z]+|\\text\{[^{}]*\})_(?:\{[^{}]{1,16}\}|[A-Za-z0-9]|\\[A-Za-z]+)'{0,3}")
_FIGURE = re.compile(r"\\(?:angle|triangle)\s*(?:[A-Z]{1,4}|\d)|\\(?:vec|overline|overrightarrow)\{[^{}]*\}")
_CALL = re.compile(r"(?:\\?[A-Za-z]+(?:\{[A-Z]\})?)'{0,3}(?=[(\[])")
_ANGLE_FUNCTION = re.compile(r"\\(sin|cos|tan|cot|sec|csc)(?:\^\{?\d\}?)?\s*(?:\d|\\frac\{)?")
_WORKED_OUT = re.compile(r"\\(?:int|sum|prod|lim|max|min|sup|inf|det)(?![A-Za-z])")
_EXTREME = re.compile(r"[^=+<>]*_\s*\{?\s*\\(?:max|min)(?![A-Za-z])\s*\}?")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_EXPONENT = re.compile(r"\^(?:\{\d+\}|\d)")


def names_a_quantity(left: str, right: str, *, is_key: bool) -> bool:
    """Whether ``right`` alone answers the question that ``left = right`` answers; the module's docstring is the rule.

    Args:
        left, right (`str`): The sides of an equation, normalized.
        is_key (`bool`): The equation is the ground truth; an answer may repeat a question about ``x+y``.
    """
    if len(left) > MAX_SIDE_CHARS:
        return False
    if (derivative := _DERIVATIVE.fullmatch(left)) is not None:
        return derivative.group(1) not in _letters(right)
    if _FUNCTION.fullmatch(left):
        return True
    if split_ratio(left) is not None:
        return (split_ratio(right) is not None or not _letters(right)) and "=" not in right
    if _WORKED_OUT.match(left) or _EXTREME.fullmatch(left):
        return not _letters(right)
    skeleton = _skeleton(left)
    letters = _letters(skeleton)
    if right == "0" and skeleton != _QUANTITY:
        return False
    if letters & _letters(right):
        return False
    if letters & set("xyz") and (is_key or len(letters) < 2):
        return False
    if re.search(r"\d", _EXPONENT.sub("", skeleton).replace(r"\frac{1}", "")):
        return False
    if _QUANTITY in skeleton or r"\text" in left:
        return True
    if _ANGLE_FUNCTION.search(left):
        return bool(letters)
    return len(letters) >= 2


def is_arithmetic(text: str) -> bool:
    """Whether a text has no letters and no names: a side such as ``2+3`` that is worked out, not solved for."""
    return (
        len(text) <= MAX_SIDE_CHARS
        and not _letters(text)
        and not re.search(r"\\(?:angle|triangle|vec|overline|text)|[|'(].*[A-Za-z]", text)
    )


def is_product_of_coordinates(name: str) -> bool:
    """Whether what looks like a name of small letters (``xy``) is a product of coordinates."""
    return len(name) > 1 and name.isalpha() and name.islower() and bool(set(name) & set("xyz"))


def split_ratio(text: str) -> list[str] | None:
    """The parts of ``a:b`` or ``a:b:c`` outside brackets, or ``None``."""
    parts = text.split(":")
    return parts if 2 <= len(parts) <= 6 and all(part.count("(") == part.count(")") for part in parts) else None


def _letters(text: str) -> set[str]:
    r"""Letters and Greek letters of a text, without ``e``, ``i``, ``\pi`` and the letters of other commands."""
    greek = {name for name in _COMMAND.findall(text) if name in GREEK}
    plain = re.sub(r"\\text\{[^{}]*\}|\\[A-Za-z]+", " ", text)
    return greek | (set(re.findall(r"[A-Za-z]", plain)) - {"e", "i"})


def _skeleton(left: str) -> str:
    """The left side with one sign in place of each part that is a quantity by itself."""
    text = _FIGURE.sub(_QUANTITY, _INDEXED.sub(_QUANTITY, left))
    text = _ANGLE_FUNCTION.sub(r"\\\1 ", text)
    text = _sizes(text)
    position = 0
    while (call := _CALL.search(text, position)) is not None:
        position = call.end()
        end = group_end(text, call.end())
        arguments = text[call.end() : end]
        name = call.group().lstrip("\\")
        known = name.rstrip("'") in _FUNCTION_NAMES or (
            call.group().startswith("\\") and name not in ("frac", "sqrt", "cdot")
        )
        if end > 0 and known and not _letters(arguments) & set("xyzt"):
            text = text[: call.start()] + _QUANTITY + text[end:]
            position = call.start() + 1
    return text


def _sizes(text: str) -> str:
    r"""``|w|`` and ``|AB|`` as quantities; ``|x|`` and ``|a-1|`` to be solved are left."""
    return re.sub(r"\|([A-Zabzwuv]|[A-Z]{2}|\u00a7|[a-z]\+[a-z])\|", _QUANTITY, text)
