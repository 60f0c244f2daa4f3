r"""Keys are tried on the grader before they are trained on.

Derivation. A key that the grader cannot read gives every rollout of its problem the same score, 0; one that it reads as
less than what is written accepts wrong answers. Both are found by grading: against itself a key has to be correct,
against a number that is no answer to anything it has to be wrong.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_problems import command, made_benchmark, made_rows, olympiad_rows, result_of, write_jsonl

from data_prep import key_trials
from data_prep.key_trials import fault_kind
from tests.examples import examples
from verl_ispo.grading import key_trial
from verl_ispo.grading.key_trial import FOREIGN_ANSWERS, key_fault

UNREADABLE = r"G/K \cong H \otimes \aleph_1^{<\kappa}"


@pytest.mark.parametrize(
    "key",
    ["4", "-3/5", r"\frac{1}{2}", "x=3", "(1,2)", r"\{1,2\}", "B", r"\text{even}", "yes", "none", '["1", "2"]',
     "1 or 2", "35,000", r"x^2+\sqrt{y}", *FOREIGN_ANSWERS],
)  # fmt: skip
def test_a_readable_key_has_no_fault(key: str) -> None:
    assert key_fault(key) == ""


@settings(max_examples=examples(60), deadline=None)
@given(st.fractions(max_denominator=50), st.sampled_from(["{}", r"{} \text{{ cm}}", "x={}", "({},1)", "{},7"]))
def test_every_number_is_a_key_in_any_dress(value, form) -> None:
    """The trial itself rejects good keys, and the training set shrinks."""
    assert key_fault(form.format(value)) == ""


@pytest.mark.parametrize(
    ("key", "kind"),
    [(UNREADABLE, "error"), ("", "error"), ("9" * 20_000, "error"), (r"\sqrt{2", "rejects itself")],
)
def test_an_unreadable_key_is_told(key: str, kind: str) -> None:
    assert fault_kind(key_fault(key)) == kind


@pytest.mark.parametrize(
    ("verdicts", "fault"),
    [([False], "rejects itself"), ([True, True], "accepts the foreign answer -7919.25"), ([True, False], "")],
)
def test_both_verdicts_count(monkeypatch, verdicts, fault) -> None:
    """A key that the grader rejects as its own answer, or one that it takes for anything."""
    answers = iter(verdicts)
    monkeypatch.setattr(key_trial, "check_answer", lambda gold, answer: next(answers))
    assert key_fault("4") == fault


def test_faulty_keys_are_listed_and_leave_the_training_set(prepare) -> None:
    rows = [*made_rows(5), {**made_rows(1, 5)[0], "answer": UNREADABLE}]
    result = prepare(rows)
    assert len(result.rows) == 5
    assert result.card["rows"]["dropped: key fails on the grader: error"] == 1
    assert result.card["key_trials"]["tried"] == 6
    (entry,) = result.dropped
    assert (entry["reason"], entry["answer"], entry["kept"]) == ("key fails on the grader", UNREADABLE, False)
    assert entry["fault"].startswith("error: ")
    kept = prepare(rows, "--faulty_keys", "keep")
    assert len(kept.rows) == 6
    assert kept.dropped[0]["kept"]
    assert any("1 keys fail" in note for note in kept.card["notes"])


def test_a_key_that_comes_again_is_tried_once(monkeypatch, prepare) -> None:
    tried = []
    monkeypatch.setattr(key_trials, "key_fault", lambda key, info, workers: tried.append(key) or "")
    prepare([{**row, "answer": str(number % 3)} for number, row in enumerate(made_rows(30))])
    assert sorted(tried) == ["0", "1", "2"]


def test_a_benchmark_names_a_faulty_key_and_keeps_the_problem(tmp_path) -> None:
    source = made_benchmark("aime25", tmp_path / "aime25.jsonl")
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    rows[7]["answer"] = UNREADABLE
    write_jsonl(source, rows)
    assert command("aime25", "--local_dataset_path", source, "--local_save_dir", tmp_path) == 0
    result = result_of(tmp_path, "aime25")
    assert len(result.rows) == 30
    assert any("THE KEY OF ROW 8" in note and UNREADABLE in note for note in result.card["notes"])


def test_olympiadbenchs_misprinted_key_is_repaired(tmp_path) -> None:
    rows = olympiad_rows(675)
    rows[96]["final_answer"] = ["$t(0,4]$"]
    source = write_jsonl(tmp_path / "olympiadbench.jsonl", rows)
    assert command("olympiadbench", "--local_dataset_path", source, "--local_save_dir", tmp_path) == 0
    result = result_of(tmp_path, "olympiadbench")
    assert result.rows[96]["reward_model"]["ground_truth"] == "(0,4]"
    assert result.rows[96]["extra_info"]["answer_type"] == "interval"
    assert result.card["notes"] == ["The published key t(0,4] is a misprint and was corrected to (0,4]."]
