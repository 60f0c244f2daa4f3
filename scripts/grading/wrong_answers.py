r"""Answers that are made to be wrong, with the key that must not accept them; from a seed.

Each kind is something that a parser loses or a comparison overlooks: a name, a prime, a base, a word, an order, a
repetition. A policy finds such a hole within a few hundred steps, so an accept among these is a fault.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from grading_workload import plain_answer
from key_shapes import Key
from rewritten_forms import WRONG_FORMS

Pair = tuple[str, str]
"""(answer, ground truth); the answer is wrong."""

_KINDS: dict[str, Callable[[random.Random], Pair]] = {}
_LETTERS = "abcdmnpqstuvwxyz"
_CAPITALS = "ABCDEFGHMNPQRSTUVW"


def _kind(function: Callable[[random.Random], Pair]) -> Callable[[random.Random], Pair]:
    _KINDS[function.__name__.lstrip("_").replace("_", " ")] = function
    return function


def wrong_answer(rng: random.Random) -> tuple[str, str, str]:
    """``(kind, answer, ground truth)``: one of the kinds below, or a plain key in one of the wrong forms."""
    if rng.random() < 0.6:
        kind = rng.choice(list(_KINDS))
        answer, gold = _KINDS[kind](rng)
        return kind, answer, gold
    for _ in range(50):
        key = Key(plain_answer(rng))
        kind = rng.choice(list(WRONG_FORMS))
        answers = list(WRONG_FORMS[kind](key))
        if answers:
            return f"rewritten: {kind}", rng.choice(answers), key.gold
    gold = str(rng.randint(-99, 99))
    return "off by one", str(int(gold) + 1), gold


def _letters(rng: random.Random, count: int, of: str = _LETTERS) -> list[str]:
    return rng.sample(of, count)


def _numbers(rng: random.Random, count: int, low: int = -20, high: int = 20) -> list[int]:
    """Different whole numbers."""
    return rng.sample(range(low, high + 1), count)


def _expression(rng: random.Random, letter: str) -> str:
    """An expression in one letter that does not vanish, and is no whole number for all whole ones."""
    a, b = rng.randint(2, 9), rng.randint(1, 9)
    return rng.choice(
        (
            rf"\frac{{{letter}}}{{{a}}}",
            rf"\frac{{{letter}+{b}}}{{{a}}}",
            rf"\sqrt{{{letter}}}+{b}",
            f"{letter}^{a}+{b}",
            f"{a}{letter}+{b}",
            rf"\frac{{{a}{letter}^2}}{{11}}",
        )
    )


def _value(rng: random.Random) -> str:
    """A number that is no whole number."""
    a, b = rng.randint(1, 40), rng.choice((3, 7, 9, 11))
    top = a if a % b else a + 1
    return rng.choice(
        (rf"\frac{{{top}}}{{{b}}}", rf"{a}\sqrt{{{b}}}" if b != 9 else rf"{a}\sqrt{{5}}", rf"\frac{{{a}\pi}}{{{b}}}")
    )


@_kind
def _named_values(rng: random.Random) -> Pair:
    count = rng.choice((2, 2, 3))
    names, values = _letters(rng, count), [str(value) for value in _numbers(rng, count)]
    turned = [*values[1:], values[0]]
    gold = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
    if rng.random() < 0.3:
        gold = f"({', '.join(names)}) = ({', '.join(values)})"
    pairs = ", ".join(f"{name}={value}" for name, value in zip(names, turned, strict=True))
    other_names = ", ".join(f"{name}={value}" for name, value in zip(_letters(rng, count, "KLJ"), values, strict=True))
    return rng.choice(
        (", ".join(turned), pairs, other_names, rf"\{{{', '.join(turned)}\}}", values[-1], f"({', '.join(turned)})")
    ), gold


@_kind
def _value_of_a_function(rng: random.Random) -> Pair:
    name, (at, value, other) = rng.choice("fghpq"), _numbers(rng, 3)
    gold = f"{name}({at})={value}"
    return rng.choice(
        (str(at), str(other), f"{name}({other})={value}", f"{name}({value})={at}", f"{name}'({at})={value}")
    ), gold


@_kind
def _primes(rng: random.Random) -> Pair:
    letter, expression = rng.choice("fgh"), _expression(rng, "x")
    inside = rng.choice(("0", "x", "a", "1", r"\pi"))
    few, more = rng.choice((("", "'"), ("'", "''"), ("", "''")))
    pairs = [
        (f"{letter}{few}({inside})", f"{letter}{more}({inside})"),
        (rf"{rng.randint(2, 9)}\pi {letter}{few}(0)", None),
        (f"x{few}", f"x{more}"),
        (expression.replace("x", f"x{few}"), expression.replace("x", f"x{more}")),
        (f"{letter}{few}(x)={letter}(x)+1", f"{letter}{more}(x)={letter}(x)+1"),
    ]
    first, second = rng.choice(pairs)
    if second is None:
        second = first.replace(f"{letter}{few}(", f"{letter}{more}(")
    return (first, second) if rng.random() < 0.5 else (second, first)


@_kind
def _subscripts(rng: random.Random) -> Pair:
    letter, (one, two) = rng.choice("amnpqruvwxyz"), _numbers(rng, 2, 0, 9)
    return rng.choice(
        (
            (f"{letter}_{one}", f"{letter}_{two}"),
            (f"{letter}_{one}+1", f"{letter}+1"),
            (rf"\aleph_{one}", rf"\aleph_{two}"),
        )
    )


@_kind
def _bases(rng: random.Random) -> Pair:
    number = int("".join(rng.choice("1234567") for _ in range(rng.randint(2, 4))))
    base = rng.choice((8, 9, 11, 16))
    bare = f"{number}_{base}" if base < 10 else f"{number}_{{{base}}}"
    written = rng.choice((bare, f"{number}_{{{base}}}", rf"{number}_{{\text{{{base}}}}}"))
    add = rng.randint(1, 9)
    return rng.choice(
        (
            (written, str(number)),
            (f"-{written}", str(-number)),
            (f"{written}+{add}", str(number + add)),
            (rf"{add}\cdot {written}", str(add * number)),
            (str(number), written),
            (f"{number}_{{{base + 1}}}", written),
            (f"{number + 1}_{{{base}}}", f"{number}_{{{base}}}"),
        )
    )


@_kind
def _behind_a_choice_letter(rng: random.Random) -> Pair:
    letter, other = _letters(rng, 2, "ABCDE")
    gold = rng.choice(
        (letter, f"({letter})", rf"\text{{({letter})}}", rf"\textbf{{({letter})}}", rf"\text{{{letter}}}")
    )
    return (
        rng.choice(
            (
                f"({letter})({other})",
                f"({letter})+1",
                rf"\text{{({letter})}}\text{{({other})}}",
                f"{letter}.{other}.",
                f"{letter}{other}",
                f"{letter}, {other}",
                rf"{letter}\text{{ or }}{other}",
                f"{letter}/{other}",
                rf"\text{{not }}{letter}",
                rf"\text{{{letter} and {other}}}",
                f"{letter}'",
                f"{letter}^2",
                f"-{letter}",
                f"({letter})({other})({letter})",
                other,
                rf"\neg {letter}",
                f"{letter}_1",
            )
        ),
        gold,
    )


@_kind
def _order_of_factors(rng: random.Random) -> Pair:
    a, b, c = _letters(rng, 3, _CAPITALS)
    vectors = [rf"\vec{{{letter.lower()}}}" for letter in (a, b)]
    return rng.choice(
        (
            *((b + a, a + b), (b + c + a, a + b + c), (rf"{a}{b}{a}^{{-1}}", b), (rf"{a}^{{-1}}{b}{a}", b)),
            *((rf"{b}{a}^{{-1}}", rf"{a}^{{-1}}{b}"), (rf"{b}^T{a}", rf"{a}{b}^T"), (f"{b}{a}+I", f"{a}{b}+I")),
            *(
                (rf"\angle {b}{a}{c}", rf"\angle {a}{b}{c}"),
                (r"\times ".join(vectors), r"\times ".join(reversed(vectors))),
            ),
        )
    )


@_kind
def _words(rng: random.Random) -> Pair:
    gold = rng.choice((str(rng.randint(0, 999)), _value(rng), _expression(rng, "x"), "0"))
    template = rng.choice(
        (
            r"\text{not }KEY",
            r"KEY\text{ is not the answer}",
            r"KEY\text{ excluded}",
            r"\text{anything but }KEY",
            r"\text{I do not think it is }KEY",
            r"KEY\text{ is wrong}",
            "not KEY",
            r"\mathrm{not}\ KEY",
            r"\text{never }KEY",
            r"\text{undefined, not }KEY",
            r"KEY\text{ cannot be}",
            r"\text{except }KEY",
            r"\neg KEY",
            r"KEY\text{ or more}",
            r"\text{no solution}, KEY",
            r"\text{twice }KEY",
            r"\text{minus }KEY",
            r"\text{half of }KEY",
        )
    )
    if gold == "0" and ("twice" in template or "minus" in template or "half" in template):
        template = r"\text{not }KEY"
    return template.replace("KEY", gold), gold


@_kind
def _derivatives(rng: random.Random) -> Pair:
    one, two = _letters(rng, 2)
    return rng.choice(
        (
            rf"\frac{{d{one}}}{{d{two}}}",
            rf"\frac{{d}}{{d{two}}}{one}",
            rf"\frac{{\partial {one}}}{{\partial {two}}}",
            rf"\frac{{d^2{one}}}{{d{two}^2}}",
        )
    ), "0"


@_kind
def _floors(rng: random.Random) -> Pair:
    inside = _expression(rng, "n") if rng.random() < 0.5 else _value(rng)
    rounded = rng.choice(
        (
            rf"\lfloor {inside}\rfloor",
            rf"\left\lfloor {inside}\right\rfloor",
            f"[{inside}]",
            rf"\left[{inside}\right]",
            rf"\lceil {inside}\rceil",
        )
    )
    if "n" in inside and "frac" not in inside and "sqrt" not in inside:
        inside, rounded = r"\frac{n}{2}", r"\lfloor\frac{n}{2}\rfloor"
    return (rounded, inside) if rng.random() < 0.5 else (inside, rounded)


@_kind
def _repeats(rng: random.Random) -> Pair:
    values = [str(value) for value in _numbers(rng, rng.randint(2, 4))]
    once = [*values, rng.choice(values)]
    rng.shuffle(once)
    other = [*values, next(value for value in values if once.count(value) == 1)]
    rng.shuffle(other)
    form = rng.choice(("{}", "{}", "({})"))
    gold = rng.choice((once, values))
    return form.format(", ".join(other)), form.format(", ".join(gold))


@_kind
def _false_equations(rng: random.Random) -> Pair:
    value, other = _numbers(rng, 2, 0, 99)
    return rng.choice(
        (
            f"{other}={value}",
            f"{value}={other}",
            f"{other}+1={value}" if other + 1 != value else f"{other}={value}",
            rf"\frac{{1}}{{2}}=\frac{{1}}{{3}}={value}",
            f"{other}={other + 1}={value}",
        )
    ), str(value)


@_kind
def _sets_in_sets(rng: random.Random) -> Pair:
    values = ", ".join(map(str, _numbers(rng, 2)))
    return rng.choice(
        (
            (r"\{\emptyset\}", r"\emptyset"),
            (r"\{\{\}\}", r"\emptyset"),
            (r"\{\emptyset,\{\emptyset\}\}", r"\{\emptyset\}"),
            (rf"\{{\{{{values}\}}\}}", rf"\{{{values}\}}"),
            (r"\{\varnothing\}", r"\{\}"),
            (r"\{0\}", r"\emptyset"),
            (rf"\{{\emptyset, {values}\}}", rf"\{{{values}\}}"),
            (r"\emptyset", r"\{\emptyset\}"),
        )
    )


@_kind
def _mixed_numbers(rng: random.Random) -> Pair:
    whole, bottom = rng.randint(1, 9), rng.randint(2, 9)
    top, letter = rng.randint(1, bottom - 1), rng.choice("xyn")
    fraction = rf"\frac{{{top}}}{{{bottom}}}"
    return rng.choice(
        (
            (f"{whole}{fraction}{letter}", fraction + letter),
            (f"{whole}{fraction}", fraction),
            (f"{whole}{fraction}{letter}", f"{whole}{fraction}"),
            (f"{whole}{fraction}", f"{whole}{fraction}{letter}"),
            (f"{whole} {top}/{bottom}", f"{top}/{bottom}"),
            (f"{whole + 1}{fraction}", f"{whole}{fraction}"),
        )
    )


@_kind
def _logs(rng: random.Random) -> Pair:
    number = rng.choice((2, 3, 5, 7, 11))
    base, other = rng.sample((2, 3, 5, 6, 7, 10, 12), 2)
    if number in (base, other):
        number = 13
    return rng.choice(
        (
            (rf"\log_{{{base}}}{number}", rf"\log_{{{other}}}{number}"),
            (rf"\log_{{{base}}} {number}", rf"\ln {number}"),
            (rf"\ln {number}", rf"\log_{{{base}}}{number}"),
            (rf"\log_{{{base}}}({number})+1", rf"\log_{{{other}}}({number})+1"),
            (rf"\log_{{{number}}}{base}", rf"\log_{{{base}}}{number}"),
            (rf"\ln({number}x)", rf"\log_{{{base}}}({number}x)"),
        )
    )


@_kind
def _approximations(rng: random.Random) -> Pair:
    value = rng.randint(2, 40)
    gold = rng.choice((rf"\frac{{{value}}}{{7}}", rf"{value}\sqrt{{3}}", rf"\frac{{{value}\pi}}{{5}}"))
    off = f"{rng.uniform(200, 300):.3f}"
    return rng.choice(
        (
            rf"{gold} \approx {off}",
            rf"{gold} (\approx {off})",
            rf"{gold} \simeq {off}",
            rf"{off} \approx {gold}",
            rf"{gold} = {off}",
            rf"{gold} \text{{ (approximately }} {off})",
            rf"\approx {off}",
        )
    ), gold


@_kind
def _units(rng: random.Random) -> Pair:
    number = rng.randint(2, 999)
    unit, other = rng.sample(("cm", "kg", "hours", "liters", "dollars"), 2)
    return rng.choice(
        (
            (rf"{number}\text{{ {unit}}}\text{{ {other}}}", rf"{number}\text{{ {unit}}}"),
            (rf"{number}\text{{ {other}}}", rf"{number}\text{{ {unit}}}"),
            (rf"{number}\text{{ {unit}}}\text{{ {other}}}", str(number)),
            (rf"{number}\text{{ minutes}}", rf"{number}\text{{ hours}}"),
            (rf"{number}\text{{ cm}}^2", rf"{number}\text{{ cm}}"),
            (rf"{number}\text{{ m}}", rf"{number}\text{{ km}}"),
            (rf"{number}\text{{ {unit}}} = {number}\text{{ {other}}}", str(number)),
        )
    )


@_kind
def _hedged(rng: random.Random) -> Pair:
    gold = rng.choice((str(rng.randint(0, 99)), _value(rng), _expression(rng, "x")))
    other = rng.choice((str(rng.randint(100, 999)), rf"{rng.randint(100, 999)}\sqrt{{2}}"))
    first, second = (gold, other) if rng.random() < 0.5 else (other, gold)
    return rng.choice(
        (
            rf"{first} \text{{ or }} {second}",
            f"{first} or {second}",
            f"{first}, {second}",
            f"{first}; {second}",
            rf"\{{{first}, {second}\}}",
            rf"{first}\text{{, maybe }}{second}",
            rf"{first} \lor {second}",
            rf"{first} / \text{{ }} {second}",
            rf"{first} \text{{ and }} {second}",
            rf"\text{{either }}{first}\text{{ or }}{second}",
            rf"{first} \quad {second}",
            rf"{first} \\ {second}",
        )
    ), gold


@_kind
def _right_side_of_an_equation(rng: random.Random) -> Pair:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    c = rng.randint(10, 40)
    return rng.choice(
        (
            (str(c), f"{a}x+{b}y={c}"),
            (str(c), f"x^2+y^2={c}"),
            (f"{a}x+{b}y={c + 1}", f"{a}x+{b}y={c}"),
            (f"{a}x-{b}y={c}", f"{a}x+{b}y={c}"),
            (f"{a + 1}x+{b}y={c}", f"{a}x+{b}y={c}"),
            ("0", f"{a}x+{b}y-{c}=0"),
            (f"x={c}", f"y={c}"),
            (f"x<{c}", f"x={c}"),
            (f"{a}x+{b}y<{c}", f"{a}x+{b}y={c}"),
        )
    )


@_kind
def _large_numbers(rng: random.Random) -> Pair:
    base, power = rng.randint(2, 12), rng.randint(60, 2_000)
    gold = rng.choice(
        (
            f"{base}^{{{power}}}",
            f"{rng.randint(30, 300)}!",
            rf"{base}^{{{power}}}\cdot 7",
            rf"e^{{{rng.randint(90, 400)}}}",
        )
    )
    return rng.choice(
        (f"{gold}+1", f"{gold}-x", f"{gold}+x", f"1+{gold}", f"{gold}+7n", rf"{gold}+\sqrt{{2}}", f"{gold} or {gold}+7")
    ), gold


@_kind
def _small_numbers(rng: random.Random) -> Pair:
    power = rng.randint(30, 300)
    gold = rng.choice((f"2^{{-{power}}}", rf"\frac{{1}}{{10^{{{power}}}}}", rf"\frac{{1}}{{{power}!}}"))
    return rng.choice(("0", f"2({gold})", f"-{gold}", rf"2^{{-{power + 1}}}", rf"\frac{{3}}{{10^{{{power}}}}}")), gold


@_kind
def _intervals(rng: random.Random) -> Pair:
    low, high = sorted(_numbers(rng, 2))
    left, right = rng.choice(("(]", "[)", "[]"))
    others = [f"{a}{low}, {high}{b}" for a in "([" for b in ")]" if (a, b) != (left, right)]
    relation = {"(": "<", "[": r"\le", ")": "<", "]": r"\le"}
    wrong_inequality = rf"{low} {relation['[' if left == '(' else '(']} x {relation[right]} {high}"
    more = (
        rf"x\le {high}",
        rf"x\ge {low}",
        rf"(-\infty,{low})\cup({high},\infty)",
        f"{low}, {high}",
        f"{left}{high}, {low}{right}",
        f"{left}{low}, {high + 1}{right}",
    )
    return rng.choice((*others, wrong_inequality, *more)), f"{left}{low}, {high}{right}"


@_kind
def _ratios(rng: random.Random) -> Pair:
    one, two = rng.sample((1, 2, 3, 5, 7, 11, 13), 2)
    gold = rng.choice((f"{one}:{two}", rf"V_1:V_2={one}:{two}"))
    return rng.choice((f"{two}:{one}", f"{one}:{two}:1", f"{one + two}:{two}", f"{one}:{two + 1}")), gold


@_kind
def _families(rng: random.Random) -> Pair:
    a = rng.randint(2, 9)
    return rng.choice(
        (
            (r"\pi n", rf"{a}\pi k, k\in\mathbb{{Z}}"),
            (rf"{a + 1}\pi n, n\in\mathbb{{Z}}", rf"{a}k\pi, k\in\mathbb{{Z}}"),
            (rf"f(x)={a}x\text{{ for no }}x", f"f(x)={a}x"),
            (f"f(x)={a}x+1", f"f(x)={a}x"),
            (rf"\mathbb{{Z}}_{{{a + 1}}}", rf"\mathbb{{Z}}_{{{a}}}"),
            (r"\mathbb{Q}", r"\mathbb{R}"),
            (rf"S_{{{a + 1}}}", rf"S_{a}"),
            (rf"p\equiv {a} \pmod{{12}}", rf"p\equiv {a} \pmod{{13}}"),
            (rf"A^{{{a}}}", "A^T"),
            (r"X^TX", r"XX^T"),
        )
    )


@_kind
def _yes_and_no(rng: random.Random) -> Pair:
    word, other = rng.choice((("Yes", "No"), ("No", "Yes"), ("True", "False"), ("False", "True")))
    return rng.choice(
        (
            other,
            rf"\text{{{other}}}",
            rf"\text{{not {word}}}",
            f"{word} or {other}",
            rf"\text{{{word}, {other}}}",
            f"{word}, {other}",
            rf"\text{{{word} and {other}}}",
        )
    ), rng.choice((word, rf"\text{{{word}}}"))
