r"""Properties of the readers: more of every kind of ``reader_cases.jsonl`` than a file can hold, with wrong neighbours.

Each test's docstring says what goes wrong in general. A wrong neighbour is an answer that differs in what counts (the
number, the letter, a sign, a bound, a negation), written in the same way.

Not exercised: expressions that need the worker, other than the few of the case files.
"""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.grading.verdicts import accepted, exact
from verl_ispo.grading.choice_letters import compare_choices
from verl_ispo.grading.normalization import normalize_answer
from verl_ispo.grading.quantifiers import read_quantifiers

numbers = st.integers(min_value=1, max_value=9_999)
small = st.integers(min_value=1, max_value=12)
letters = st.sampled_from("ABCDE")


LETTER_FORMS = (
    "{0}",
    "({0})",
    "{0}.",
    r"\text{{{0}}}",
    r"\text{{({0})}}",
    r"\textbf{{({0})}}",
    r"\mathrm{{{0}}}",
    "**{0}**",
)
KEY_FORMS = (r"\textbf{{({0})}}\ {1}", r"\text{{({0}) }}{1}", r"\mathrm{{({0})}}~{1}", r"\textbf{{({0})}}\quad {1}")


@given(letters, letters, numbers, numbers, st.sampled_from(LETTER_FORMS), st.sampled_from(KEY_FORMS))
def test_a_choice_key_takes_its_letter_its_text_or_both(letter, other, number, wrong, form, key_form):
    """A key with the letter and the text of a choice is right by either; another letter or text is wrong."""
    key = key_form.format(letter, number)
    assert exact(form.format(letter), key)
    assert exact(str(number), key)
    assert exact(f"{letter}. {number}", key)
    if other != letter:
        assert not exact(form.format(other), key)
        assert not exact(f"{other}. {number}", key)
    if wrong != number:
        assert not exact(str(wrong), key)
        assert not exact(f"({letter}) {wrong}", key)


@given(
    letters,
    st.sampled_from(
        (
            "({0})({1})",
            "{0}, {1}",
            "{0}.{1}.",
            r"\text{{({0})}}\text{{({1})}}",
            "({0}) and ({1})",
            "({0})+1",
            r"({0})\text{{ is wrong}}",
            r"\text{{not }}{0}",
            "{0}'",
            "-{0}",
            "2{0}",
        )
    ),
    letters,
)
def test_what_follows_a_letter_makes_it_another_answer(letter, form, other):
    """An answer that begins with the right letter is not right for that."""
    if other != letter:
        assert not accepted(form.format(letter, other), rf"\text{{({letter})}}")


@given(st.sets(letters, min_size=2), st.sets(letters, min_size=1), st.randoms())
def test_several_letters_are_a_set(key, answer, random):
    """Several letters are chosen in any order; one more or one less is wrong."""
    order = random.sample(sorted(answer), len(answer))
    for written in (", ".join(order), "".join(f"({letter})" for letter in order), " and ".join(order)):
        assert compare_choices(", ".join(sorted(key)), normalize_answer(written)) is (key == answer)
    assert compare_choices("".join(sorted(key)), normalize_answer(", ".join(order))) in (None, key == answer)


@given(small, small, small, small, small)
def test_ratios_are_equal_exactly_when_they_are_proportional(left, right, factor, other_left, other_right):
    """A ratio in other terms, or as a fraction, is the same ratio."""
    key = f"{left}:{right}"
    assert exact(f"{left} : {right}", key)
    assert exact(rf"{left}\text{{ to }}{right}", key)
    same = Fraction(left, right) == Fraction(other_left, other_right)
    assert exact(f"{100 * other_left * factor}:{100 * other_right * factor}", f"{100 * left}:{100 * right}") is same
    assert exact(rf"\frac{{{other_left}}}{{{other_right}}}", f"{100 * left}:{100 * right}") is same
    if left != right:
        assert not exact(f"{right}:{left}", key)


DEGREES = (r"^\circ", r"^{\circ}", "°", r"\degree", r" \degree")


@given(
    st.integers(min_value=1, max_value=89),
    st.sampled_from(DEGREES),
    st.sampled_from(DEGREES),
    st.sampled_from(("sin", "cos", "tan")),
)
def test_degrees_within_a_function_are_spelled_in_many_ways(angle, mark, other_mark, function):
    """The sign of degrees is part of an argument, whatever stands around it; without it the argument is in radians."""
    key = rf"\{function}({angle}{mark})"
    assert exact(rf"\{function} {angle}{other_mark}", key)
    assert exact(rf"\{function}\left({angle}{other_mark}\right)", key)
    assert not exact(rf"\{function} {angle + 1}{other_mark}", key)
    assert not exact(rf"\{function} {angle}", key)


@settings(max_examples=examples(20))
@given(st.integers(min_value=1, max_value=89), st.sampled_from(DEGREES))
def test_a_sine_is_the_cosine_of_the_complement(angle, mark):
    """Values in degrees are worked out in degrees."""
    assert accepted(rf"\cos {90 - angle}{mark}", rf"\sin {angle}^\circ")
    assert not accepted(rf"\cos {91 - angle}{mark}", rf"\sin {angle}^\circ")


BOUNDS = st.tuples(st.integers(-20, 20), st.integers(1, 20), st.booleans(), st.booleans())


@given(BOUNDS, st.sampled_from("xtymk"), st.sampled_from((r"\text{ and }", ", ", r"\land ", " and ", r"\wedge ")))
def test_an_interval_is_written_by_its_conditions(bounds, name, word):
    """An interval is also two conditions at once, or the set of what meets them; open and closed ends differ."""
    low, length, low_closed, high_closed = bounds
    high = low + length
    left, right = (r"\le" if low_closed else "<"), (r"\le" if high_closed else "<")
    key = f"{'[' if low_closed else '('}{low}, {high}{']' if high_closed else ')'}"
    above = f"{low}{left} {name}"
    both = f"{name}{right} {high}{word}{above}"
    chain = f"{low}{left} {name}{right} {high}"
    for answer in (
        both,
        chain,
        rf"\{{{name}\mid {chain}\}}",
        rf"\{{{name}\in\mathbb{{R}}: {chain}\}}",
        rf"\{{{name}:{both}\}}",
    ):
        assert exact(answer, key), answer
    for wrong in (
        f"{name}{right} {high + 1}{word}{above}",
        f"{name}{right} {high}",
        rf"\{{{name}\mid {low - 1}{left} {name}{right} {high}\}}",
    ):
        assert not exact(wrong, key), wrong
    other_left = "<" if low_closed else r"\le"
    assert not exact(rf"\{{{name}\mid {low}{other_left} {name}{right} {high}\}}", key)


@given(st.integers(-20, 20), st.integers(1, 20), st.sampled_from("xty"))
def test_an_absolute_value_bounds_from_both_sides(middle, radius, name):
    """``|x-a| < b`` is the interval around a, and not its outside."""
    inside = f"|{name}|" if middle == 0 else f"|{name}{-middle:+d}|"
    key = f"({middle - radius}, {middle + radius})"
    assert exact(f"{inside}<{radius}", key)
    assert exact(f"{radius}>{inside}", key)
    for wrong in (
        f"{inside}<{radius + 1}",
        rf"{inside}\le {radius}",
        f"{inside}>{radius}",
        f"|{name}{1 - middle:+d}|<{radius}",
    ):
        assert not exact(wrong, key), wrong


PHRASES = {
    r"\mathbb{R}": (
        "all real numbers",
        "the set of all real numbers",
        "all reals",
        r"x\in\mathbb{R}",
        r"(-\infty,\infty)",
    ),
    r"\emptyset": ("no solution", "there are no solutions", "the empty set", r"\varnothing", "none"),
    r"\infty": ("infinitely many", "infinitely many solutions", "an infinite number of solutions"),
    r"\text{DNE}": ("does not exist", "the limit does not exist", "DNE"),
    r"\mathbb{Z}": ("all integers", "the integers"),
}


@given(st.sampled_from(sorted(PHRASES)), st.sampled_from(sorted(PHRASES)), st.data(), st.booleans())
def test_a_phrase_is_the_symbol_that_it_names(key, other, data, typed):
    """A phrase and a symbol mean the same, and a negated or another phrase does not."""
    phrase = data.draw(st.sampled_from(PHRASES[other]))
    text = rf"\text{{{phrase}}}" if typed and "\\" not in phrase else phrase
    verdict = exact(text, key)
    assert bool(verdict) is (key == other)
    assert not exact(rf"\text{{not {phrase}}}", key)
    assert not exact("0", key)


FAMILIES = (
    r"{0}\pi",
    r"\frac{{\pi}}{{3}}+2{0}\pi",
    r"x=\frac{{\pi}}{{4}}+{0}\pi",
    r"2^{{{0}}}",
    r"\frac{{{0}}}{{{0}+1}}",
)
QUANTIFIERS = (
    r"{0}, {1}\in\mathbb{{Z}}",
    r"{0}\text{{ for any integer }}{1}",
    r"{0}, \text{{ where }}{1}\text{{ is an integer}}",
    r"{0}\quad ({1}\in\mathbb Z)",
    r"{0} \; \forall {1} \in \mathbb{{Z}}",
    r"{0}, {1} \in Z",
)


@given(
    st.sampled_from(FAMILIES),
    st.sampled_from(FAMILIES),
    st.sampled_from("knm"),
    st.sampled_from("knm"),
    st.sampled_from(QUANTIFIERS),
    st.sampled_from(QUANTIFIERS),
)
def test_the_name_of_a_quantified_parameter_means_nothing(family, other, name, new_name, written, rewritten):
    """A family of answers is the same under another name of its parameter; over another set it is not."""
    key = written.format(family.format(name), name)
    assert read_quantifiers(normalize_answer(key)).parameters == ((name, "Z"),)
    assert exact(rewritten.format(family.format(new_name), new_name), key)
    natural = rf"{family.format(new_name)}, {new_name}\in\mathbb{{N}}"
    assert not exact(natural, key)
    assert not exact(rf"{family.format(new_name)}, j\in\mathbb{{Z}}", key)
    if other != family:
        assert not exact(rewritten.format(other.format(new_name), new_name), key)
