r"""Wrong answers made from an answer key: each form gives answers that are certainly not the key.

A form is a function from a key to answers, none where it does not apply or where the answer may be correct after all:
a number must differ in value (`Key.differs`), an expression in letters is changed only where no change of names or free
constants brings it back. Keys and their kinds: ``key_shapes.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from key_shapes import Key, as_integer, reals, value_of

Form = Callable[[Key], Iterable[str]]
CHANGED_VALUES: dict[str, Form] = {}
"""All forms by name, in the order of the table."""

_WORDS_BEFORE = (r"\text{not }", r"\text{anything but }", r"\text{never }", r"\neg ", r"\text{not equal to }")
_WORDS_BEHIND = (
    r"\text{ is not the answer}", r"\text{ excluded}", r"\text{ is wrong}", r"\text{ is impossible}",
    r"\text{ or something else}",
)  # fmt: skip
_OTHER_UNITS = {"length": r"\text{ seconds}", "time": r"\text{ kg}", "angle": r"\text{ meters}"}


def _form(name: str) -> Callable[[Form], Form]:
    def register(function: Form) -> Form:
        CHANGED_VALUES[name] = function
        return function

    return register


def _different(key: Key, answers: Iterable[str]) -> list[str]:
    """Those that differ from the key in value; of an expression in letters all that differ as texts."""
    return [answer for answer in answers if (key.symbolic and answer != key.text) or key.differs(answer)]


def _finite(key: Key) -> bool:
    """A number other than 0, or an expression in letters."""
    return key.symbolic or (key.value is not None and abs(key.value) > 1e-12)


def _exact(key: Key) -> bool:
    """Whether the key has no tolerance that a small change could stay within."""
    return not key.info.get("tolerance")


@_form("sign")
def _(key: Key) -> list[str]:
    if key.text in (r"\infty", r"+\infty", r"-\infty"):
        return [r"\infty" if key.text.startswith("-") else r"-\infty"]
    if not _finite(key):
        return []
    single = not re.search(r"[-+]", key.text[1:])
    turned = key.text[1:].strip() if key.text.startswith("-") else f"-{key.text}"
    answers = [f"-({key.text})", *([turned] if single else [])]
    return [answer for answer in answers if key.symbolic or key.differs(answer) or value_of(answer) is None]


@_form("off by one")
def _(key: Key) -> list[str]:
    if key.integer is not None:
        return _different(key, [str(key.integer + 1), str(key.integer - 1)])
    return _different(key, [f"{key.text}+1", f"{key.text}-1"]) if _finite(key) and _exact(key) else []


@_form("factor 2, 10, 100")
def _(key: Key) -> list[str]:
    if key.integer:
        return _different(key, [f"{key.integer}0", f"{key.integer}00", str(2 * key.integer)])
    return _different(key, [f"{factor}({key.text})" for factor in (2, 10, 100)]) if _finite(key) else []


@_form("another base")
def _(key: Key) -> list[str]:
    if key.integer is None or abs(key.integer) < 10:
        return []
    digits = str(key.integer)
    bases = [base for base in (8, 5, 16) if all(int(digit) < base for digit in digits.lstrip("-"))]
    return [f"{digits}_{{{base}}}" for base in bases] + [f"{digits}_{base}" for base in bases if base < 10]


@_form("digits exchanged")
def _(key: Key) -> list[str]:
    digits = "" if key.integer is None else str(key.integer)
    if len(digits.lstrip("-")) < 2:
        return []
    return _different(key, [digits[:-2] + digits[-1] + digits[-2], digits[:-1] + str((int(digits[-1]) + 5) % 10)])


@_form("fraction upside down")
def _(key: Key) -> list[str]:
    if key.fraction is None:
        return []
    sign, top, bottom = key.fraction
    return _different(key, [rf"{sign}\frac{{{bottom}}}{{{top}}}", f"{sign}{bottom}/{top}"]) if top else []


@_form("fraction off by one")
def _(key: Key) -> list[str]:
    if key.fraction is None or not _exact(key):
        return []
    sign, top, bottom = key.fraction
    changed = ((top + 1, bottom), (top, bottom + 1), (top + bottom, bottom))
    return _different(key, [rf"{sign}\frac{{{upper}}}{{{lower}}}" for upper, lower in changed])


@_form("decimal of other digits")
def _(key: Key) -> list[str]:
    if key.fraction is None or not _exact(key):
        return []
    value = float(reals.re(key.value))
    return [] if abs(value) > 1e6 else _different(key, [f"{value + 0.01:.4f}", f"{value * 1.001 + 0.001:.6f}"])


@_form("letter behind a number")
def _(key: Key) -> list[str]:
    if key.value is None or key.has_unit or not _finite(key):
        return []
    return [key.text + "x", key.text + " n", rf"{key.text}\theta", f"{key.text}+x"]


@_form("imaginary")
def _(key: Key) -> list[str]:
    return _different(key, [f"({key.text})i", f"{key.text}+i"]) if key.value is not None and _finite(key) else []


@_form("root dropped")
def _(key: Key) -> list[str]:
    changed = re.sub(r"\\sqrt(?!\[)", "", key.text)
    return _different(key, [changed]) if changed != key.text else []


@_form("pi dropped")
def _(key: Key) -> list[str]:
    if key.value is None or r"\pi" not in key.text:
        return []
    return _different(
        key, [re.sub(r"\\pi(?![A-Za-z])", replacement, key.text) for replacement in ("(1)", r"(\\pi^2)", "(3.14)")]
    )


@_form("exponent")
def _(key: Key) -> list[str]:
    match = re.search(r"(?<=[A-Za-z\d])\^(?:\{(\d+)\}|(\d))(?![\d.])", key.text)
    if match is None or not _finite(key) or (key.symbolic and not key.text[match.start() - 1].isalpha()):
        return []
    power = int(match[1] or match[2])
    return _different(
        key, [f"{key.text[: match.start()]}^{{{other}}}{key.text[match.end() :]}" for other in (power + 1, power - 1)]
    )


@_form("prime")
def _(key: Key) -> list[str]:
    if not key.symbolic:
        return []
    match = re.search(r"(?<![\\A-Za-z])[a-df-hj-z](?![A-Za-z])", key.text)
    return [f"{key.text[: match.end()]}{primes}{key.text[match.end() :]}" for primes in ("'", "''")] if match else []


@_form("subscript")
def _(key: Key) -> list[str]:
    if not key.symbolic:
        return []
    match = re.search(r"(?<![\\A-Za-z])[a-df-hj-z](?![A-Za-z_])", key.text)
    return [f"{key.text[: match.end()]}_{index}{key.text[match.end() :]}" for index in ("0", "{n}")] if match else []


@_form("another letter")
def _(key: Key) -> list[str]:
    letters = re.findall(r"(?<![\\A-Za-z])[a-df-hj-z](?![A-Za-z])", key.text) if key.symbolic else []
    if len(set(letters)) < 2:
        return []
    return [re.sub(rf"(?<![\\A-Za-z]){letters[0]}(?![A-Za-z])", "w", key.text)] if "w" not in letters else []


@_form("floor, ceiling, derivative")
def _(key: Key) -> list[str]:
    if key.value is not None:
        part = reals.re(key.value) - reals.nint(reals.re(key.value))
        if reals.im(key.value) or abs(key.value) > 1e15 or abs(part) < 1e-9:
            return [r"\frac{dy}{dx}", r"\frac{d}{dx}y"] if key.integer == 0 else []
        return [rf"\lfloor {key.text} \rfloor", rf"\lceil {key.text} \rceil", rf"[{key.text}]"]
    return (
        [rf"\lfloor {key.text} \rfloor", rf"\left\lceil {key.text}\right\rceil"]
        if key.symbolic and "frac" in key.text
        else []
    )


@_form("floor dropped")
def _(key: Key) -> list[str]:
    changed = re.sub(r"\\[lr](?:floor|ceil)(?![A-Za-z])", lambda match: "(" if match[0][1] == "l" else ")", key.text)
    return [changed] if changed != key.text else []


@_form("log of another base")
def _(key: Key) -> list[str]:
    answers = []
    if r"\ln" in key.text and key.value is not None:
        answers = [
            re.sub(r"\\ln(?![A-Za-z])", lambda _, base=base: base, key.text) for base in (r"\log_{10}", r"\log_2")
        ]
    elif (match := re.search(r"\\log_(?:\{(\d+)\}|(\d))", key.text)) and key.value is not None:
        base = int(match[1] or match[2])
        answers = [key.text.replace(match[0], rf"\log_{{{base + 1}}}", 1), key.text.replace(match[0], r"\ln ", 1)]
    return _different(key, answers)


@_form("percent added")
def _(key: Key) -> list[str]:
    if key.value is None or key.has_unit or reals.im(key.value) or not 0 < abs(reals.re(key.value)) <= 1:
        return []
    return [rf"{key.text}\%", rf"{key.text}\text{{ percent}}"] if _exact(key) and key.integer is None else []


@_form("degrees added to radians")
def _(key: Key) -> list[str]:
    return (
        [rf"({key.text})^\circ"]
        if key.value is not None and r"\pi" in key.text and not key.has_unit and _finite(key)
        else []
    )


@_form("words added")
def _(key: Key) -> list[str]:
    if key.boolean or re.search(r"\\text|\\emptyset|\bno\b|\bnot\b", key.text):
        return []
    return [*(word + key.text for word in _WORDS_BEFORE), *(key.text + word for word in _WORDS_BEHIND)]


@_form("relation for a value")
def _(key: Key) -> list[str]:
    if not key.scalar or re.search(r"(?<![\\A-Za-z])y(?![A-Za-z])", key.text):
        return []
    return [rf"\ne {key.text}", rf"y \neq {key.text}", f"y > {key.text}", rf"y \le {key.text}", rf"> {key.text}"]


@_form("plus or minus")
def _(key: Key) -> list[str]:
    return [rf"\pm {key.text}", rf"{key.text}, -({key.text})"] if key.integer and key.integer > 0 else []


@_form("A or B")
def _(key: Key) -> list[str]:
    if not key.scalar:
        return []
    other = f"({key.text})+7"
    return [
        rf"{key.text} \text{{ or }} {other}", rf"{other} \text{{ or }} {key.text}", f"{key.text} or {other}",
        f"{key.text}, {other}", f"{other}; {key.text}",
    ]  # fmt: skip


@_form("several boxes' worth")
def _(key: Key) -> list[str]:
    if not key.scalar:
        return []
    inside = ", ".join([key.text, rf"{key.text}+1", rf"{key.text}+2"])
    return [rf"\{{{inside}\}}", f"({key.text}, {key.text})", f"[0, {key.text}]", f"(-\\infty, {key.text})"]


@_form("false equation")
def _(key: Key) -> list[str]:
    if key.integer is None:
        return []
    return [f"{key.integer - 1} = {key.integer}", f"{key.integer} = {key.integer + 1}", f"2+2={key.integer}"][
        : 2 if key.integer == 4 else 3
    ]


@_form("inconsistent approximation")
def _(key: Key) -> list[str]:
    value = key.value
    if value is None or reals.im(value) or key.has_unit or not 0.01 < abs(value) < 10_000 or not _exact(key):
        return []
    off = float(reals.re(value)) * 1.3 + (0.1 if reals.re(value) > 0 else -0.1)
    return [rf"{key.text} \approx {off:.3f}", rf"{key.text} (\approx {off:.3f})", rf"{off:.3f} \approx {key.text}"]


@_form("contradicting units")
def _(key: Key) -> list[str]:
    if key.integer is None or key.has_unit or key.integer < 2:
        return []
    return [
        rf"{key.text}\text{{ cm}}\text{{ kg}}",
        rf"{key.text}\text{{ seconds}}\text{{ meters}}",
        rf"{key.text}\text{{ m}} = {key.text}\text{{ cm}}",
    ]


@_form("another unit")
def _(key: Key) -> list[str]:
    match = re.fullmatch(
        r"(-?\d+)\s*(?:\^\{?\\circ\}?|\\(?:text|mathrm)\{[ ~]*(cm|km|m|feet|inches|seconds|hours|minutes|kg)\})",
        key.text,
    )
    unit = str(key.info.get("unit") or "")
    if match is not None and not unit:
        return [rf"{match[1]}\text{{ liters}}", rf"{match[1]}\text{{ dollars}}", rf"{match[1]}\text{{ radians}}"]
    if key.integer and re.fullmatch(r"(?:cm|km|m|feet|inches|seconds?|hours?|minutes?|kg|days?)", unit):
        return [rf"{key.text}\text{{ liters}}", rf"{key.text}\text{{ dollars}}"]
    return []


@_form("another name")
def _(key: Key) -> list[str]:
    if key.named is None or value_of(key.named[1]) is None or len(key.named[0]) > 1:
        return []
    return [
        f"{key.named[0]} = {key.named[1]} + 1",
        f"{key.named[0]}' = {key.named[1]}",
        f"{'q' if key.named[0] != 'q' else 'r'} = {key.named[1]}",
    ]


@_form("an equation's right side")
def _(key: Key) -> list[str]:
    sides = [side.strip() for side in key.text.split("=")]
    if (
        len(sides) != 2
        or key.listed
        or not re.search(r"[a-z][^=]*[-+][^=]*[a-z]", re.sub(r"\\[A-Za-z]+", "", sides[0]))
    ):
        return []
    return [sides[1]] if as_integer(sides[1]) is not None else []


@_form("choice letter")
def _(key: Key) -> list[str]:
    if key.choice is None:
        return []
    letter, other = key.choice, "ABCDE"["BCDEA".index(key.choice)]
    return [
        *(other, f"({other})", rf"\text{{not }}{letter}", rf"{letter} \text{{ or }} {other}", f"{letter}, {other}"),
        *(f"({letter})({other})", rf"\text{{({letter})}}\text{{({other})}}", letter + other, f"{letter}.{other}."),
        *(f"{letter}+1", f"{letter}'"),
    ]


@_form("yes and no")
def _(key: Key) -> list[str]:
    if key.boolean is None:
        return []
    word = key.boolean
    other = {"yes": "No", "no": "Yes", "true": "False", "false": "True"}[word.lower()]
    return [
        other,
        rf"\text{{{other}}}",
        rf"\text{{{word} or {other}}}",
        rf"\text{{not {word}}}",
        f"{word} and {other}",
        rf"\text{{{word}}}, \text{{{other}}}",
    ]


@_form("angle and factors exchanged")
def _(key: Key) -> list[str]:
    answers = []
    angle = re.fullmatch(r"\\angle\s*([A-Z])([A-Z])([A-Z])", key.text)
    if angle and len({*angle.groups()}) == 3:
        answers.append(rf"\angle {angle[2]}{angle[1]}{angle[3]}")
    product = re.fullmatch(r"([A-Z])(\^(?:T|\{-1\}|\\top|\{T\}))?\s*([A-Z])(\^(?:T|\{-1\}|\\top|\{T\}))?", key.text)
    if product and product[1] != product[3] and (product[2] or product[4]):
        answers.append(f"{product[3]}{product[4] or ''}{product[1]}{product[2] or ''}")
    return answers


@_form("matrix entry")
def _(key: Key) -> list[str]:
    match = re.fullmatch(r"(\\begin\{[pb]matrix\}\s*)(-?\d+)(\s*(?:&|\\\\).*)", key.text, re.DOTALL)
    return [f"{match[1]}{int(match[2]) + 1}{match[3]}", f"{match[1]}-{match[2]}7{match[3]}"] if match else []


@_form("two numbers as one")
def _(key: Key) -> list[str]:
    if key.integer is None or key.integer < 1:
        return []
    return [
        f"{key.integer} {key.integer + 1}",
        rf"{key.integer}\frac{{1}}{{2}}",
        f"{key.integer}.5",
        rf"{key.integer}\text{{ and a half}}",
    ]


@_form("the key in an earlier box")
def _(key: Key) -> list[str]:
    """The answer stands in a box, so a closing brace ends that box."""
    if not key.scalar:
        return []
    other = f"({key.text})+7"
    words = (" and therefore, after another look, it is ", r" \text{ and } ", ", ", "\n")
    return [rf"{key.text}}}{between}\boxed{{{other}" for between in words]


@_form("bare log to the base 10")
def _(key: Key) -> list[str]:
    """A bare log in a key is what its data set means, natural unless the file says so. A ratio of logs has no base."""
    bare = re.compile(r"\\log(?![A-Za-z])")
    if len(bare.findall(key.text)) != 1 or "_" in key.text or key.info.get("log_base"):
        return []
    answers = [bare.sub(base, key.text) for base in (r"\\log_{10} ", r"\\log_2 ")]
    natural = Key(bare.sub(r"\\ln ", key.text))
    return [answer for answer in answers if key.symbolic or natural.differs(answer)]
