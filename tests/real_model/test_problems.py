r"""Made problems: their worked solutions hold, no held-out question is one to train on, the same seed gives the same.

Derivation: a solution is a chain ``a op b = c.`` of integers, evaluated here again from its text; the answer is the
last c, the number in the box, and what the grader reads. Numbers of the question are those of the chain.

Not exercised: how hard the problems are for a model (docs/probe.md and docs/real_study.md have that of SmolLM2).
"""

from __future__ import annotations

import json
import operator
import re
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from verl_ispo.grading import compute_score
from verl_ispo.real_model.make_data import HELD_OUT, LESSONS, TRAIN, main, make_data
from verl_ispo.real_model.problems import KINDS, SUM, TWO_STEPS, made_problems

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)\.")


@given(st.sampled_from(KINDS), st.text("abc1/", max_size=5))
@settings(max_examples=examples(60))
def test_solutions_hold_and_use_the_questions_numbers(kind: str, seed: str) -> None:
    for problem in islice(made_problems(kind, seed), 20):
        steps = STEP.findall(problem.solution)
        assert len(steps) == (2 if kind == TWO_STEPS else 1)
        known = set(map(int, re.findall(r"\d+", problem.question)))
        for left, sign, right, result in steps:
            assert OPERATORS[sign](int(left), int(right)) == int(result)
            assert {int(left), int(right)} <= known
            known.add(int(result))
        assert int(steps[-1][3]) == problem.answer >= 0
        assert compute_score("made", problem.solution, str(problem.answer), {})["score"] == 1.0


@given(st.sampled_from(KINDS), st.integers(0, 1000))
@settings(max_examples=examples(20))
def test_the_same_seed_gives_the_same_distinct_problems_without_the_excluded_ones(kind: str, seed: int) -> None:
    first = list(islice(made_problems(kind, str(seed)), 40))
    questions = [problem.question for problem in first]
    assert first == list(islice(made_problems(kind, str(seed)), 40))
    assert len(set(questions)) == 40
    without = list(islice(made_problems(kind, str(seed), frozenset(questions[::2])), 20))
    assert [problem.question for problem in without] == questions[1::2]


def test_files_share_no_question_and_repeat(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert make_data(tmp_path / name, 30, 10, 20, seed=3) == {TRAIN: 90, HELD_OUT: 30, LESSONS: 20}
    for file in (TRAIN, HELD_OUT, LESSONS):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    rows = {file: pq.read_table(tmp_path / "one" / file).to_pylist() for file in (TRAIN, HELD_OUT)}
    lessons = [json.loads(line)["messages"] for line in (tmp_path / "one" / LESSONS).read_text().splitlines()]
    asked = [{row["prompt"][-1]["content"] for row in of_file} for of_file in rows.values()]
    asked.append({messages[-2]["content"] for messages in lessons})
    assert list(map(len, asked)) == [90, 30, 20]
    assert len(set.union(*asked)) == 140
    kinds = [row["data_source"] for row in rows[HELD_OUT]]
    assert kinds == [f"made_{kind}" for kind in KINDS] * 10
    assert {row["extra_info"]["answer_format"] for row in rows[TRAIN]} == {"boxed"}
    # what is taught answers the prompt that is trained on
    assert lessons[0][:-2] == rows[TRAIN][0]["prompt"][:-1]


def test_a_size_below_one_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--lessons", "0"]) == 2
    assert "LESSONS=0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_sums_have_two_digits() -> None:
    assert all(re.fullmatch(r"What is \d\d \+ \d\d\?", each.question) for each in islice(made_problems(SUM, "0"), 50))
