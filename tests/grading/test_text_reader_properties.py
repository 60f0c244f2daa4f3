r"""Properties of what reads a text's dress, words, units, decimals and spelling, with wrong neighbours.

Each test's docstring says what goes wrong in general; ``test_reader_properties.py`` has the readers of structures.

Not exercised: words that are a unit in one problem and change the number in another.
"""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.grading.verdicts import accepted, exact
from verl_ispo.grading.answer_check import AnswerTooLarge, check_answer
from verl_ispo.grading.approximations import approximates
from verl_ispo.grading.canonical_spelling import canonical_spelling, same_spelling
from verl_ispo.grading.expression_guard import GoldNotUnderstood, RefusedExpression
from verl_ispo.grading.ground_truth_reading import read_ground_truth
from verl_ispo.grading.letter_values import differ_by_value
from verl_ispo.grading.normalization import normalize_answer
from verl_ispo.grading.units import split_unit

numbers = st.integers(min_value=1, max_value=9_999)


DRESS = (
    r"\textcolor{red}{%s}",
    r"{\color{blue} %s}",
    r"\color{green}{%s}",
    r"\colorbox{yellow}{$%s$}",
    r"\Large %s",
    r"{\huge %s}",
    r"\underline{%s}",
    r"\therefore %s",
    r"\Rightarrow x=%s",
    r"%s \checkmark",
    r"%s \quad \blacksquare",
    r"%s ✓",
    r"\text{The answer is }%s",
    r"So the final answer is %s",
    r"\fbox{%s}",
    r"\mathbf{%s}",
    r"%s\ \square",
    r"\text{Answer: }%s",
    r"\boldsymbol{%s}",
    r"$%s$ ■",
    r"\implies %s",
    r"\text{Therefore, }x = %s",
)


@given(st.integers(-999, 999), st.integers(-999, 999), st.sampled_from(DRESS), st.sampled_from(DRESS))
def test_dress_changes_nothing(number, other, outer, inner):
    """What an answer wears says nothing about its value."""
    dressed = outer % (inner % number) if outer.count("%s") == 1 and "$" not in outer + inner else inner % number
    assert exact(inner % number, str(number))
    assert exact(inner % rf"\frac{{{number}}}{{7}}", rf"\frac{{{number}}}{{7}}")
    if other != number:
        assert not exact(dressed, str(other))


@given(
    numbers,
    st.sampled_from(
        (
            "not",
            "not exactly",
            "at least",
            "about",
            "approximately",
            "almost",
            "less than",
            "more than",
            "never",
            "anything but",
            "the square of",
            "minus",
        )
    ),
)
def test_words_in_front_that_count_are_kept(number, word):
    """A word that is not known to be a filler makes another answer."""
    for form in (r"\text{%s }%s", r"\text{The answer is %s }%s", r"The answer is %s %s", r"\text{%s %s}"):
        assert not accepted(form % (word, number), str(number))


@given(st.integers(1, 999), st.integers(2, 999), st.integers(1, 6), st.integers(-30, 30))
def test_an_approximation_has_to_be_one(top, bottom, places, error):
    """A decimal behind an exact value is that value, rounded or cut off, or the answer contradicts itself."""
    value = Fraction(top, bottom)
    scaled = round(value * 10**places) + error
    decimal = f"{scaled / 10**places:.{places}f}" if scaled >= 0 else None
    if decimal is None:
        return
    difference = value - Fraction(decimal)
    unit = Fraction(1, 10**places)
    expected = abs(difference) <= unit / 2 or 0 <= difference < unit
    assert approximates(decimal, rf"\frac{{{top}}}{{{bottom}}}") is expected
    key = rf"\frac{{{top}}}{{{bottom}}}"
    for form in (
        rf"{key} \approx {decimal}",
        rf"{key} (\approx {decimal})",
        rf"{key} \simeq {decimal}",
        f"{key} ≈ {decimal}",
    ):
        assert bool(exact(form, key)) is expected, form


NOUNS = (
    "ways",
    "rows",
    "boys",
    "men",
    "eggs",
    "red marbles",
    "integers",
    "children",
    "different colorings",
    "trees",
    "cm",
    "square units",
    "dollars",
    "cubic meters",
    "seats",
    "ordered pairs",
    "paths",
    "cats",
    "oxen",
)
NO_NOUNS = (
    "not",
    "excluded",
    "except",
    "or more",
    "hundred",
    "thousand",
    "million",
    "dozen",
    "half",
    "more",
    "less",
    "squared",
    "cubed",
    "times",
    "minus",
    "thirds",
    "factorial",
    "at least",
    "is wrong",
    "and",
    "or",
    "negative",
    "xyz",
    "ab",
    "percent of",
    "squared units not",
    "mod",
    "times ten",
    "plus one",
    "over two",
    "below zero",
    "wrong",
)
NOUN_FORMS = (
    r"{0} {1}",
    r"{0}\text{{ {1}}}",
    r"\text{{{0} {1}}}",
    r"{0}\ \mathrm{{{1}}}",
    r"{0}~\text{{{1}}}",
    r"x={0}\text{{ {1}}}",
)


@given(numbers, numbers, st.sampled_from(NOUNS), st.sampled_from(NOUN_FORMS))
def test_what_was_counted_may_be_said(number, other, noun, form):
    """Any plain words behind a number are what was counted; another number stays another number."""
    assert exact(form.format(number, noun), str(number))
    assert exact(str(number), rf"{number}\text{{ {noun}}}")
    if other != number:
        assert not exact(form.format(number, noun), str(other))


@given(numbers, st.sampled_from(NO_NOUNS), st.sampled_from(NOUN_FORMS))
def test_words_that_change_a_number_are_not_counted_things(number, word, form):
    """A word that negates or changes the number is never dropped."""
    assert split_unit(normalize_answer(form.format(number, word)))[1] == ""
    assert not exact(form.format(number, word), str(number))


@given(numbers, numbers)
def test_two_units_of_one_quantity_are_added(feet, inches):
    """Several units of one quantity are one quantity."""
    total = 12 * feet + inches
    for answer in (f"{feet} feet {inches} inches", rf"{feet}\text{{ ft }}{inches}\text{{ in}}"):
        assert exact(answer, rf"{total}\text{{ inches}}")
        assert not exact(answer, rf"{total + 1}\text{{ inches}}")
        assert not exact(answer, rf"{feet}\text{{ feet}}")


@given(
    st.integers(0, 99),
    st.text(alphabet="0123456789", max_size=4),
    st.text(alphabet="0123456789", min_size=1, max_size=4),
)
def test_a_repeating_decimal_is_a_fraction(whole, fixed, cycle):
    """A repeating decimal is the fraction that it is, and not the decimal that it begins with."""
    value = whole + Fraction(int(fixed or 0), 10 ** len(fixed))
    value += Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(fixed))
    key = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    forms = [f"{whole}.{fixed}({cycle})", rf"{whole}.{fixed}\overline{{{cycle}}}", rf"{whole}.{fixed}\bar{{{cycle}}}"]
    if len(cycle) == 1:
        forms += [rf"{whole}.{fixed}\bar{cycle}", rf"{whole}.{fixed}\dot{cycle}", rf"{whole}.{fixed}\overline {cycle}"]
    for form in forms:
        assert exact(form, key), form
        assert not exact(form, rf"\frac{{{value.numerator + 1}}}{{{value.denominator}}}")
    if int(cycle) and len(f"{whole}{fixed}{cycle}") < 6:
        assert not exact(f"{whole}.{fixed}{cycle}", key)


@given(st.integers(2, 9), st.integers(2, 99), st.integers(2, 99))
def test_a_base_is_one_digit_unless_it_is_in_braces(base, argument, other):
    r"""``\log_24`` prints as the logarithm of 4 to the base 2."""
    key = rf"\log_{{{base}}}{argument}"
    for form in (
        rf"\log_{base}{argument}",
        rf"\log_{base} {argument}",
        rf"\log_{{{base}}} {argument}",
        rf"\log _{base}{argument}",
    ):
        assert same_spelling(normalize_answer(form), normalize_answer(key)), form
    if other != argument:
        assert not exact(rf"\log_{base}{other}", key)


SPELLED = (
    r"\mathbb{Z}_{8}",
    "A^T",
    r"\aleph_0",
    r"p \equiv 1 \pmod{4}",
    r"2X^\top X W",
    r"\max\{1, |z|\}",
    r"G \oplus H",
    r"M_{2}(\mathbb{C})",
    r"\mathbb{R}^n",
    r"S_3 \times \mathbb{Z}_2",
    r"(\ker g)^*",
    r"x_1^2",
    r"f''(x)",
)


def respelled(text: str, random) -> str:
    """The same symbols in other LaTeX."""
    for old, new in (
        ("_0", "_{0}"),
        ("_3", "_{ 3 }"),
        ("_{8}", "_8"),
        ("_{2}", " _2"),
        ("^T", r"^{\top}"),
        ("^n", "^{n}"),
        (" ", ""),
        (r"^\top ", "^{T}"),
        (r"\mathbb{Z}", r"\mathbb Z"),
        (r"\pmod{4}", r"\pmod 4"),
        (r"\max\{1, |z|\}", r"\max(1,|z|)"),
        ("x_1^2", "x^2_1"),
        ("''", r"^{\prime\prime}"),
        (r"\oplus ", r"\oplus{}"),
        ("^*", r"^{\ast}"),
    ):
        if random.random() < 0.5 and not (old == " " and "\\" in text):
            text = text.replace(old, new)
    return text


@given(st.sampled_from(SPELLED), st.sampled_from(SPELLED), st.randoms(use_true_random=False))
def test_texts_that_print_alike_are_the_same_answer(key, other, random):
    """What a parser cannot read may be compared by its symbols; any other symbol makes another answer."""
    assert exact(respelled(key, random), key)
    if other != key:
        assert not exact(respelled(other, random), key)


@given(
    st.text(alphabet=r"\{}_^ABZabx12348 ()|,+-'", max_size=24), st.text(alphabet="_^{}ABx12", min_size=1, max_size=3)
)
def test_a_canonical_spelling_keeps_every_letter_and_digit(text, change):
    """Nothing that prints is lost: a spelling has the letters and digits of its text, in their order."""
    spelled = canonical_spelling(text)
    if spelled is None or "\\" in text or "'" in text:
        return
    scripts = any(mark in text for mark in "_^")
    kept = "".join(char for token in spelled for char in token if char.isalnum())
    written = "".join(char for char in text if char.isalnum())
    assert (sorted(kept) if scripts else kept) == (sorted(written) if scripts else written)
    letters_before = sorted(filter(str.isalnum, text))
    if sorted(filter(str.isalnum, change + text)) != letters_before:
        assert not same_spelling(change + text, text)


POLYNOMIALS = st.lists(st.integers(-9, 9), min_size=1, max_size=4)


@given(POLYNOMIALS, POLYNOMIALS)
def test_expressions_are_told_apart_only_where_they_differ(left, right):
    """Two expressions differ where their values at a point do; equal ones are never told apart."""

    def written(coefficients: list[int], power: str) -> str:
        terms = [f"{value:+d}{power % exponent}" for exponent, value in enumerate(coefficients)]
        return "".join(terms).lstrip("+")

    first, second = written(left, r"x^{%d}"), written(right, r"\cdot x^{%d}")
    padded = [[*side, *[0] * (4 - len(side))] for side in (left, right)]
    told_apart = differ_by_value(first, second)
    assert not (told_apart and padded[0] == padded[1])
    assert not differ_by_value(first, written(left, r"\cdot x^{%d}"))


UNITS_OF_HOSTILITY = (
    r"\text{",
    r"\text{5 apples}",
    "5 apples ",
    "(A)",
    "A,",
    r"30^\circ",
    r"\in ",
    r"\text{ for all }x",
    r",n\in\mathbb{Z}",
    "|x|<1,",
    "x>1 and ",
    r"\{x|",
    r"\max\{",
    r"\sin(x)",
    r"{1\over ",
    r"\choose ",
    r"\textcolor{red}{",
    r"\Large ",
    "the ",
    "so the answer is ",
    r"\approx 0.5",
    "(approximately ",
    "0.(3)",
    "5 feet 3 inches ",
    "1:2:",
    r"\log_24",
    r"\mathbb{Z}_",
    "^{",
    "'",
    r"\frac{",
    r"\sqrt[",
    r"\equiv (mod ",
    "mod ",
    r"\checkmark ",
    r"\overline ",
    "1/",
    "*",
    " ",
)


@pytest.mark.parametrize("unit", UNITS_OF_HOSTILITY)
def test_readers_are_quick_on_whatever_is_repeated(unit):
    """A reader's work is bounded: four thousand characters of anything take no time to speak of."""
    started = time.process_time()
    for ending in ("", "}", "x"):
        answer = normalize_answer((unit * 4_000)[:3_990] + ending)
        for gold in (r"\textbf{(B)}\ 4", r"2\pi n, n\in\mathbb{Z}", r"\mathbb{Z}_8", "[2,3]"):
            try:
                check_answer(read_ground_truth(gold), answer)
            except (AnswerTooLarge, RefusedExpression, GoldNotUnderstood):
                continue
    assert time.process_time() - started < 3
