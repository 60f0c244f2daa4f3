r"""Degrees within an expression: ``\sin 30^\circ``, ``90^\circ-\alpha``.

A degree sign behind a number alone is a unit (:mod:`~verl_ispo.grading.units`). Within an expression it is the factor
:math:`\pi/180`, wherever an argument of a trigonometric function or another sign of degrees tells that it matters.
"""

from __future__ import annotations

import re

_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|cosec|sinh|cosh|tanh|operatorname|text)(?![A-Za-z])")
_DEGREE = re.compile(r"\\degree(?![A-Za-z])")
_OPERAND = re.compile(
    r"(?:\d[\d.]*|\\[A-Za-z]+|[A-Za-z]|(?:\d[\d.]*)?\\frac\{[^{}]*\}\{[^{}]*\}|\([^()]*\)|\{[^{}]*\})(?:_(?:\d|\{[^{}]*\}))?$"
)
_OPERAND_CHARS = 80


def degrees_are_inside(value: str) -> bool:
    """Whether a degree sign behind ``value`` belongs to the last term or argument of it, not to all of it."""
    if r"\degree" in value or _TRIGONOMETRIC.search(value):
        return True
    return bool(re.search(r"[A-Za-z]", re.sub(r"\\(?:frac|cdot|pi|sqrt)(?![A-Za-z])", "", value))) and bool(
        re.search(r"[-+]", value.lstrip("-+"))
    )


def same_degrees(gold: str, answer: str) -> tuple[str, str]:
    """Two texts that may be compared: both with their degrees worked out, or both without any.

    Where only one has degrees and they are in no function, the other leaves their sign out, as ``30`` does for ``30°``.
    """
    marked = [r"\degree" in text for text in (gold, answer)]
    if not any(marked):
        return gold, answer
    matters = all(marked) or any(
        _TRIGONOMETRIC.search(text) if is_marked else r"\pi" in text
        for text, is_marked in zip((gold, answer), marked, strict=True)
    )
    convert = in_radians if matters else _without_signs
    return convert(gold), convert(answer)


def _without_signs(text: str) -> str:
    return _DEGREE.sub("", text)


def in_radians(text: str) -> str:
    r"""Each ``x\degree`` becomes ``(\frac{\pi}{180}\cdot x)``."""
    pieces = _DEGREE.split(text)
    result = ""
    for piece in pieces[:-1]:
        operand = _OPERAND.search(piece, max(0, len(piece) - _OPERAND_CHARS))
        if operand is None:
            result += piece + r"\frac{\pi}{180}"
            continue
        result += rf"{piece[: operand.start()]}(\frac{{\pi}}{{180}}\cdot {operand.group()})"
    return result + pieces[-1]
