r"""Units at the end of an answer: which words are units, and when two of them measure the same thing.

An answer may leave out a unit that the ground truth has, or add one, since the question states it. Where both have
a unit, the units have to agree, after conversion where both measure the same quantity (``60`` minutes are ``1`` hour).
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise

from .degrees import degrees_are_inside

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
    # negation, exclusion, doubt
    "not no none never neither nor cannot without except excepted excluding exclude excluded exclusive unless "
    "otherwise instead rejected reject removed remove discarded crossed missing false wrong incorrect invalid "
    "impossible correct true valid maybe perhaps possibly probably about approximately approx around roughly nearly "
    "almost circa estimated likely unknown undefined unclear only nothing any all each every some many few "
    "several both "
    # comparison, direction, sign
    "least most more less greater fewer than larger smaller above below under over up down off short exceeding "
    "or and but plus minus additive reciprocal "
    # words of a sentence
    "if is are was were be been has have had does do did will would can may the this that these those it its of to "
    "with where when for at by from as on into then so thus hence therefore because since while after before between "
    "too again also exactly just precisely respectively respective namely say called mod modulo "
    "base repeating recurring remainder rounded transposed choose excess "
    # numbers and operations
    "half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths seventh eighth eighths ninth "
    "tenth tenths hundredth hundredths thousandth thousandths zero one two three four five six seven eight nine ten "
    "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty "
    "seventy eighty ninety ones tens hundred hundreds thousand thousands million millions billion billions trillion "
    "trillions dozen dozens score scores percent percents percentage percentages pct permille mille double doubled "
    "triple tripled twice thrice halved times multiplied divided over squared cubed sqrt power "
    "powers factorial log logs logarithm pi infinity infinite infinitely infty sin cos tan cot sec csc ln exp gcd lcm "
    "det raised added subtracted increased decreased fold modulus absolute"
)
_NOT_UNITS = frozenset(_NOT_UNIT_WORDS.split())
_NOT_LAST_WORDS = (
    "prime positive negative complex imaginary real right minimum maximum max opposite inverse conjugate odd even "
    "root answer solution square cubic cube value result"
)
_NOT_LAST = frozenset(_NOT_LAST_WORDS.split())
"""Adjectives, and nouns in the singular, that say something on the number where nothing follows: ``5 negative``."""
_SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1_000,
    "million": 1_000_000,
    "billion": 1_000_000_000,
    "trillion": 1_000_000_000_000,
}

_TEXT_UNIT = r"\\text\{[^{}]*\}|\\degree"
_BARE_UNIT = (
    r"(?<![A-Za-z\\])(?:(?:m|cm|km|ft|mi)/(?:s|h)(?![a-z])|[A-Za-z]{2,24}(?: [A-Za-z]{1,24}){0,3})(?:/[A-Za-z]{1,24})?"
)
_TRAILING = re.compile(
    rf"(?P<value>.*?[\d}})\]!%e]|.*\\pi)\s*"
    rf"(?P<unit>(?:{_TEXT_UNIT}|{_BARE_UNIT})\s*\.?(?:\^\s*\{{?[23]\}}?)?(?:/(?:\\text\{{[^{{}}]*\}}|[a-z]+))?)",
    re.DOTALL,
)
_BRACKETED = re.compile(
    r"(?P<value>.*[\d}\])!%])\s?[(\[]\s?"
    r"(?P<unit>(?:\\text\{[A-Za-z ./]{1,40}\}|[a-z]{2,12}(?:[ /][a-z]{2,12}){0,2})(?:\^\{?[23]\}?)?)\s?[)\]]",
    re.DOTALL,
)
_COMPOUND_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?(?:\\text\{([a-z]{1,12})(?: and|,)?\}|([a-z]{1,12})) ?")
_COMPOUND = re.compile(rf"(?:{_COMPOUND_PART.pattern}){{2,4}}")
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
    if unit == other or _same_noun(unit, other):
        return Fraction(1)
    left, right = _measure(unit), _measure(other)
    if left is None or right is None or left[0] != right[0]:
        return None
    return left[1] / right[1]


def _same_noun(left: str, right: str) -> bool:
    """``different way`` and ``way``: one has adjectives that the other leaves out. A nautical mile is no mile."""
    shorter, longer = sorted((left, right), key=len)
    return longer.endswith(f" {shorter}") and shorter.isalpha() and shorter not in _PLAIN


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

    What is counted may be any plain words: ``42 ways``, ``12\text{ red balls}``. They are no unit where one of them
    belongs to the sentence or changes the value (``not``, ``mod``, ``million``), and a bare one only where it reads
    as a word, so that a product of variables is not taken for one.
    """
    money = _LEADING_MONEY.fullmatch(text)
    if money is not None and money.group(3):
        return money.group(1) + money.group(3), canonical_unit(money.group(2))
    if (compound := _compound(text)) is not None:
        return compound
    bracketed = _BRACKETED.fullmatch(text)
    match = _TRAILING.fullmatch(text if bracketed is None else bracketed["value"] + bracketed["unit"])
    if match is None:
        return text, ""
    value, raw = match["value"], match["unit"]
    if raw.startswith(r"\degree") and degrees_are_inside(value):
        return text, ""
    unit = canonical_unit(raw)
    words, written = _WORD.findall(unit), _WORD.findall(raw.replace(r"\text", "").lower())
    if not words or len(words) > 3 or written[-1] in _NOT_LAST or not _NOT_UNITS.isdisjoint([*words, *written]):
        return text, ""
    known = all(word in _PLAIN or word in ("unit", "square", "cubic") for word in words)
    if "\\" in raw:
        # \text{x} is a letter, and \text{xyz} a product; boy is in the order of the alphabet, and boys is not
        is_product = all(any(_is_product(word) for word in form) for form in (words, written))
        return (value.rstrip(), unit) if known or not is_product else (text, "")
    if value.endswith("e") or (bracketed is not None and not known):
        return text, ""
    if len(raw) > 1 and re.fullmatch(r"[A-Z]+[^A-Za-z]*", raw) and not re.search(r"\d ", text[: len(value) + 1]):
        return text, ""  # HR is a product of capitals
    if not known:
        bare = re.split(r"[^A-Za-z]+", raw)
        spaced = text[len(value) :].startswith(" ") or (len(bare[0]) >= 4 and bare[0].endswith("s"))
        if not value[-1].isdigit() or not spaced or not all(_is_noun(word) for word in bare if word):
            return text, ""
    return value.rstrip(), unit


def _compound(text: str) -> tuple[str, str] | None:
    r"""``5\text{ feet }3\text{ inches}`` as a number of the smallest unit, ``("63", "in")``."""
    if _COMPOUND.fullmatch(text) is None:
        return None
    parts = [(Fraction(number), _singular(word or bare)) for number, word, bare in _COMPOUND_PART.findall(text)]
    units = [_PLAIN.get(unit) for _, unit in parts]
    if None in units or len({unit[0] for unit in units if unit}) != 1:
        return None
    factors = [unit[1] for unit in units if unit]
    if any(left <= right for left, right in pairwise(factors)):
        return None
    total = sum(number * factor for (number, _), factor in zip(parts, factors, strict=True)) / factors[-1]
    return (str(total), parts[-1][1])


def _is_product(word: str) -> bool:
    """Whether a word is likelier to be letters, such as ``xyz`` or ``abcd``, which are mostly in order."""
    if word in _PLAIN:
        return False
    return len(word) < 3 or (len(word) < 5 and all(left < right for left, right in pairwise(word)))


def _is_noun(word: str) -> bool:
    """Whether a bare word reads as one, and not as a product."""
    if word.lower() in _PLAIN:
        return True
    if not (word.islower() or word.istitle()) or _is_product(word.lower()):
        return False
    return re.search("[aeiouy]", word.lower()) is not None and re.search("[^aeiou]", word.lower()) is not None


def split_scale(text: str) -> tuple[str, int]:
    r"""Split ``3.5\text{million}`` into ``("3.5", 1000000)``; the scale is 1 where there is none."""
    match = re.fullmatch(
        r"(.*\d)\s*(?:\\text\{\s*)?(" + "|".join(_SCALES) + r")s?\s*\}?", text, re.IGNORECASE | re.DOTALL
    )
    if match is None:
        return text, 1
    return match.group(1), _SCALES[match.group(2).lower()]
