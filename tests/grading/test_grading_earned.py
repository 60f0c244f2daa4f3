r"""A symbolic "equal" has to be earned, and what has a name or an order keeps it.

Each test says what goes wrong in general, and generates more of it; ``earned_cases.jsonl`` has cases judged by hand.
A wrong answer may come out as ``wrong`` or as ``error``; it must never come out as ``correct``.

Not exercised: which words after a number are harmless (units, counted nouns), and where the answer stands.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest
import sympy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.grading.verdicts import accepted
from verl_ispo.grading import compute_score
from verl_ispo.grading.ground_truth_reading import read_ground_truth
from verl_ispo.grading.named_quantities import names_a_quantity
from verl_ispo.grading.parsing_loss import loses_something

CASES = [
    json.loads(line) for line in (Path(__file__).parent / "earned_cases.jsonl").read_text(encoding="utf-8").splitlines()
]
some = settings(max_examples=examples(40))
numbers = st.integers(min_value=2, max_value=99)
letters = st.sampled_from("abcknpqtxy")


def case_id(case: dict) -> str:
    return ascii(f"{case['kind']}: {case['answer'][:40]} / {case['gold'][:40]}")


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_verdict(case):
    assert accepted(case["answer"], case["gold"], **case.get("extra_info", {})) == (case["verdict"] == "correct")


@st.composite
def expressions(draw):
    """An expression with at least one letter and one number, as a list of factors and their separators."""
    letter, number, power = draw(letters), draw(numbers), draw(numbers)
    shape = draw(st.sampled_from(["{n}{x}", "{x}^{{{p}}}+{n}", r"\frac{{{x}}}{{{n}}}", "{n}-{x}", r"{n}\sin({x})"]))
    return shape.format(n=number, x=letter, p=power), letter, str(number)


@some
@given(expressions(), st.sampled_from(["prime", "double prime", "base", "index", "accent", "floor", "word", "unknown"]))
def test_a_mark_that_is_added_is_another_expression(expression, mark):
    """A lenient parser drops a mark that it does not know, and two different expressions become the same."""
    text, letter, number = expression
    marked = {
        "prime": text.replace(letter, letter + "'") if r"\sin" not in text else f"{text}'",
        "double prime": text.replace(f"{letter}", f"{letter}''") if r"\sin" not in text else f"{text}''",
        "base": text.replace(number, f"{number}_{{7}}", 1),
        "index": text.replace(number, f"({number})_1", 1),
        "accent": text.replace(letter, rf"\hat{{{letter}}}")
        if "frac" not in text and "sin" not in text
        else f"{text}^*",
        "floor": rf"\left[{text}\right]",
        "word": rf"\text{{never }}({text})",
        "unknown": rf"\star ({text})" if letter == "x" else rf"({text})\dagger",
    }[mark]
    assume(marked != text)
    assert not accepted(marked, text)
    assert not accepted(text, marked)
    assert accepted(text, text)


@some
@given(
    st.sampled_from(["0", "5", r"\frac{1}{2}"]),
    letters,
    st.sampled_from(["zero", "power", "base", "cancel", "difference"]),
)
def test_letters_that_do_not_count_are_not_ignored(number, letter, way):
    """A value that does not depend on a letter in it hides whatever the letter stands for."""
    hidden = {
        "zero": f"{number}+0{letter}",
        "power": rf"{number}\cdot {letter}^0",
        "base": rf"{number}\cdot 1^{letter}",
        "cancel": rf"{number}\cdot\frac{{{letter}}}{{{letter}}}",
        "difference": f"{number}+{letter}-{letter}",
    }[way]
    assert not accepted(hidden, number)


def test_the_test_of_loss_counts_tokens():
    x, y, n = sympy.symbols("x y n")
    assert not loses_something(r"\frac{n}{2}+x", n / 2 + x, lambda text: None)
    assert loses_something(r"\frac{n}{2}+x", n / 2, lambda text: None)
    assert loses_something(r"\frac{n}{2}+x+x", n / 2 + x, lambda text: None)
    assert loses_something("5_8", sympy.Integer(5), lambda text: None)
    assert loses_something(r"\frac{dy}{dx}", sympy.Derivative(y, x), lambda text: None)
    assert loses_something("x=1", sympy.Eq(x, 1), lambda text: None)
    assert not loses_something(r"\frac{4}{6}x", sympy.Rational(2, 3) * x, lambda text: None)


@settings(max_examples=examples(150))
@given(st.lists(st.integers(0, 3), min_size=2, max_size=5), st.lists(st.integers(0, 3), min_size=2, max_size=5))
def test_a_list_counts_its_repeats_and_a_set_does_not(left, right):
    """A list is more than the set of its values: 2, 2, 3 is not 2, 3, 3."""
    answer, gold = (",".join(map(str, values)) for values in (left, right))
    assert accepted(answer, gold) == (Counter(left) == Counter(right))
    assert accepted(rf"\{{{answer}\}}", rf"\{{{gold}\}}") == (set(left) == set(right))


@settings(max_examples=examples(150))
@given(st.permutations("xyabk"), st.integers(2, 4), st.data())
def test_named_values_go_by_name_or_in_order(names, count, data):
    """Values with names are no bag: 2, 3 is not x = 3, y = 2."""
    names = names[:count]
    values = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    given_values = data.draw(st.one_of(st.permutations(values), st.just(values)))
    order = data.draw(st.permutations(range(count)))
    key = ",".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
    named = ",".join(f"{names[index]}={given_values[index]}" for index in order)
    bare = ",".join(map(str, given_values))
    same = list(given_values) == list(values)
    assert accepted(named, key) == same
    assert accepted(bare, key) == same
    tuple_key = f"({','.join(names)})=({','.join(map(str, values))})"
    assert accepted(named, tuple_key) == same
    assert accepted(f"({bare})", tuple_key) == same
    system = r"\\".join(f"{name}={value}" for name, value in zip(names, given_values, strict=True))
    assert accepted(rf"\begin{{cases}}{system}\end{{cases}}", key) == same


@some
@given(st.lists(st.sampled_from("ABMN"), min_size=2, max_size=3), st.data())
def test_capital_letters_side_by_side_do_not_commute(word, data):
    """A product of matrices, points or operators is not the product in another order; one of numbers is."""
    other = data.draw(st.permutations(word))
    assert accepted("".join(other), "".join(word)) == (list(other) == word)
    assert accepted("".join(other).lower(), "".join(word).lower())
    angles = [rf"\angle {''.join(points)}" for points in (word, other)]
    if len(set(word)) == 3:
        assert accepted(*angles) == (list(other) in (word, word[::-1]))


@some
@given(st.sampled_from("AB"), st.sampled_from("MN"), numbers)
def test_a_conjugate_is_not_what_is_conjugated(outer, inner, factor):
    assert not accepted(rf"{outer}{inner}{outer}^{{-1}}", inner)
    assert not accepted(rf"{factor}{inner}{outer}", rf"{factor}{outer}{inner}")
    assert accepted(rf"{outer}{inner}\cdot {factor}", rf"{factor}{outer}{inner}")
    assert not accepted(rf"v\times {outer.lower()}", rf"{outer.lower()}\times v")


@settings(max_examples=examples(100))
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20))
def test_a_false_equation_is_no_answer(left, right, value):
    assert accepted(f"{left}+{right}={value}", str(value)) == (left + right == value)
    assert accepted(f"{left}={value}", str(value)) == (left == value)
    assert accepted(f"x={left}={value}", str(value)) == (left == value)


@settings(max_examples=examples(60))
@given(
    st.integers(2, 9), st.integers(2, 9), st.integers(1, 50), st.sampled_from(["{a}x+{b}y", "x^{a}+y^{b}", "{a}x-{b}z"])
)
def test_an_equation_in_coordinates_is_not_its_right_side(first, second, value, shape):
    """The right side alone answers only where the left side names one quantity."""
    left = shape.format(a=first, b=second)
    assert not accepted(str(value), f"{left}={value}")
    assert not accepted(f"{first}a={value}", str(value))


QUANTITIES = [
    "f({n})",
    "|w|",
    "|AB|",
    r"\sin A",
    r"P(A)",
    r"\angle ABC",
    "AB+CD",
    "a+b",
    "S_{n}",
    r"\frac{{S_1}}{{S_2}}",
    r"y_{{\min}}",
]


@settings(max_examples=examples(60))
@given(st.sampled_from(QUANTITIES), st.integers(2, 9), st.integers(1, 50))
def test_a_named_quantity_is_its_value(quantity, index, value):
    name = quantity.format(n=index)
    assert accepted(str(value), f"{name}={value}")
    assert accepted(f"{name}={value}", str(value))
    assert not accepted(str(value + 1), f"{name}={value}")


@pytest.mark.parametrize(
    ("left", "right", "is_key", "named"),
    [
        ("f(2)", "4", True, True),
        ("f(x+1)", "x^2", True, False),
        ("f^{-1}(x)", "x-1", True, True),
        ("x+y", "5", True, False),
        ("x+y", "5", False, True),
        ("4x+3y", "6", False, False),
        ("x_1x_2", "5", True, True),
        ("|x|", "5", True, False),
        ("|w|", "5", True, True),
        ("2a", "5", True, False),
        ("a^2", "5", True, False),
        ("AB^2", "5", True, True),
        (r"\frac{dy}{dx}", "2x", True, True),
        (r"\frac{dy}{dx}", "y", True, False),
        (r"\int_{0}^{1} x^{2}dx", r"\frac{1}{3}", True, True),
        ("a:b", "2:3", True, True),
        (r"\tan x", "2", True, False),
        (r"\tan\theta", "2", True, True),
        ("n(n+1)", "20", False, False),
    ],
)
def test_what_names_a_quantity(left, right, is_key, named):
    assert names_a_quantity(left, right, is_key=is_key) is named


@some
@given(numbers, st.sampled_from(["e", "10", "2"]))
def test_a_bare_log_is_what_the_data_set_means(number, base):
    written = rf"\ln {number}" if base == "e" else rf"\log_{{{base}}} {number}"
    other = rf"\log_{{7}} {number}"
    for gold, answer in ((rf"\log {number}", written), (written, rf"\log {number}"), (rf"\log {number}",) * 2):
        assert accepted(answer, gold, log_base=base)
    assert not accepted(other, rf"\log {number}", log_base=base)


def test_the_base_of_a_bare_log_is_e_or_a_number():
    assert read_ground_truth("1").log_base == "e"
    assert read_ground_truth("1", {"log_base": None}).log_base == "e"
    assert read_ground_truth("1", {"log_base": float("nan")}).log_base == "e", "a merged file, where a set has none"
    assert read_ground_truth("1", {"log_base": 10}).log_base == "10"
    for value in ("1", "0", "-2", "x", "10.5", "[10]"):
        with pytest.raises(ValueError, match="log_base"):
            read_ground_truth("1", {"log_base": value})


@some
@given(
    st.sampled_from(["not", "never", "no", "except", "anything but", "all but", "minus", "twice", "less than"]),
    st.sampled_from(["0", "5", r"\frac{1}{2}", "x", r"\sqrt{2}"]),
)
def test_words_are_not_letters_to_multiply(word, value):
    """A word in a formula is read as a product of its letters, and zero times anything is zero."""
    assert not accepted(rf"\text{{{word} }}{value}", value)
    assert not accepted(rf"{value}\text{{ is {word}}}", value)
    assert not accepted(rf"{value}\text{{ is not the answer}}", value)


@some
@given(st.sampled_from("ABCDE"), st.sampled_from("ABCDE"), st.sampled_from(["{}({})", "({})({})", "({})+{}", "{}.{}."]))
def test_what_follows_a_choice_letter_counts(letter, other, shape):
    """After a choice letter comes the text of that choice, not a second letter and not the rest of a sum."""
    assert not accepted(shape.format(letter, other), letter)
    assert accepted(f"({letter}) 27", letter)


@some
@given(st.integers(1, 9), st.integers(2, 9), letters, st.data())
def test_a_mixed_number_ends_with_its_number(whole, bottom, letter, data):
    top = data.draw(st.integers(1, bottom - 1))
    mixed = rf"{whole}\frac{{{top}}}{{{bottom}}}{letter}"
    assert accepted(mixed, rf"\frac{{{whole * bottom + top}}}{{{bottom}}}{letter}")
    assert not accepted(mixed, rf"\frac{{{top}}}{{{bottom}}}{letter}")
    assert accepted(mixed, rf"\frac{{{top}{letter}}}{{{bottom}}}+{whole}{letter}")


@some
@given(st.sampled_from(["n", "x"]), st.integers(2, 5), st.integers(0, 3))
def test_square_brackets_may_be_the_floor(letter, bottom, shift):
    inside = rf"\frac{{{letter}+{shift}}}{{{bottom}}}"
    assert accepted(rf"\lfloor {inside}\rfloor", rf"\left[{inside}\right]")
    assert accepted(rf"\left[{inside}\right]", rf"\lfloor {inside}\rfloor")
    assert not accepted(inside, rf"\left[{inside}\right]")
    assert not accepted(rf"\left[{inside}\right]+1", rf"{inside}+1")
    grouped = rf"\frac{{1}}{{2}}\left[{shift}+\left(\frac{{1}}{{3}}\right)^{letter}\right]"
    assert accepted(grouped.replace(r"\left[", "(").replace(r"\right]", ")"), grouped)


@pytest.mark.parametrize(
    "piece",
    [
        "f(",
        "|w|",
        "x_1",
        r"\angle A",
        "'",
        "[",
        "(A)",
        "A.",
        r"x=1\\",
        "a,",
        r"\frac{d",
        "AB",
        r"\times a",
        "1:",
        "_{",
        "5=",
        r"\max",
    ],
)
def test_long_answers_of_one_piece_take_no_time(piece):
    """Every reader is bounded in length, or goes through the text once."""
    started = time.process_time()
    for text in (piece * (3_900 // len(piece)), piece * (290 // len(piece))):
        for answer, gold in ((f"{text}=5", "5"), (text + "+1", "a+b=5"), ("5", f"{text}=5")):
            compute_score("test", rf"\boxed{{{answer}}}", gold, timeout_s=0.1)
    assert time.process_time() - started < 2.0
