r"""Which votes count together: equal answers do, whatever their spelling, and no order of the samples changes that.

- What goes wrong in general: a vote by text splits one answer over its spellings, so a minority wins; a vote by pairs
  of equal answers joins different answers through a third that agrees with both (0.5, 50 %, 50).
- Classes are compared with their definition, over spellings of made-up numbers, and over every order of the votes.

Not exercised: answers that only a worker finds equal, which stay apart by design.
"""

from __future__ import annotations

import random
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.conftest import ResultWriter
from tests.examples import examples
from verl_ispo.evaluation.equal_votes import vote_names
from verl_ispo.evaluation.metrics import Metric, parse_metric, problem_scores
from verl_ispo.evaluation.results import SAMPLES_NAME, load_result


def classes(answers: list[str], several: bool = False) -> set[frozenset[str]]:
    names = vote_names(answers, several)
    return {frozenset(a for a, n in zip(answers, names, strict=True) if n == name) for name in names if name}


@pytest.mark.parametrize(
    "answers",
    [
        [r"\frac12", "0.5", "1/2", r"\frac{1}{2}", r"\dfrac{1}{2}", ".5", r"\frac{2}{4}"],
        ["1000", "1,000", r"1{,}000", "1000.0", r"10^{3}"],
        ["5", "x=5", "x = 5", "5."],
        [r"12\text{ cm}", "12", r"12\,\mathrm{cm}"],
        ["1, 2", "2, 1", r"2 \text{ and } 1"],
        ["(1, 2)", r"\left(1,2\right)"],
        ["A", "(A)", r"\text{A}"],
        [r"50\%", "0.5", r"\frac{1}{2}"],
        ["0.333333", r"\frac{1}{3}"],
    ],
)
def test_spellings_of_one_answer_vote_together(answers: list[str]):
    assert len(classes(answers)) == 1


@pytest.mark.parametrize(
    "answers",
    [
        ["(1,2)", "(2,1)"],
        ["1", "2", "-1", "0", "1.5"],
        [r"12\text{ cm}", r"12\text{ kg}"],
        ["[0,1]", "[0,1)", "(0,1)"],
        ["A", "B"],
        [r"\sqrt{2}", "1.41", r"\sqrt{3}"],
        ["0.333333", "0.333334"],
        ["Yes", "No"],
        ["1", "1, 3", "1, 2"],
    ],
)
def test_different_answers_do_not(answers: list[str]):
    assert len(classes(answers)) == len(answers)


def test_no_chain_joins_different_answers():
    assert classes(["0.5", r"50\%"]) == {frozenset({"0.5", r"50\%"})}
    assert len(classes(["0.5", r"50\%", "50"])) == 3
    assert len(classes([r"5\text{ cm}", "5", r"5\text{ kg}"])) == 3
    assert len(classes(["0.5", r"\frac12", r"50\%", "50"])) == 3  # 0.5 and one half agree with the same answers


def test_no_answer_is_no_vote_and_unreadable_ones_count_by_their_text():
    broken = [r"\frac{1", "((((", "9^{9^{9^{9}}}", "x" * 900, "\x00"]
    assert vote_names(["", *broken, *broken])[0] == ""
    assert vote_names(broken) == vote_names(broken[::-1])[::-1]
    assert len(classes(broken)) == len(broken)


_SPELLINGS = (
    lambda value: rf"\frac{{{value.numerator}}}{{{value.denominator}}}",
    lambda value: f"{value.numerator}/{value.denominator}",
    lambda value: rf"\dfrac{{{3 * value.numerator}}}{{{3 * value.denominator}}}",
    lambda value: f"{float(value)}",
    lambda value: f"x = {float(value)}0",
)


@given(st.lists(st.tuples(st.integers(-30, 30), st.integers(0, 4)), min_size=1, max_size=12), st.randoms())
@settings(max_examples=examples(40))
def test_numbers_are_one_vote_exactly_if_they_are_equal(drawn: list[tuple[int, int]], shuffle: random.Random):
    """Fractions of 8, each in any spelling: a name for each value, in any order of the votes."""
    values = [Fraction(eighths, 8) for eighths, _ in drawn]
    answers = [_SPELLINGS[spelling](value) for value, (_, spelling) in zip(values, drawn, strict=True)]
    names = vote_names(answers)
    for value, name in zip(values, names, strict=True):
        for other, other_name in zip(values, names, strict=True):
            assert (name == other_name) is (value == other)
    order = list(range(len(answers)))
    shuffle.shuffle(order)
    assert vote_names([answers[index] for index in order]) == [names[index] for index in order]


_MIXED = ["0.5", r"50\%", "50", r"\frac12", "5", r"5\text{ cm}", r"5\text{ m}", "x=5", "1,2", "2,1", "(1,2)", "[1,2]",
          "A", "(A)", "0.333333", r"\frac13", "0.3333333", r"2\sqrt3", "Yes", ""]  # fmt: skip


@given(st.lists(st.sampled_from(_MIXED), min_size=1, max_size=10), st.randoms(), st.booleans())
@settings(max_examples=examples(60))
def test_the_order_of_the_votes_and_their_number_change_nothing(
    answers: list[str], shuffle: random.Random, several: bool
):
    names = dict(zip(answers, vote_names(answers, several), strict=True))
    shuffled = [*answers, *answers]
    shuffle.shuffle(shuffled)
    assert vote_names(shuffled, several) == [names[answer] for answer in shuffled]


def test_many_different_votes_cost_little():
    rng = random.Random(0)
    numbers = [[str(rng.randint(-(10**6), 10**6)) for _ in range(64)] for _ in range(50)]
    started = time.process_time()
    for answers in numbers:
        vote_names(answers)
    vote_names([rf"{rng.randint(2, 9)}\sqrt{{{rng.randint(2, 99)}}}+{index}" for index in range(64)])
    assert time.process_time() - started < 3.0


def test_the_table_has_both_forms(write_result: ResultWriter):
    folder = write_result("a", {"aime24": "1"}, {"aime24": ["11100"]})
    path = folder / SAMPLES_NAME
    lines = path.read_text().splitlines()
    for index, answer in enumerate((r"\frac{1}{2}", "0.5", "1/2", "7", "7"), start=1):
        mark = "1" if index <= 3 else "0"
        lines[index] = lines[index].replace(f'"answer {mark}"', f'"{answer}"'.replace("\\", "\\\\"))
    path.write_text("\n".join(lines) + "\n")
    benchmark = load_result(folder).benchmarks["aime24"]
    assert problem_scores(benchmark, parse_metric("maj@5")).tolist() == [1.0]
    assert problem_scores(benchmark, parse_metric("maj_text@5")).tolist() == [0.0]
    assert Metric("maj", 5).title != Metric("maj_text", 5).title
    assert "as text" in Metric("maj_text", 5).title
