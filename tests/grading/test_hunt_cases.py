r"""The cases of a hunt through public trackers and benchmark keys: ``tests/grading/hunt_cases.jsonl``, judged by hand.

A line has ``kind`` (a sentence on what goes wrong in general), ``answer`` (what is in the box; the whole response where
``response`` is true), ``gold``, ``verdict``, and where they apply ``extra_info``, ``note`` and ``prepared_gold``: the
ground truth as the data preparation repairs it, where a benchmark misprints it.

The property tests that generate more of each kind are beside the code that reads it;
``scripts/grading/rewritten_keys.py`` tries some hundred forms of every key of a data set.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from verl_ispo.grading import compute_score


def read_cases(name: str) -> list[dict]:
    return [json.loads(line) for line in (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()]


CASES = read_cases("hunt_cases.jsonl")
REPORTS = read_cases("public_reports.jsonl")


def case_id(case: dict) -> str:
    return ascii(f"{case['kind'][:30]}: {case['answer'][:30]} / {case['gold'][:30]}")


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_verdict(case: dict):
    response = case["answer"] if case.get("response") else rf"\boxed{{{case['answer']}}}"
    gold = case.get("prepared_gold", case["gold"])
    result = compute_score("hunt", response, gold, case.get("extra_info"))
    assert result["status"] == case["verdict"], case.get("note", case["kind"])


@pytest.mark.parametrize("case", REPORTS, ids=lambda case: ascii(f"{case['source']}: {case['answer'][:30]}"))
def test_what_was_reported_of_other_graders(case: dict):
    """Pairs from public issues of other graders, named in ``source``, with the verdict that mathematics gives."""
    response = case["answer"] if case.get("response") else rf"\boxed{{{case['answer']}}}"
    assert compute_score("report", response, case["gold"])["acc"] == (case["verdict"] == "correct")


def test_no_case_is_there_twice_and_every_kind_has_several():
    assert len({(case["answer"], case["gold"]) for case in CASES}) == len(CASES)
    kinds = Counter(case["kind"] for case in CASES)
    assert {case["verdict"] for case in CASES} == {"correct", "wrong"}
    assert len(kinds) >= 25
