r"""Answers in words: ``all real numbers`` is the real line, ``no solution`` is the empty set.

A phrase is known as a whole or not at all, so that a word more (``not all real numbers``) makes it another answer.
"""

from __future__ import annotations

import re

MAX_PHRASE_CHARS = 120

_MEANINGS: dict[str, str] = {}
for _meaning, _phrases in {
    r"\mathbb{R}": "all real numbers;all reals;all real values;any real number;every real number;real numbers;"
    "the real numbers;the reals;set of all real numbers;set of real numbers;all real x;all real values of x;"
    "all values of x;any real value;all the real numbers;real line",
    r"\emptyset": "no solution;no solutions;no real solution;no real solutions;no solution exists;no solutions exist;"
    "there is no solution;there are no solutions;there is no real solution;there are no real solutions;"
    "empty set;null set;has no solution;has no solutions;no real roots;no roots;no such x exists;no such number exists;"
    "no such numbers exist;no such numbers;no such number;no such integers exist;no such integer exists;none exist;"
    "none exists;none;there are none;there is none;no values;no value;no such values;no such value;no such x;"
    "equation has no solution;equation has no solutions;equation has no real solutions;system has no solution;"
    "system has no solutions;no possible values;no such pairs exist;no such pair exists;no such functions exist;"
    "no such function exists;no such functions;no such function",
    r"\infty": "infinitely many;infinitely many solutions;infinite solutions;infinite number of solutions;"
    "infinite number;there are infinitely many;there are infinitely many solutions;infinite;infinity;"
    "has infinitely many solutions;unlimited number;infinite many;infinitely many ways;positive infinity",
    r"-\infty": "negative infinity;minus infinity",
    r"\text{does not exist}": "does not exist;do not exist;doesn't exist;doesnt exist;dne;limit does not exist;"
    "it does not exist;limit doesn't exist;non-existent;nonexistent;d.n.e;integral does not exist;no limit",
    r"\text{undefined}": "undefined;not defined;is undefined;is not defined;it is undefined;not well-defined",
    r"\text{impossible}": "impossible;not possible;it is impossible;it is not possible;cannot be done",
    r"\text{diverges}": "diverges;divergent;is divergent;it diverges;series diverges;integral diverges;"
    "series is divergent;integral is divergent;diverge;the limit diverges;sequence diverges",
    r"\text{converges}": "converges;convergent;is convergent;it converges;series converges;integral converges;"
    "series is convergent;integral is convergent;converge;sequence converges",
    r"\text{all integers}": "all integers;any integer;every integer;integers;set of all integers;set of integers;"
    "all integer values",
    r"\mathbb{Q}": "all rational numbers;all rationals;rational numbers;set of rational numbers;"
    "set of all rational numbers",
    r"\mathbb{C}": "all complex numbers;complex numbers;set of all complex numbers;set of complex numbers;"
    "any complex number",
    r"\text{all positive integers}": "all positive integers;positive integers;any positive integer;"
    "set of positive integers;set of all positive integers;every positive integer;all positive integer values",
    r"(0,\infty)": "all positive real numbers;all positive reals;positive real numbers;positive reals;"
    "any positive real number;set of positive real numbers;set of all positive real numbers",
    r"[0,\infty)": "all nonnegative real numbers;all non-negative real numbers;nonnegative reals;non-negative reals;"
    "nonnegative real numbers;non-negative real numbers;all nonnegative reals;all non-negative reals",
    r"(-\infty,0)": "all negative real numbers;negative real numbers;all negative reals;negative reals",
}.items():
    for _phrase in _phrases.split(";"):
        _MEANINGS[_phrase] = _meaning
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
for _number, _word in enumerate(_NUMBERS.split()):
    _MEANINGS[_word] = str(_number)

_SYMBOLS = {
    r"\mathbb{R}^+": r"(0,\infty)", r"\mathbb{R}^{+}": r"(0,\infty)", r"\mathbb{R}_+": r"(0,\infty)",
    r"\mathbb{R}_{+}": r"(0,\infty)", r"\mathbb{R}_{>0}": r"(0,\infty)", r"\mathbb{R}_{\ge0}": r"[0,\infty)",
    r"\mathbb{R}^{>0}": r"(0,\infty)", r"\mathbb{R}^-": r"(-\infty,0)", r"\mathbb{R}^{-}": r"(-\infty,0)",
    r"\mathbb{R}_{<0}": r"(-\infty,0)", r"\mathbb{Z}": r"\text{all integers}",
    r"\mathbb{Z}^+": r"\text{all positive integers}", r"\mathbb{Z}^{+}": r"\text{all positive integers}",
    r"\mathbb{Z}_{>0}": r"\text{all positive integers}", r"\mathbb{Z}_+": r"\text{all positive integers}",
    r"\mathbb{Z}_{+}": r"\text{all positive integers}", r"\mathbb{Z}_{\ge1}": r"\text{all positive integers}",
}  # fmt: skip
_WORDS = re.compile(r"(?:\\text\{)?\s?([A-Za-z][A-Za-z' .,-]{1,118})\}?")
_EXCEPT = re.compile(
    r"(?:\\text\{)?\s?(?:all|any) (?:real numbers|reals|real x|real numbers x|real values|real values of x),? ?"
    r"(?:except|except for|other than|excluding)(?: x ?=)?\s?\}?\s?(?:x ?= ?)?(?P<points>[-\\\d{].{0,60})"
)
_POINTS = re.compile(r"(?:[^A-Za-z\\<>=]|\\(?:frac|sqrt|pi)(?![A-Za-z])|\\text\{ ?(?:and|or) ?\}|and ?|or ?)+")


def phrase_meaning(text: str) -> str | None:
    r"""What a normalized text in words means, in LaTeX: ``\emptyset`` for ``\text{no solution}``; `None` if unknown."""
    if len(text) > MAX_PHRASE_CHARS:
        return None
    if text.startswith(r"\mathbb"):
        return _SYMBOLS.get(text)
    words = _WORDS.fullmatch(text)
    if words is None:
        excepted = _EXCEPT.fullmatch(text) if "l" in text else None
        if excepted is None or _POINTS.fullmatch(excepted["points"]) is None:
            return None
        return rf"\mathbb{{R}}\setminus\{{{excepted['points']}\}}"
    phrase = " ".join(words.group(1).lower().split()).strip(" .,")
    phrase = re.sub(r"^(?:an?|the) ", "", phrase)
    return _MEANINGS.get(phrase)
