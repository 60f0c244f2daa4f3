r"""The benchmarks' own answers: each equals itself, respelled, and the paths add up.

Where the real data is absent (``VERL_ISPO_SHARED`` names the folder that holds ``data/raw``), a few made-up answers of
the same forms are used.

Not exercised: whether the ground truths of the data sets are correct.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from verl_ispo.grading import compute_score, grading_stats

ROOT = Path(__file__).parents[2]
RAW = Path(os.environ.get("VERL_ISPO_SHARED", ROOT.parent / "shared")) / "data" / "raw"
MADE = Path(__file__).with_name("made_answers.jsonl")
ANSWERS = 1_274 if RAW.is_dir() else 40

NOT_UNDERSTOOD = {"$t(0,4]$"}
"""Keys that no parser can read (a misprint of OlympiadBench); equal text is all that can be graded."""


def problems(name: str) -> list[tuple[str, str, dict]]:
    """``(answer, ground truth, extra_info)`` as the prepared data sets carry them."""
    file = RAW / f"{name}.jsonl" if RAW.is_dir() else MADE
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    rows = [row for row in rows if row.get("benchmark", name) == name]
    found = []
    for row in rows:
        answers = row.get("answer", row.get("final_answer"))
        answers = [str(answer) for answer in answers] if isinstance(answers, list) else [str(answers)]
        several = bool(row.get("is_multiple_answer"))
        info = {"tolerance": row.get("error") or "", "unit": row.get("unit") or "", "multiple_answers": several}
        found.append((", ".join(answers), json.dumps(answers) if several else answers[0], info))
    return found


def respelled(answer: str) -> str:
    spelled = answer.replace(r"\frac", r"\dfrac").replace(r"\left", "").replace(r"\right", "")
    return " " + spelled.replace("(", r"\left( ").replace(")", r" \right)") + " "


@pytest.mark.parametrize("name", ["aime24", "aime25", "amc23", "math500", "olympiadbench"])
def test_every_answer_equals_itself_respelled(name):
    for answer, gold, info in problems(name):
        result = compute_score(name, rf"Thus \boxed{{{respelled(answer)}}}.", gold, info)
        assert result["status"] == "correct", (answer, gold, result)


@pytest.mark.parametrize("name", ["aime24", "aime25", "amc23", "math500", "olympiadbench"])
def test_another_problems_integer_is_wrong(name):
    rng = random.Random(3)
    rows = problems(name)
    integers = [answer for answer, _, _ in rows if answer.removesuffix(".0").lstrip("-").isdigit()]
    for answer, gold, info in rows:
        other = rng.choice(integers)
        if gold in NOT_UNDERSTOOD or not answer.removesuffix(".0").lstrip("-").isdigit():
            continue
        same = float(other) == float(answer)
        assert compute_score(name, rf"\boxed{{{other}}}", gold, info)["acc"] is same


def test_most_answers_need_no_worker():
    grading_stats(reset=True)
    for name in ("aime24", "aime25", "amc23", "math500", "olympiadbench"):
        for answer, gold, info in problems(name):
            compute_score(name, rf"\boxed{{{answer}}}", gold, info)
    stats = grading_stats()
    assert stats["answers"] == stats["statuses"]["correct"] >= ANSWERS
    assert stats["paths"]["exact"] >= 0.95 * stats["answers"]
