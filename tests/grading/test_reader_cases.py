r"""The case file ``reader_cases.jsonl``: how answers and keys are written, and the correct verdict on each pair.

A line has ``kind``, ``answer`` (what is in the box), ``gold`` and ``verdict``; :data:`KINDS` says what goes wrong in
general with each kind. An answer that is wrong may come out as an error, where its key has no value to compare with.

Not exercised: what generated answers add, which is ``test_reader_properties.py``.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from verl_ispo.grading import compute_score

CASES = [
    json.loads(line) for line in Path(__file__).with_name("reader_cases.jsonl").read_text(encoding="utf-8").splitlines()
]
KINDS = {
    "choice": "a key carries the letter of a choice and its text, and an answer gives either; what follows a letter "
    "makes it another answer, unless it can be the text of the choice",
    "ratio": "a ratio is written with a colon, as a fraction or in words, and in other terms; a time of day is none",
    "degrees inside": "a sign of degrees within an expression is a factor, not the unit of all of it",
    "set": "a set is written as an interval, by a condition, by several conditions at once, or in words",
    "dress": "colours, sizes, lines, signs of conclusion and filler words change nothing; a negation does, and so does "
    "an approximation that is none",
    "counted nouns": "any plain words behind a number say what was counted; a word that changes the number is none",
    "logs, cycles and binomials": "a base, a repeating decimal or a binomial coefficient is written in several ways",
    "quantifier": "the name of a quantified parameter means nothing; what it ranges over does",
    "spelling": "two texts that print alike are the same answer, whether or not a parser knows what they mean",
}


def case_id(case: dict) -> str:
    return ascii(f"{case['kind']}: {case['answer'][:40]} / {case['gold'][:40]}")


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_verdict(case):
    status = compute_score("test", rf"The answer is \boxed{{{case['answer']}}}.", case["gold"])["status"]
    assert status in (("correct",) if case["verdict"] == "correct" else ("wrong", "error")), KINDS[case["kind"]]


def test_each_kind_has_right_and_wrong_answers_and_no_case_comes_twice():
    assert len({(case["answer"], case["gold"]) for case in CASES}) == len(CASES)
    verdicts = Counter((case["kind"], case["verdict"]) for case in CASES)
    assert {kind for kind, _ in verdicts} == set(KINDS)
    assert all(verdicts[kind, "correct"] >= 10 and verdicts[kind, "wrong"] >= 5 for kind in KINDS)
