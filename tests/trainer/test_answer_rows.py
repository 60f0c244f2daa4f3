r"""Where a batch's answers are: each row's markers, and whether its problem asks for several, as the grader sees them.

Derivation. IFD scores what is graded only if trainer and grader read the same of a row. So the rows' readings are
compared with what `compute_score` grades for the same ground truth and ``extra_info``.

Not exercised: verl's transfer queue, for which a dictionary stands here.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from verl_ispo.answers.answer_place import answer_text, find_answer
from verl_ispo.grading import compute_score
from verl_ispo.trainer import policy_pass

RESPONSE = r"so \boxed{1} and \boxed{-2}." "\n#### 7"
ROWS: list[dict[str, Any]] = [
    {"reward_model": {"ground_truth": "1,-2"}, "extra_info": {"answer_format": "boxed"}},
    {"reward_model": {"ground_truth": "-2"}, "extra_info": {"answer_format": "auto"}},
    {"reward_model": {"ground_truth": "7"}, "extra_info": {"answer_format": "hashes"}},
    {"reward_model": {"ground_truth": '["1", "-2"]'}, "extra_info": {}},
    {"reward_model": {"ground_truth": "-2"}, "extra_info": None},
]


class Values(list):
    """A field as the transfer queue gives it: one value per row."""


def readings(monkeypatch: pytest.MonkeyPatch, answer_format: str, grades_lists: bool) -> tuple[list[str], list[bool]]:
    def fetched(batch: Any, fields: Any) -> dict[str, Values]:
        rows = [ROWS[int(key.split("_")[0])] for key in batch.keys]
        return {name: Values(row[name] for row in rows) for name in fields}

    monkeypatch.setattr(policy_pass, "fetch", fetched)
    monkeypatch.setattr(policy_pass, "KVBatchMeta", lambda **fields: SimpleNamespace(**fields))

    class Batch(SimpleNamespace):
        def __len__(self) -> int:
            return len(self.keys)

    # Two rollouts of each prompt, of which the queue need only give the first, and one of verl's padding rows.
    tags = [{} for _ in ROWS] * 2 + [{"is_padding": True}]
    keys = [f"{row}_{sample}_0" for sample in (0, 1) for row in range(len(ROWS))]
    batch = Batch(keys=[*keys, "padding"], tags=tags, partition_id="train")
    formats, several = policy_pass._where_answers_are(batch, answer_format, grades_lists)
    assert formats[: len(ROWS)] == formats[len(ROWS) : -1]
    assert several[: len(ROWS)] == several[len(ROWS) : -1]
    return formats[len(ROWS) :], several[len(ROWS) :]


def test_what_is_scored_is_what_is_graded(monkeypatch) -> None:
    """The trainer looks for other markers than the grader, or reads a list where the grader reads its last box."""
    formats, several = readings(monkeypatch, "auto", grades_lists=True)
    assert formats == ["boxed", "auto", "hashes", "auto", "auto", "auto"]
    assert several == [True, False, False, True, False, False]
    for row, answer_format, is_list in zip(ROWS, formats, several, strict=False):
        scored = answer_text(RESPONSE, find_answer(RESPONSE, answer_format, is_list))
        result = compute_score("t", RESPONSE, row["reward_model"]["ground_truth"], row["extra_info"])
        assert (result["status"], result["pred"]) == ("correct", scored.replace(", ", ","))


def test_the_runs_own_choice_comes_first_and_other_graders_read_no_lists(monkeypatch) -> None:
    formats, several = readings(monkeypatch, "boxed+hashes", grades_lists=False)
    assert set(formats) == {"boxed+hashes"}
    assert not any(several)
