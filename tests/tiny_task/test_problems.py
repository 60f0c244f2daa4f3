"""Problems, worked traces and the split.

A worked response is correct if every step ``a+b=c`` is true, starts from the total of the step before, uses the chain's
operands in order, and the box holds the chain's value. The value itself is recomputed here by a small parser of the
question, not taken from the generator. The reward must accept each worked response and refuse an incorrect box.

Not exercised: whether a model can learn the task, and how often formats occur beyond their being mixed.
"""

import random
import re
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ispo.tiny_task.problems import (
    LEVELS,
    Problem,
    ResponseMix,
    draw_problem,
    draw_response,
    held_out_problems,
    training_problems,
    worked_response,
)
from verl_ispo.tiny_task.reward import compute_score

SPEC = {1: (2, 9), 2: (3, 9), 3: (4, 9), 4: (3, 50), 5: (4, 50), 6: (6, 50)}

problems = st.builds(
    lambda number, seed: draw_problem(LEVELS[number], random.Random(seed)),
    st.sampled_from(sorted(LEVELS)),
    st.integers(0, 2**32),
)


def operands_of(question):
    assert re.fullmatch(r"\d+([+-]\d+)+=", question)
    return [int(term) for term in re.findall(r"[+-]?\d+", question)]


@given(problems)
def test_a_level_bounds_the_number_and_the_size_of_the_operands(problem):
    terms, largest = SPEC[problem.level]
    operands = operands_of(problem.question)
    assert len(operands) == terms
    assert all(1 <= abs(operand) <= largest for operand in operands)
    assert operands[0] > 0


@given(problems, st.sampled_from(";,"), st.booleans())
def test_every_step_of_a_trace_is_true_and_the_box_holds_the_answer(problem, separator, decimal):
    response = worked_response(problem, separator=separator, decimal=decimal)
    *steps, box = response.split(separator)
    total, *rest = operands_of(problem.question)
    assert len(steps) == len(rest)
    for step, operand in zip(steps, rest, strict=True):
        before, signed, after = re.fullmatch(r"(-?\d+)([+-]\d+)=(-?\d+)", step).groups()
        assert (int(before), int(signed)) == (total, operand)
        total += operand
        assert int(after) == total
    assert box == f"\\boxed{{{total}{'.0' if decimal else ''}}}"
    assert total == sum(operands_of(problem.question)) == problem.answer


@given(problems, st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_reward_accepts_every_worked_response_and_refuses_another_answer(problem, seed, bare, comma, decimal):
    response = draw_response(problem, ResponseMix(bare, comma, decimal), random.Random(seed))
    assert compute_score("", response, str(problem.answer))["score"] == 1.0
    assert compute_score("", response, str(problem.answer + 1))["score"] == 0.0


def test_the_form_of_a_response():
    assert Problem(1, (9, -1)).question == "9-1="
    assert worked_response(Problem(1, (9, -1))) == r"9-1=8;\boxed{8}"
    assert worked_response(Problem(2, (3, 4, -2))) == r"3+4=7;7-2=5;\boxed{5}"
    assert worked_response(Problem(2, (3, -9, 2)), separator=",", decimal=True) == r"3-9=-6,-6+2=-4,\boxed{-4.0}"
    assert worked_response(Problem(1, (9, -1)), trace=False) == r"\boxed{8}"


def test_responses_are_20_to_33_characters_on_average():
    rng = random.Random(0)
    for levels in ((1, 2, 3, 4), (1, 2, 3, 4, 5, 6)):
        drawn = islice(training_problems(levels, rng, frozenset()), 3000)
        lengths = [len(draw_response(problem, ResponseMix(0.05), rng)) for problem in drawn]
        assert 20 <= sum(lengths) / len(lengths) <= 33


def test_a_mix_of_formats_really_mixes():
    rng = random.Random(0)
    mix = ResponseMix(no_trace_share=0.6, comma_share=0.5, decimal_share=0.3)
    responses = [draw_response(draw_problem(LEVELS[2], rng), mix, rng) for _ in range(2000)]
    # four standard errors of a share of 2000 draws are at most 0.045
    assert sum(r.startswith("\\boxed") for r in responses) / 2000 == pytest.approx(0.6, abs=0.045)
    assert sum(".0}" in r for r in responses) / 2000 == pytest.approx(0.3, abs=0.045)
    with_trace = [r for r in responses if not r.startswith("\\boxed")]
    assert sum("," in r for r in with_trace) / len(with_trace) == pytest.approx(0.5, abs=0.08)


def test_held_out_problems_are_distinct_and_balanced():
    drawn = held_out_problems(seed=0)
    assert len({problem.question for problem in drawn}) == len(drawn) == 300
    assert [sum(problem.level == number for problem in drawn) for number in SPEC] == [50] * 6


@given(st.integers(0, 1000), st.sampled_from([(1,), (1, 2, 3, 4), (1, 2, 3, 4, 5, 6), (4, 6)]))
def test_training_never_sees_a_held_out_question(seed, levels):
    held_out = frozenset(problem.question for problem in held_out_problems(seed))
    drawn = list(islice(training_problems(levels, random.Random(seed), held_out), 400))
    assert held_out.isdisjoint(problem.question for problem in drawn)
    assert {problem.level for problem in drawn} <= set(levels)


def test_levels_are_drawn_alike_although_much_of_level_1_is_held_out():
    held_out = frozenset(problem.question for problem in held_out_problems(0))
    drawn = list(islice(training_problems(sorted(LEVELS), random.Random(0), held_out), 6000))
    for number in LEVELS:
        # 1000 expected, with a standard deviation of 29
        assert sum(problem.level == number for problem in drawn) == pytest.approx(1000, abs=120)


def test_the_same_seed_gives_the_same_problems():
    assert held_out_problems(3) == held_out_problems(3)
    assert held_out_problems(3) != held_out_problems(4)
    # Fixed so that a change of the draw, which would silently move the held-out set, does not pass unseen.
    assert [problem.question for problem in held_out_problems(0)[::100]] == ["2+8=", "4-2+7-8=", "3-15+9-17="]


@pytest.mark.parametrize("per_level", [0, -1, 82])
def test_holding_out_too_much_of_level_1_is_refused(per_level):
    with pytest.raises(ValueError, match=rf"per_level={per_level} .*162 .*1 to 81"):
        held_out_problems(0, per_level)


@pytest.mark.parametrize("levels", [(), (0,), (1, 7)])
def test_an_unknown_level_is_refused(levels):
    with pytest.raises(ValueError, match="levels"):
        next(training_problems(levels, random.Random(0), frozenset()))
