r"""Units at the end of an answer: which words are units, and when two of them measure the same thing.

An answer may leave out a unit that the ground truth has, or add one, since the question states it. Where both have
a unit, the units have to agree, after conversion where both measure the same quantity (``60`` minutes are ``1`` hour).
"""

from __future__ import annotations

import re
from fractions import Fraction

# unit: (quantity, how many of the quantity's first unit), for plain units; powers are worked out from these
_PLAIN: dict[str, tuple[str, Fraction]] = {}
for _quantity, _units in {
    "length": {
        "m meter meters metre metres": "1",
        "cm centimeter centimeters centimetre centimetres": "0.01",
        "mm millimeter millimeters millimetre millimetres": "0.001",
        "km kilometer kilometers kilometre kilometres": "1000",
        "in inch inches": "0.0254",
        "ft foot feet": "0.3048",
        "yd yard yards": "0.9144",
        "mi mile miles": "1609.344",
    },
    "time": {
        "s sec secs second seconds": "1",
        "min mins minute minutes": "60",
        "h hr hrs hour hours": "3600",
        "day days": "86400",
        "week weeks": "604800",
    },
    "months": {"month months": "1", "yr yrs year years": "12"},
    "mass": {
        "g gram grams gm": "1",
        "kg kilogram kilograms": "1000",
        "mg milligram milligrams": "0.001",
        "lb lbs": "453.59237",
    },
    "money": {"dollar dollars usd": "1", "cent cents": "0.01"},
    "angle": {"degree degrees deg": "1"},
    "volume": {"l liter liters litre litres": "1", "ml milliliter milliliters millilitre millilitres": "0.001"},
    "speed": {"mph": "1609.344", "kmh kph kmph": "1000"},
}.items():
    for _names, _factor in _units.items():
        for _name in _names.split():
            _PLAIN[_name] = (_quantity, Fraction(_factor))

_NOT_UNIT_WORDS = (
    "and or not if is are was the mod modulo base than then but to too with where when for of at most least "
    "all any no none never otherwise true false wrong incorrect correct maybe about approximately around "
    "roughly nearly almost half third quarter plus minus times over divided squared cubed factorial hundred "
    "thousand million billion trillion dozen percent more less greater fewer pi infinity infinite undefined "
    "sin cos tan cot sec csc log ln exp sqrt gcd lcm det "
)
_NOT_UNITS = frozenset(_NOT_UNIT_WORDS.split())
_SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1_000,
    "million": 1_000_000,
    "billion": 1_000_000_000,
    "trillion": 1_000_000_000_000,
}

_TEXT_UNIT = r"\\text\{[^{}]*\}|\\degree"
_BARE_UNIT = r"(?<![A-Za-z\\])(?:(?:m|cm|km|ft|mi)/(?:s|h)(?![a-z])|[A-Za-z]{2,}(?: [A-Za-z]+)*)(?:/[A-Za-z]+)?"
_TRAILING = re.compile(
    rf"(?P<value>.*?[\d}})\]!%e]|.*\\pi)\s*"
    rf"(?P<unit>(?:{_TEXT_UNIT}|{_BARE_UNIT})\s*\.?(?:\^\s*\{{?[23]\}}?)?(?:/(?:\\text\{{[^{{}}]*\}}|[a-z]+))?)",
    re.DOTALL,
)
_LEADING_MONEY = re.compile(r"(-?)\\text\{(dollars|euros|pounds)\}\s*(.*)", re.DOTALL)
_WORD = re.compile(r"[a-z]+")


def canonical_unit(text: str) -> str:
    r"""One spelling for a unit: ``\text{ inches}^2``, ``$in^2$`` and ``square inches`` become ``in^2``.

    Returns:
        `str`: ``""`` for an empty text, ``"degree"`` for every sign of degrees, ``"%"`` for percent. A word that is
        in no table is kept as a unit, in lower case and without the plural.
    """
    plain = re.sub(r"\\text|\\mathrm|\\mbox|[{}$\\~]", "", text.replace(r"\degree", "degree")).strip().lower()
    plain = re.sub(r"\^?\s*circ\b", "degree", plain).replace(" per ", "/").replace(".", "")
    if plain in ("%", "percent"):
        return "%"
    power = ""
    for words, exponent in (("square", "^2"), ("sq", "^2"), ("cubic", "^3"), ("cu", "^3")):
        if plain.startswith(words) and (plain[len(words) :].startswith(" ") or plain[len(words) :] in _PLAIN):
            plain, power = plain[len(words) :].strip(), exponent
    exponent_given = re.fullmatch(r"(.*?)\s*\^\s*([23])", plain)
    if exponent_given is not None:
        plain, power = exponent_given.group(1), "^" + exponent_given.group(2)
    plain = "/".join(_singular(part.strip()) for part in plain.split("/"))
    return plain + power if plain else ""


def _singular(word: str) -> str:
    if word in _PLAIN:
        quantity, factor = _PLAIN[word]
        return next(name for name, measure in _PLAIN.items() if measure == (quantity, factor))
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def unit_factor(unit: str, other: str) -> Fraction | None:
    """How many of ``other`` one ``unit`` is; ``None`` where they do not measure the same quantity."""
    if unit == other:
        return Fraction(1)
    left, right = _measure(unit), _measure(other)
    if left is None or right is None or left[0] != right[0]:
        return None
    return left[1] / right[1]


def _measure(unit: str) -> tuple[str, Fraction] | None:
    top, _, bottom = unit.partition("/")
    if bottom:
        upper, lower = _measure(top), _measure(bottom)
        if upper is None or lower is None:
            return None
        if (upper[0], lower[0]) == ("length", "time"):
            return "speed", upper[1] / lower[1] * 3600
        return f"{upper[0]}/{lower[0]}", upper[1] / lower[1]
    name, _, power = unit.partition("^")
    if name not in _PLAIN:
        return None
    quantity, factor = _PLAIN[name]
    return (quantity, factor) if not power else (f"{quantity}^{power}", factor ** int(power))


def split_unit(text: str) -> tuple[str, str]:
    r"""Split ``864\text{inches}^2`` into ``("864", "in^2")``; the unit is ``""`` where there is none.

    A word in ``\text{}`` counts as a unit unless it belongs to the sentence (``not``, ``mod``, ``million``); a bare
    word only where it is a known unit or at least four letters long, so a product of variables is not taken for one.
    """
    money = _LEADING_MONEY.fullmatch(text)
    if money is not None and money.group(3):
        return money.group(1) + money.group(3), canonical_unit(money.group(2))
    match = _TRAILING.fullmatch(text)
    if match is None:
        return text, ""
    value, raw = match["value"], match["unit"]
    unit = canonical_unit(raw)
    words = _WORD.findall(unit)
    if not words or len(words) > 3 or any(word in _NOT_UNITS for word in words):
        return text, ""
    if "\\text" in raw and not all(word in _PLAIN or len(word) >= 3 for word in words):
        return text, ""  # \text{x} is a letter
    if "\\" not in raw:
        if value[-1:] in "e" or not all(word in _PLAIN or len(word) >= 4 for word in words):
            return text, ""
        if not value[-1].isdigit() and not text[len(value) :].startswith(" ") and words[0] not in _PLAIN:
            return text, ""
    return value.rstrip(), unit


def split_scale(text: str) -> tuple[str, int]:
    r"""Split ``3.5\text{million}`` into ``("3.5", 1000000)``; the scale is 1 where there is none."""
    match = re.fullmatch(
        r"(.*\d)\s*(?:\\text\{\s*)?(" + "|".join(_SCALES) + r")s?\s*\}?", text, re.IGNORECASE | re.DOTALL
    )
    if match is None:
        return text, 1
    return match.group(1), _SCALES[match.group(2).lower()]
