r"""Other mathematical spellings of an answer key: each form gives answers that are certainly the same as the key.

A form is a function from a key to answers, none where it does not apply. Keys and their kinds: ``key_shapes.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fractions import Fraction

from key_shapes import Key, plain_brackets, reals, value_of

Form = Callable[[Key], Iterable[str]]
SPELLINGS: dict[str, Form] = {}
"""All forms by name, in the order of the table."""

_NUMBER_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 16: "sixteen"}


def _form(name: str) -> Callable[[Form], Form]:
    def register(function: Form) -> Form:
        SPELLINGS[name] = function
        return function

    return register


def _outside_text(key: Key, pattern: str, replacement: str) -> list[str]:
    """The key with a replacement made; nothing where the key has words, or nothing to replace."""
    if r"\text" in key.text or key.boolean:
        return []
    answer = re.sub(pattern, replacement, key.text)
    return [answer] if answer != key.text else []


@_form("left and right")
def _(key: Key) -> list[str]:
    text = plain_brackets(key.text)
    if r"\text" in text or "(" not in text or "[" in text or text.count("(") != text.count(")"):
        return [text] if text != key.text else []
    sized = text.replace("(", r"\left( ").replace(")", r" \right)")
    return [
        answer for answer in (text, sized, text.replace("(", r"\bigl(").replace(")", r"\bigr)")) if answer != key.text
    ]


@_form("spacing")
def _(key: Key) -> list[str]:
    if not (key.scalar or key.brackets or key.items) or key.has_unit:
        return []
    spaced = re.sub(r"(?<=[\w})])\s*([-+])\s*(?=[\w\\(])", r" \1 ", key.text)
    commas = re.sub(r",\s*", r",\\ ", key.text) if key.brackets or key.items else key.text
    thin = re.sub(r"(?<=[\w})])\s*([-+])\s*(?=[\w\\(])", r"\\,\1\\;", key.text)
    return [answer for answer in dict.fromkeys((spaced, commas, thin)) if answer != key.text]


@_form("frac, dfrac, tfrac")
def _(key: Key) -> list[str]:
    if "frac" not in key.text:
        return []
    return [re.sub(r"\\[dt]?frac(?![A-Za-z])", rf"\\{name}", key.text) for name in ("frac", "dfrac", "tfrac", "cfrac")]


@_form("a/b")
def _(key: Key) -> list[str]:
    if key.fraction is None:
        return []
    sign, top, bottom = key.fraction
    return [f"{sign}{top}/{bottom}", f"{sign} {top} / {bottom}", rf"{sign}\frac{{{top}}}{{{bottom}}}"]


@_form("nicefrac, sfrac, over")
def _(key: Key) -> list[str]:
    if key.fraction is None:
        return []
    sign, top, bottom = key.fraction
    names = [rf"{sign}\{name}{{{top}}}{{{bottom}}}" for name in ("nicefrac", "sfrac")]
    return [*names, rf"{sign}{{{top} \over {bottom}}}"]


@_form("sign of the fraction")
def _(key: Key) -> list[str]:
    if key.fraction is None or key.fraction[0] == "":
        return []
    _, top, bottom = key.fraction
    return [rf"\frac{{-{top}}}{{{bottom}}}", rf"\frac{{{top}}}{{-{bottom}}}", rf"-\frac{{{top}}}{{{bottom}}}"]


@_form("fraction not reduced")
def _(key: Key) -> list[str]:
    if key.fraction is None:
        return []
    sign, top, bottom = key.fraction
    return [rf"{sign}\frac{{{2 * top}}}{{{2 * bottom}}}"]


@_form("finite decimal")
def _(key: Key) -> list[str]:
    if key.fraction is None:
        return []
    sign, top, bottom = key.fraction
    scaled = Fraction(top, bottom) * 10**6
    if scaled.denominator != 1:
        return []
    digits = f"{scaled.numerator:07d}"
    text = f"{digits[:-6]}.{digits[-6:]}".rstrip("0").rstrip(".")
    return [sign + text, sign + text.lstrip("0")] if "." in text else [sign + text]


@_form("mixed number")
def _(key: Key) -> list[str]:
    if key.fraction is None:
        return []
    sign, top, bottom = key.fraction
    whole, rest = divmod(top, bottom)
    return [rf"{sign}{whole}\frac{{{rest}}}{{{bottom}}}", rf"{sign}{whole} {rest}/{bottom}"] if whole and rest else []


@_form("trailing zeros")
def _(key: Key) -> list[str]:
    if key.integer is not None and key.text.lstrip("-").isdigit() and not key.has_unit:
        return [key.text + ".0", key.text + ".00"]
    return [key.text + "0"] if key.decimal is not None else []


@_form("leading zero")
def _(key: Key) -> list[str]:
    if key.decimal is None:
        return []
    bare = re.sub(r"^(-?)0*\.", r"\1.", key.decimal)
    padded = re.sub(r"^(-?)\.", r"\g<1>0.", key.decimal)
    return [answer for answer in (bare, padded) if answer != key.text]


@_form("decimal as a fraction")
def _(key: Key) -> list[str]:
    if key.decimal is None:
        return []
    fraction = abs(Fraction(key.decimal))
    sign = "-" if key.decimal.startswith("-") else ""
    return [rf"{sign}\frac{{{fraction.numerator}}}{{{fraction.denominator}}}"] if fraction.denominator > 1 else []


@_form("thousands separators")
def _(key: Key) -> list[str]:
    if key.integer is None or abs(key.integer) < 1_000:
        return []
    return [str(key.integer), *(f"{key.integer:,}".replace(",", mark) for mark in (",", "{,}", r",\!", r"\,", r"\ "))]


@_form("scientific")
def _(key: Key) -> list[str]:
    digits = "" if key.integer is None else str(abs(key.integer))
    if len(digits) < 5 or len(digits.rstrip("0")) > 4:
        return []
    mantissa = f"{digits[0]}.{digits[1:].rstrip('0')}".rstrip(".")
    sign = "-" if key.integer is not None and key.integer < 0 else ""
    return (
        [rf"{sign}{mantissa}\times 10^{{{len(digits) - 1}}}", rf"{sign}{mantissa} \cdot 10^{len(digits) - 1}"]
        if len(digits) < 11
        else []
    )


@_form("unicode")
def _(key: Key) -> list[str]:
    answer = re.sub(r"(?<=[\d)])?\\pi(?![A-Za-z])", "π", key.text.replace("-", "−")).replace(r"\infty", "∞")
    answer = re.sub(r"\\sqrt\{(\d+)\}", r"√\1", answer)
    return [answer] if answer != key.text and not key.boolean and r"\text" not in key.text else []


@_form("a name before")
def _(key: Key) -> list[str]:
    if not key.scalar or key.has_unit:
        return []
    letters = set(re.findall(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", key.text)))
    names = [name for name in ("x", "N", "S", "m") if name not in letters]
    return [*(f"{name} = {key.text}" for name in names), rf"\text{{Area}} = {key.text}"]


@_form("the value without its name")
def _(key: Key) -> list[str]:
    if key.named is None or value_of(key.named[1]) is None:
        return []
    return [key.named[1], f"{key.named[0]}={key.named[1]}", rf"{key.named[0]} \, = \, {key.named[1]}"]


@_form("an approximation behind")
def _(key: Key) -> list[str]:
    value = key.value
    if value is None or key.decimal is not None or reals.im(value) or key.has_unit or not 0.01 < abs(value) < 10_000:
        return []
    if key.integer is not None or value == reals.nint(value):
        return []
    digits = f"{float(reals.re(value)):.4f}"
    return [
        rf"{key.text} \approx {digits}",
        rf"{key.text} (\approx {digits})",
        rf"{key.text} (\text{{approximately }} {digits})",
    ]


@_form("degrees")
def _(key: Key) -> list[str]:
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*\^\s*\{?\\circ\}?", key.text)
    if match is None:
        return []
    return [f"{match[1]}{sign}" for sign in ("", r"^\circ", r"^{\circ}", "°", r"\text{ degrees}", r"\degree")]


@_form("percent")
def _(key: Key) -> list[str]:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*\\?%", key.text)
    return [f"{match[1]}{sign}" for sign in (r"\%", "%", r"\text{ percent}", r"\,\%")] if match else []


@_form("money")
def _(key: Key) -> list[str]:
    match = re.fullmatch(r"\\\$\s*(\d[\d.,]*)", key.text)
    return [match[1], rf"\${match[1]}", rf"{match[1]}\text{{ dollars}}", f"{match[1]} dollars"] if match else []


@_form("the file's unit")
def _(key: Key) -> list[str]:
    unit = str(key.info.get("unit") or "")
    if key.value is None or not re.fullmatch(r"[a-z]+", unit):
        return []
    return [rf"{key.text}\text{{ {unit}}}", rf"{key.text}\,\mathrm{{{unit}}}", f"{key.text} {unit}"]


@_form("root as a power")
def _(key: Key) -> list[str]:
    root = re.compile(r"(?:(?<=[-+({])|^)\\sqrt\{(\d+)\}")
    if key.value is None or not root.search(key.text):
        return []
    powers = ("{1/2}", r"{\frac{1}{2}}", "{0.5}")
    return [root.sub(lambda found, power=power: f"{found[1]}^{power}", key.text) for power in powers]


@_form("short root")
def _(key: Key) -> list[str]:
    return _outside_text(key, r"\\sqrt\{(\d)\}", r"\\sqrt\1") + _outside_text(key, r"\\sqrt(\d)", r"\\sqrt{\1}")


@_form("factors with a dot")
def _(key: Key) -> list[str]:
    if not key.scalar:
        return []
    answers = [
        re.sub(r"(?<![\d.^_])(\d+)\s*(?=\\(?:pi|sqrt))", rf"\1{sign}", key.text)
        for sign in (r" \\cdot ", r"\\times ", "*", r"\\,")
    ]
    return [answer for answer in answers if answer != key.text]


@_form("factors exchanged")
def _(key: Key) -> list[str]:
    match = re.fullmatch(r"(\d+)\s*(\\pi|\\sqrt\{\d+\})", key.text)
    return [rf"{match[2]} \cdot {match[1]}", rf"{match[2]}\times {match[1]}"] if match else []


@_form("terms exchanged")
def _(key: Key) -> list[str]:
    if not key.scalar or re.search(r"[({]", key.text.replace(r"\sqrt{", "").replace(r"\frac{", "")):
        return []
    terms = re.split(r"\s*\+\s*", key.text)
    plain = all(term and term.count("{") == term.count("}") for term in terms)
    return [f"{terms[1]} + {terms[0]}"] if len(terms) == 2 and plain and "-" not in terms[0] else []


@_form("braces of powers")
def _(key: Key) -> list[str]:
    return _outside_text(key, r"\^(\d)(?!\d)", r"^{\1}") + _outside_text(key, r"\^\{([a-z0-9])\}", r"^\1")


@_form("log to the base e")
def _(key: Key) -> list[str]:
    if r"\ln" not in key.text:
        return []
    return [re.sub(r"\\ln(?![A-Za-z])", lambda _, base=base: base, key.text) for base in (r"\log_e", r"\log_{e}")]


@_form("value worked out")
def _(key: Key) -> list[str]:
    value = key.value
    if value is None or key.integer is not None or reals.im(value) or key.decimal is not None:
        return []
    whole = reals.nint(reals.re(value))
    return [str(int(whole))] if abs(value - whole) < reals.mpf(10) ** -30 and 0 < abs(whole) < 10**12 else []


@_form("a function of its variable")
def _(key: Key) -> list[str]:
    letters = set(re.findall(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", key.text)))
    return [f"f(x) = {key.text}", f"f(x)={key.text}"] if key.symbolic and letters == {"x"} and len(key.text) > 1 else []


@_form("equation turned round")
def _(key: Key) -> list[str]:
    sides = key.text.split("=")
    if len(sides) != 2 or key.listed or re.search(r"[<>,]|\\[lg]e|\\text|\\pm|\\approx|\\in(?!f)", key.text):
        return []
    return [f"{sides[1].strip()} = {sides[0].strip()}", f"{sides[0].strip()}={sides[1].strip()}"]


@_form("choice letter")
def _(key: Key) -> list[str]:
    if key.choice is None:
        return []
    letter = key.choice
    return [
        f"({letter})",
        f"{letter}.",
        rf"\text{{{letter}}}",
        rf"\textbf{{({letter})}}",
        rf"\mathrm{{{letter}}}",
        rf"\text{{({letter})}}",
    ]


@_form("matrix brackets")
def _(key: Key) -> list[str]:
    match = re.fullmatch(r"\\begin\{([pb])matrix\}(.*)\\end\{\1matrix\}", key.text, re.DOTALL)
    if match is None or r"\begin" in match[2]:
        return []
    columns = "c" * (match[2].split(r"\\")[0].count("&") + 1)
    return [
        rf"\begin{{bmatrix}}{match[2]}\end{{bmatrix}}",
        rf"\begin{{pmatrix}} {match[2]} \end{{pmatrix}}",
        rf"\left(\begin{{array}}{{{columns}}}{match[2]}\end{{array}}\right)",
        rf"\left[\begin{{matrix}}{match[2]}\end{{matrix}}\right]",
    ]


@_form("base of a number")
def _(key: Key) -> list[str]:
    match = re.fullmatch(r"([0-9A-F]*\d[0-9A-F]*)_\{?(\d+)\}?", key.text)
    if match is None or int(match[2]) not in _NUMBER_WORDS:
        return []
    return [
        f"{match[1]}_{{{match[2]}}}",
        rf"{match[1]}_{{\text{{{_NUMBER_WORDS[int(match[2])]}}}}}",
        f"({match[1]})_{{{match[2]}}}",
    ]


@_form("repeating decimal")
def _(key: Key) -> list[str]:
    if key.fraction is None or key.fraction[2] not in (3, 9, 11, 33, 99):
        return []
    sign, top, bottom = key.fraction
    whole, rest = divmod(top, bottom)
    if rest * 99 % bottom or not rest:
        return []
    cycle = f"{rest * 99 // bottom:02d}"
    cycle = cycle[0] if cycle[0] == cycle[1] else cycle
    answers = [rf"{sign}{whole}.\overline{{{cycle}}}", f"{sign}{whole}.({cycle})"]
    return (
        [*answers, rf"{sign}{whole}.\bar{{{cycle}}}", rf"{sign}{whole}.\dot{{{cycle}}}"] if len(cycle) == 1 else answers
    )


@_form("choose")
def _(key: Key) -> list[str]:
    binomial = re.compile(r"\\[dt]?binom\{([^{}]+)\}\{([^{}]+)\}")
    if not binomial.search(key.text):
        return []
    return [binomial.sub(r"{\1 \\choose \2}", key.text), re.sub(r"\\[dt]?binom", r"\\dbinom", key.text)]


@_form("floor")
def _(key: Key) -> list[str]:
    text = plain_brackets(key.text)
    if text.count(r"\lfloor") != 1 or "[" in text:
        return []
    return [text.replace(r"\lfloor", r"\left\lfloor ").replace(r"\rfloor", r"\right\rfloor "), _bracketed_floor(text)]


def _bracketed_floor(text: str) -> str:
    return re.sub(r"\\lfloor\s*", "[", re.sub(r"\s*\\rfloor", "]", text))


@_form("another letter with a quantifier")
def _(key: Key) -> list[str]:
    match = re.fullmatch(r"(.*[^A-Za-z])([kn])([^A-Za-z].*)?,?\s*\2\s*\\in\s*\\mathbb\{?Z\}?", key.text)
    if match is None or key.listed or r"\text" in key.text:
        return []
    other = "n" if match[2] == "k" else "k"
    if re.search(rf"(?<![A-Za-z\\]){other}(?![A-Za-z])", key.text):
        return []
    return [re.sub(rf"(?<![A-Za-z\\]){match[2]}(?![A-Za-z])", other, key.text)]


@_form("unit of the key")
def _(key: Key) -> list[str]:
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*\\(?:text|mathrm|mbox)\{[ ~]*([a-z]{2,})\s*\}", key.text)
    if match is None or key.info.get("unit"):
        return []
    number, unit = match.groups()
    return [
        number,
        rf"{number}\text{{ {unit}}}",
        rf"{number}\,\mathrm{{{unit}}}",
        f"{number} {unit}",
        rf"\text{{{number} {unit}}}",
    ]


@_form("complex numbers")
def _(key: Key) -> list[str]:
    match = re.fullmatch(r"(-?\d+)\s*([-+])\s*(\d*)i", key.text)
    if match is None:
        return []
    real, sign, imaginary = match.groups()
    first = f"{'-' if sign == '-' else ''}{imaginary}i"
    turned = f"{first} - {real[1:]}" if real.startswith("-") else f"{first} + {real}"
    return [turned, rf"{real} {sign} {imaginary}\text{{i}}", rf"{real}{sign}{imaginary}\mathrm{{i}}"]


@_form("braces of indices")
def _(key: Key) -> list[str]:
    return _outside_text(key, r"_([A-Za-z0-9])", r"_{\1}") + _outside_text(key, r"\^([A-Z])", r"^{\1}")
