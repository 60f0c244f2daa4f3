r"""Quantifiers behind an answer: ``2\pi n, n \in \mathbb{Z}`` and ``2k\pi \text{ for any integer } k`` are one family.

The name of a parameter says nothing once it is quantified, so the answer's is renamed to the key's. Over all integers,
``n`` may also stand for ``-n``, ``n+1`` and ``n-1``, since each of these runs through all integers, too. Behind a
function, ``\text{ for all } x`` says what the definition says anyway.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import permutations

MAX_PARAMETERS = 3
MAX_QUANTIFIED_CHARS = 600

_DOMAIN_NAMES = {
    r"\mathbb{Z}": "Z", "Z": "Z", r"\mathbb{R}": "R", "R": "R", r"\mathbb{N}": "N", "N": "N", r"\mathbb{Q}": "Q",
    r"\mathbb{C}": "C", r"\mathbb{Z}^+": "Z+", r"\mathbb{Z}^{+}": "Z+", r"\mathbb{Z}_{>0}": "Z+",
    r"\mathbb{Z}_{\ge0}": "N0", r"\mathbb{N}_0": "N0", r"\mathbb{R}^+": "R+",
    "integer": "Z", "real": "R", "real number": "R", "natural number": "N", "positive integer": "Z+",
    "nonnegative integer": "N0", "non-negative integer": "N0", "rational number": "Q", "complex number": "C",
    "positive real number": "R+", "real constant": "constant", "constant": "constant", "arbitrary constant": "constant",
    "arbitrary": "constant", "arbitrary real constant": "constant",
}  # fmt: skip
_STARTS = re.compile(r",|;|\\text\{|\\forall(?![A-Za-z])|\(| (?=where|for|with)|(?<=[\d})])(?=for |where )")
_LISTED_SETS = {
    r"0,\pm1,\pm2,": r"\mathbb{Z}", r"0,1,2,": r"\mathbb{Z}_{\ge0}", r"0,1,2,3,": r"\mathbb{Z}_{\ge0}",
    r"1,2,3,": r"\mathbb{Z}^+", "1,2,": r"\mathbb{Z}^+",
}  # fmt: skip
_LISTED = re.compile(
    r"(?P<name>[A-Za-z]) ?= ?(?P<values>" + "|".join(map(re.escape, _LISTED_SETS)) + r")(?:\\[lc]?dots|\.\.\.)"
)
_FAMILY = re.compile(
    r"\\\{(?P<body>[^{}|:]*(?:\{[^{}]*\}[^{}|:]*){0,12})[|:](?P<quantifier>[A-Za-z](?:,[A-Za-z]){0,2} ?\\in[^|:]*)\\\}"
)
_HINT = re.compile(r"\\in(?![A-Za-z])|\\forall|integer|number|constant|arbitrary|for all|for every|for any|for each")
_WORD = re.compile(
    r"\\text(?=\{)|(?P<set>\\mathbb\{[A-Z]\}(?:\^\{?\+\}?|_0|_\{>0\}|_\{\\ge0\})?)|(?P<word>\\[A-Za-z]+|[A-Za-z-]+)"
    r"|[{}(),;. ]"
)
_INTRODUCTIONS_WORDS = "where with for and all any every each some an a let being be is are values value of"
_INTRODUCTIONS = frozenset(_INTRODUCTIONS_WORDS.split()) | {r"\forall"}
_FOR_ALL_WORDS = "all any every each"
_FOR_ALL = frozenset(_FOR_ALL_WORDS.split()) | {r"\forall"}
_KINDS_WORDS = (
    "positive nonnegative non-negative natural real rational complex arbitrary integer integers number numbers "
    "constant constants reals"
)
_KINDS = frozenset(_KINDS_WORDS.split())
MAX_QUANTIFIER_CHARS = 80


@dataclass(frozen=True)
class Quantified:
    """A text in front of its quantifiers, and ``(name, domain)`` of each; the domain is ``""`` for a bare "for all"."""

    body: str
    parameters: tuple[tuple[str, str], ...]


def read_quantifiers(text: str) -> Quantified | None:
    """Split a normalized text from the quantifier behind it; `None` where there is none."""
    if len(text) > MAX_QUANTIFIED_CHARS or (_HINT.search(text) is None and "dots" not in text):
        return None
    text = _as_membership(text)
    for start in _STARTS.finditer(text, max(0, len(text) - MAX_QUANTIFIER_CHARS)):
        body = text[: start.start()]
        if body and _is_balanced(body) and (found := _parameters(text[start.start() :])) is not None:
            return Quantified(body.rstrip(" ,"), found)
    return None


def _as_membership(text: str) -> str:
    r"""``k = 0, \pm 1, \pm 2, \ldots`` as ``k \in \mathbb{Z}``, and ``\{n\pi : n \in \mathbb{Z}\}`` without braces."""
    builder = _FAMILY.fullmatch(text)
    if builder is not None:
        text = f"{builder['body']},{builder['quantifier']}"
    return _LISTED.sub(lambda listed: rf"{listed['name']}\in{_LISTED_SETS[listed['values']]}", text)


def _parameters(text: str) -> tuple[tuple[str, str], ...] | None:
    r"""The names and domains that ``\text{ where } m, n \in \mathbb{Z}`` introduces; `None` for any other text."""
    words, position = [], 0
    while position < len(text):
        token = _WORD.match(text, position)
        if token is None:
            return None
        if token["set"] or token["word"]:
            words.append(token["set"] or token["word"])
        position = token.end()
    introductions = []
    # "a" may be a name
    while words and words[0] in _INTRODUCTIONS and (words[0] != "a" or not _KINDS.isdisjoint(words[1:2])):
        introductions.append(words.pop(0))
    if r"\in" in words:
        cut = words.index(r"\in")
        names, domain = words[:cut], _DOMAIN_NAMES.get(words[-1]) if len(words) == cut + 2 else None
    else:
        kind = [word for word in words if word in _KINDS]
        names = [word for word in words if word not in _KINDS and word not in _INTRODUCTIONS]
        domain = _DOMAIN_NAMES.get(" ".join(kind).rstrip("s")) if kind else None
        if not kind and not _FOR_ALL.isdisjoint(introductions):
            domain = ""
    if domain is None or not 0 < len(names) <= MAX_PARAMETERS or len(set(names)) < len(names):
        return None
    if any(len(name) != 1 for name in names):
        return None
    return tuple((name, domain) for name in names)


def _is_balanced(text: str) -> bool:
    return all(text.count(left) == text.count(right) for left, right in ("{}", "()"))


def _letters(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]", re.sub(r"\\text\{[^{}]*\}|\\[A-Za-z]+", " ", text)))


def _renamed(text: str, names: dict[str, str]) -> str:
    return re.sub(
        r"(\\text\{[^{}]*\}|\\[A-Za-z]+)|([A-Za-z])",
        lambda match: match.group(1) or names.get(match.group(2), match.group(2)),
        text,
    )


def _without_needless(text: str) -> tuple[str, Quantified | None]:
    r"""``f(x)=2x \text{ for all } x`` without what the definition says anyway."""
    quantified = read_quantifiers(text)
    if quantified is None:
        return text, None
    defined = re.match(r"(?:[A-Za-z]|\\[a-z]+)(?:_(?:\w|\{[^{}]*\}))?\(([A-Za-z](?:,[A-Za-z])*)\)=", quantified.body)
    names = {name for name, _ in quantified.parameters}
    if {domain for _, domain in quantified.parameters} <= {"", "R"} and (
        (defined is not None and names <= set(defined.group(1).split(",")))
        or (re.match("y=", quantified.body) and names == {"x"})
    ):
        return quantified.body, None
    return text, None if any(domain == "" for _, domain in quantified.parameters) else quantified


def quantified_readings(gold: str, answer: str) -> list[tuple[str, str]] | None:
    """Pairs of texts without quantifiers, any equal one of which makes the texts equal.

    Returns:
        `list` or `None`: `None` where neither text has a quantifier; an empty list where the quantifiers contradict
        each other.
    """
    gold_text, gold_found = _without_needless(gold)
    answer_text, answer_found = _without_needless(answer)
    if gold_found is None and answer_found is None:
        return None if (gold_text, answer_text) == (gold, answer) else [(gold_text, answer_text)]
    if gold_found is None or answer_found is None:
        found = gold_found or answer_found
        assert found is not None
        if any(domain not in ("Z", "constant") for _, domain in found.parameters):
            return None
        names = {name for name, _ in found.parameters}
        other = answer_text if gold_found is not None else gold_text
        if not names <= _letters(other):
            return None
        return [(found.body, answer_text) if gold_found is not None else (gold_text, found.body)]
    if sorted(domain for _, domain in gold_found.parameters) != sorted(domain for _, domain in answer_found.parameters):
        return []
    return _renamings(gold_found, answer_found)


def _renamings(gold: Quantified, answer: Quantified) -> list[tuple[str, str]]:
    readings = []
    free = _letters(answer.body) - {name for name, _ in answer.parameters}
    for order in permutations(answer.parameters):
        if any(left[1] != right[1] for left, right in zip(gold.parameters, order, strict=True)):
            continue
        if free & {name for name, _ in gold.parameters}:
            continue  # the key's name means something else in the answer
        names = {old: new for (new, _), (old, _) in zip(gold.parameters, order, strict=True)}
        readings.append((gold.body, _renamed(answer.body, names)))
        if len(gold.parameters) == 1 and gold.parameters[0][1] == "Z":
            (new, _), (old, _) = gold.parameters[0], order[0]
            if f"_{old}" in answer.body:
                continue
            for shifted in (f"{{(-{new})}}", f"{{({new}+1)}}", f"{{({new}-1)}}"):
                readings.append((gold.body, _renamed(answer.body, {old: shifted})))
    return readings
