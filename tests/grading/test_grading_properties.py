r"""Properties that hold for all answers, checked on generated ones.

1. Equality of plain answers is symmetric: gold and answer may be swapped.
2. An answer equals itself in any spelling that means nothing: white space, ``$``, sized brackets, the command used for
   a fraction; and what stands before the box does not matter.
3. Numbers are compared as numbers: rationals are equal if and only if Python's `Fraction` says so.
4. No text raises, and every result has the four keys with the types that verl takes.
5. Work is bounded: a response of a megabyte, or of unclosed boxes alone, is searched in one pass.

Not exercised: whether the *verdict* on an arbitrary expression is correct (``test_grading_cases.py`` has some by hand);
the large fuzz run, which is ``scripts/grading/fuzz_grading.py``.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from verl_ispo.answers.answer_place import MAX_SEARCH_CHARS, find_answer
from verl_ispo.grading import compute_score
from verl_ispo.grading.exact_numbers import exact_value, values_equal
from verl_ispo.grading.normalization import MAX_ANSWER_CHARS, normalize_answer

SCRIPTS = Path(__file__).parents[2] / "scripts/grading"


def load_script(name: str):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


workload = load_script("grading_workload")

rationals = st.fractions(min_value=-10_000, max_value=10_000, max_denominator=10_000)
prose = st.text(alphabet=st.characters(exclude_characters="\\{}"), max_size=300)
seeds = st.integers(min_value=0, max_value=2**32)


@st.composite
def written_rationals(draw):
    """A rational number and one of the ways to write it."""
    value = draw(rationals)
    top, bottom = value.numerator, value.denominator
    factor = draw(st.integers(min_value=1, max_value=9))
    forms = [
        rf"\frac{{{top * factor}}}{{{bottom * factor}}}",
        rf"\dfrac{{{top}}}{{{bottom}}}",
        f"{top}/{bottom}",
        rf"{top * factor}\cdot\frac{{1}}{{{bottom * factor}}}",
        rf"\left( {top} \right) / {bottom}",
    ]
    if bottom == 1:
        forms += [str(top), f"{top}.0", f"{top:,}"]
    whole, rest = divmod(abs(top), bottom)
    if whole and rest:
        forms.append(rf"{'-' if top < 0 else ''}{whole}\frac{{{rest}}}{{{bottom}}}")
    return value, draw(st.sampled_from(forms))


def status(answer: str, gold: str, **info) -> str:
    return compute_score("test", rf"So \boxed{{{answer}}}.", gold, info)["status"]


@given(written_rationals(), written_rationals())
def test_rationals_are_equal_exactly_when_their_values_are(left, right):
    assert status(left[1], right[1]) == ("correct" if left[0] == right[0] else "wrong")


@given(written_rationals(), st.integers(min_value=1, max_value=9))
def test_a_rational_equals_itself_in_every_spelling(written, factor):
    value, text = written
    assert status(text, rf"\frac{{{value.numerator * factor}}}{{{value.denominator * factor}}}") == "correct"


@given(rationals, rationals, st.fractions(min_value=0, max_value=10, max_denominator=1000))
def test_tolerance_is_the_largest_absolute_difference(gold, answer, tolerance):
    expected = "correct" if abs(gold - answer) <= tolerance else "wrong"
    assert status(str(answer), str(gold), tolerance=str(tolerance)) == expected


@given(st.integers(min_value=2, max_value=10**6), st.integers(min_value=2, max_value=10**6))
def test_enclosures_never_separate_equal_values(left, right):
    root = exact_value(rf"\sqrt{{{left}}}\sqrt{{{right}}}")
    product = exact_value(rf"\sqrt{{{left * right}}}")
    assert values_equal(root, product) is not False


@settings(max_examples=examples(150))
@given(seeds)
def test_verdict_on_plain_answers_is_symmetric(seed):
    rng = random.Random(seed)
    left, right = workload.plain_answer(rng), workload.plain_answer(rng)
    assert status(left, right) == status(right, left)


@given(seeds)
def test_an_answer_equals_itself_respelled(seed):
    rng = random.Random(seed)
    answer = workload.plain_answer(rng)
    assert status(workload.respelled(rng, answer), answer) == "correct"


@given(
    seeds, st.text(alphabet=st.characters(exclude_characters="\\{}"), max_size=300), st.sampled_from(["", "$", "$$"])
)
def test_surrounding_text_spaces_and_dollar_signs_change_nothing(seed, before, dollars):
    answer = workload.plain_answer(random.Random(seed))
    plain = compute_score("test", rf"\boxed{{{answer}}}", answer)
    wrapped = compute_score("test", f"{before} \\boxed{{ {dollars}{answer}{dollars} \n}}. Done!", answer)
    assert wrapped == plain
    assert plain["status"] == "correct"


@given(seeds)
def test_normalising_twice_is_normalising_once(seed):
    once = normalize_answer(workload.plain_answer(random.Random(seed)))
    assert normalize_answer(once) == once


def assert_result(result) -> None:
    assert set(result) == {"score", "acc", "pred", "status"}
    assert type(result["score"]) is float
    assert type(result["acc"]) is bool
    assert type(result["pred"]) is str
    assert result["status"] in {"correct", "wrong", "no_answer", "timeout", "error"}
    assert result["acc"] is (result["status"] == "correct")
    assert result["score"] == float(result["acc"])
    json.dumps(result, ensure_ascii=False).encode("utf-8")


@settings(max_examples=examples(200))
@given(st.text(max_size=200), st.text(max_size=60))
def test_no_text_raises(answer, gold):
    assert_result(compute_score("test", answer, gold, timeout_s=1.0))
    assert_result(compute_score("test", rf"\boxed{{{answer}}}", gold, timeout_s=1.0))


@pytest.mark.parametrize("gold", [None, 27, 27.0, [], ["1", "2"], {}, b"5", "", " ", "[", "['", "[1,2]", "\ud800"])
@pytest.mark.parametrize(
    "info", [None, {}, {"tolerance": None, "unit": None, "multiple_answers": None}, "not a mapping"]
)
def test_no_ground_truth_raises(gold, info):
    assert_result(compute_score("test", r"\boxed{27}", gold, info))


def test_fuzz_of_modest_size(monkeypatch):
    """Answers of the generator behind ``scripts/grading/fuzz_grading.py``, without the slow ones."""
    rng = random.Random(20)
    monkeypatch.syspath_prepend(str(SCRIPTS))  # the script imports its neighbours
    fuzz = load_script("fuzz_grading")
    for _ in range(examples(2_000)):
        task = fuzz.make_task(rng, rng.choice(list(fuzz.KINDS)))
        if any(slow in task.response for slow in (r"\sum", r"\int", r"\prod", r"\lim", r"\binom", "9^{9^{9}}")):
            continue
        assert_result(compute_score("test", task.response, task.gold, task.info, timeout_s=0.5))


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 200_000,
        r"\boxed{" * 50_000 + "}" * 50_000,
        "{" * 1_000_000,
        "Answer: " * 130_000,
        "Answer:\n" * 130_000,
        r"\boxed" * 170_000,
        "\\" * 1_000_000,
        " " * 1_000_000 + r"\boxed{ " + " " * 1_000_000 + "}",
    ],
    ids=["open boxes", "nested boxes", "braces", "labels", "empty labels", "bare boxes", "backslashes", "spaces"],
)
def test_megabytes_are_searched_in_one_pass(text):
    assert_result(compute_score("test", text, "42"))


def test_an_answer_beyond_the_searched_end_is_not_found():
    assert find_answer(r"\boxed{42}" + "x" * MAX_SEARCH_CHARS) is None


def test_an_answer_that_is_too_long_is_an_error_and_not_wrong():
    result = compute_score("test", rf"\boxed{{{'x+' * MAX_ANSWER_CHARS}1}}", "42")
    assert result["status"] == "error"
    assert len(result["pred"]) <= 1_000


@given(st.integers(min_value=1, max_value=60), rationals)
def test_redundant_braces_mean_nothing(depth, value):
    assert status("{" * depth + str(value) + "}" * depth, str(value)) == "correct"


@given(st.integers(min_value=-(10**30), max_value=10**30), st.integers(min_value=1, max_value=30))
def test_scientific_notation_is_exact(mantissa, exponent):
    assert exact_value(f"{mantissa}e{exponent}") == Fraction(mantissa) * 10**exponent
    assert exact_value(rf"{mantissa}\cdot10^{{{-exponent}}}") == Fraction(mantissa, 10**exponent)
