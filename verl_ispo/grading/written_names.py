r"""Names that the LaTeX parser would take apart or drop, put in symbols of their own before it reads them.

``f'``, ``\angle ABC``, ``\vec{a}``, ``f(2x+1)``, ``\frac{dy}{dx}`` and the matrix ``I`` are each one thing. The parser
makes ``f``, a product of three letters, a product of ``f`` and ``2x+1``, a derivative of zero and the imaginary unit of
them. Here each becomes a placeholder symbol, the same one wherever the same name is written on either side.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .latex_groups import group_end
from .parsing_loss import GREEK

_FIRST = 9001
_FUNCTION_LETTERS = "fghFGHPQT"
_INDEX = r"(?:_(?:\{[^{}]{1,16}\}|[A-Za-z0-9]|\\[A-Za-z]+))?"
_PRIMES = r"(?:'{1,4}|\^\s*\{\s*(?:'{1,4}|(?:\\prime\s*){1,4})\}|\^\s*\\prime(?![A-Za-z]))?"
# not \mathbb and \mathcal: those name sets and groups, and Z/2Z is no fraction
_ACCENTS = "overline|bar|vec|hat|tilde|widehat|widetilde|overrightarrow|overleftrightarrow"
_APPLIED = "det|arg|deg|dim|ker|Re|Im|Pr|sup|inf"
_POWER = r"(?:\^\s*(?:\d|\{\s*(?:-?\d{1,3}|\(\s*[A-Za-z0-9]\s*\))\s*\}))?"
_NAME = re.compile(
    rf"(?P<derivative>\\frac\s*\{{\s*(?P<symbol>d|\\partial)\s*(?P<upper>\^\{{?\d\}}?)?\s*[A-Za-z]\s*\}}\s*"
    rf"\{{\s*(?P=symbol)\s*[A-Za-z]\s*(?P=upper)?\s*\}})"
    rf"|(?P<accented>\\(?:{_ACCENTS})(?:\s*\{{(?:[A-Za-z]{{1,3}}|\\[a-z]{{2,7}})\}}|\s+[A-Za-z]|\s*\\[a-z]{{2,7}}){_INDEX}{_PRIMES})"
    rf"|\\(?P<figure>angle|triangle|odot)\s*(?P<points>[A-Z]{{3}}(?![A-Z])|[A-Z](?![A-Z])|\d(?!\d))"
    rf"|(?P<applied>\\(?:{_APPLIED})|\\text\{{\s*[A-Za-z]{{2,12}}\s*\}})(?P<bracket>\s*\()"
    rf"|\\text\{{[^{{}}]*\}}|\\(?:begin|end)\{{[a-z]*\}}"
    rf"|(?P<base>\\[A-Za-z]+|[A-Za-z])(?P<index>{_INDEX})(?P<primes>{_PRIMES})(?P<power>{_POWER})(?P<open>\s*\()?"
)
_FACTOR = r"(?<![A-Za-z\\])([A-Z]{2})(?![A-Za-z_'(])"
_SEGMENT = re.compile(_FACTOR)
_SEGMENTS = re.compile(rf"{_FACTOR}\s*\\cdot\s*{_FACTOR}")


@dataclass(frozen=True)
class WrittenName:
    """A name as it is written, without white space and braces, and the arguments of a function."""

    name: str
    arguments: tuple[str, ...] = ()


def function_letters(*texts: str) -> frozenset[str]:
    r"""Letters that are functions in these texts: ``f``, ``g`` and the like, with a bracket after them everywhere.

    A height in ``h(a+b)`` has no bracket after it in ``\frac{(a+b)h}{2}``, so there it is a number on both sides.
    """
    applied: set[str] = set()
    bare: set[str] = set()
    for text in texts:
        for match in _NAME.finditer(text):
            if match["base"] is not None and match["base"] in _FUNCTION_LETTERS:
                (applied if match["open"] else bare).add(match["base"])
    return frozenset(applied - bare)


def multiplies_segments(text: str) -> bool:
    r"""Whether two-letter names are factors, as in ``AB\cdot CD``: lengths, which commute, and ``AB`` is ``BA``."""
    return _SEGMENTS.search(text) is not None


def replace_names(text: str, functions: frozenset[str], segments: bool, names: dict[WrittenName, int]) -> str:
    r"""The text with a placeholder such as ``\Xi_{9001}`` for each such name; ``names`` takes what each stands for.

    Args:
        text (`str`): A normalized LaTeX text.
        functions (`frozenset`): From :func:`function_letters`.
        segments (`bool`): Two capital letters side by side are the length of a segment.
        names (`dict`): Filled in place; to be shared by all texts that are compared.
    """
    if segments:
        text = _SEGMENT.sub(lambda pair: _placeholder(WrittenName("".join(sorted(pair.group()))), names), text)
    pieces, position = [], 0
    while (match := _NAME.search(text, position)) is not None:
        pieces.append(text[position : match.start()])
        piece, position = _replacement(text, match, functions, names)
        pieces.append(piece)
    return "".join([*pieces, text[position:]])


def _placeholder(name: WrittenName, names: dict[WrittenName, int]) -> str:
    return rf"\Xi_{{{names.setdefault(name, _FIRST + len(names))}}}"


def _replacement(
    text: str, match: re.Match[str], functions: frozenset[str], names: dict[WrittenName, int]
) -> tuple[str, int]:
    """What stands for one name, and where the text goes on."""
    if match["derivative"] or match["accented"]:
        return _placeholder(WrittenName(_plain(match.group())), names), match.end()
    if match["figure"]:
        points = match["points"]
        if match["figure"] == "angle":
            points = min(points, points[::-1])
        return _placeholder(WrittenName(f"{match['figure']} {points}"), names), match.end()
    if match["applied"] and (end := group_end(text, match.end() - 1)) > 0:
        arguments = tuple(_arguments(text[match.end() : end - 1]))
        return _placeholder(WrittenName(_plain(match["applied"]), arguments), names), end
    base, index, primes = match["base"], match["index"], match["primes"]
    if base is None:
        return match.group(), match.end()
    if base.startswith("\\") and not (primes or base in functions):
        end = match.end("index" if base[1:] in GREEK else "base")
        return text[match.start() : end], end
    primes = "'" * (primes.count("'") + primes.count("prime"))
    if match["open"] and (base in functions or primes):
        start = match.end() - 1
        end = group_end(text, start)
        if end > 0:
            arguments = tuple(_arguments(text[start + 1 : end - 1]))
            return _placeholder(WrittenName(_plain(base + index + primes + match["power"]), arguments), names), end
    if not primes and base != "I":
        return text[match.start() : match.end("index")], match.end("index")
    return _placeholder(WrittenName(_plain(base + index + primes)), names), match.end("primes")


def _plain(name: str) -> str:
    return re.sub(r"[{}\s]", "", name)


def _arguments(text: str) -> list[str]:
    pieces, depth, start = [], 0, 0
    for position, char in enumerate(text):
        depth += (char in "{([") - (char in "})]")
        if char == "," and depth == 0:
            pieces.append(text[start:position])
            start = position + 1
    return [*pieces, text[start:]]


_MIXED = re.compile(r"(?<![\d.^_}\]])(\d{1,9})\s*\\frac\{(\d{1,9})\}\{(\d{1,9})\}")


def spell_out(text: str) -> str:
    r"""Mixed numbers as one fraction, and square brackets as what they mean: the floor, or plain brackets.

    Brackets around a sum with brackets in it, next to a factor or under a power, group terms; any other square
    bracket may be the floor and is read so: ``[n/2]`` is ``\lfloor n/2\rfloor``.
    """
    return _square_brackets(_MIXED.sub(_one_fraction, text))


def _one_fraction(match: re.Match[str]) -> str:
    whole, top, bottom = (int(part) for part in match.groups())
    if not 0 < top < bottom:
        return match.group()
    return rf"\frac{{{whole * bottom + top}}}{{{bottom}}}"


def _square_brackets(text: str) -> str:
    for _ in range(24):
        start = next((found.start() for found in re.finditer(r"\[", text) if not _is_degree(text, found.start())), -1)
        end = group_end(text, start) if start >= 0 else -1
        if end < 0:
            return text
        inside = text[start + 1 : end - 1]
        whole = start == 0 and end == len(text)
        if not whole and _is_sum_with_brackets(inside):
            text = f"{text[:start]}({inside}){text[end:]}"
        else:
            text = rf"{text[:start]}\lfloor {inside}\rfloor {text[end:]}"
    return text


def _is_degree(text: str, start: int) -> bool:
    return text[:start].rstrip().endswith((r"\sqrt", "E", "P", r"\\"))


def _is_sum_with_brackets(text: str) -> bool:
    depth, signs, brackets = 0, 0, 0
    for char in text:
        brackets += depth == 0 and char in "(["
        depth += (char in "{([") - (char in "})]")
        signs += depth == 0 and char in "+-"
    return signs > 0 and brackets > 0
