r"""Public training sets as they are published: each in its own columns, read without an option.

Derivation. The rows are made up; the columns, and the form of their cells, are those of the published files. What goes
wrong in general is that a column is taken for another one: a worked solution for an answer, a prompt with its
instruction for the question, a row number for an id, a list of forms for several answers.

Not exercised: the published files themselves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_problems import command, problem, result_of

Q = [problem(number) for number in range(4)]
BOX_STEPS = " Let's think step by step and output the final answer within \\boxed{}."
HASH_STEPS = ' Let\'s think step by step and output the final answer after "####".'
EURUS = "\n\nPresent the answer in LaTex format: \\boxed{Your answer}"


def turns(question: str, reply: dict[str, Any], asker: str = "human") -> list[dict[str, Any]]:
    return [{"from": asker, "value": question}, {"from": "assistant", **reply}]


def verl_row(prompt: str, truth: str, index: Any, **extra: Any) -> dict[str, Any]:
    return {
        "data_source": "made",
        "prompt": [{"role": "user", "content": prompt}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {"split": "train", "index": index, **extra},
    }


NUMINA = {"source": "olympiads", "problem_type": "Algebra", "synthetic": False, "solution": "..."}
# name: (kind of file, rows, question -> ground truth, reasons of what is dropped)
LAYOUTS: dict[str, tuple[str, list[Any], dict[str, str], list[str]]] = {
    "NuminaMath-1.5": (
        "parquet",
        [
            NUMINA | {"problem": Q[0], "answer": "4", "question_type": "math-word-problem",
                      "problem_is_valid": "Yes", "solution_is_valid": "Yes"},
            NUMINA | {"problem": "Prove it.", "answer": "proof", "question_type": "proof",
                      "problem_is_valid": "Yes", "solution_is_valid": "Yes"},
            NUMINA | {"problem": Q[1], "answer": "notfound", "question_type": "math-word-problem",
                      "problem_is_valid": "Yes", "solution_is_valid": "Yes"},
            NUMINA | {"problem": Q[2], "answer": "5", "question_type": "math-word-problem",
                      "problem_is_valid": "Incomplete", "solution_is_valid": "Yes"},
            NUMINA | {"problem": Q[3], "answer": "6", "question_type": "MCQ",
                      "problem_is_valid": "Yes", "solution_is_valid": "Problem not solved"},
        ],
        {Q[0]: "4"},
        ["uncheckable answer: proof", "uncheckable answer: placeholder",
         "marked as invalid: problem_is_valid is Incomplete",
         "marked as invalid: solution_is_valid is Problem not solved"],
    ),
    "NuminaMath-CoT": (
        "parquet",
        [
            {"source": "amc", "problem": Q[0], "solution": "So $\\boxed{\\textbf{(B)}\\ 4}$.", "messages": []},
            {"source": "cn", "problem": "Prove that it holds.", "solution": "Suppose not... QED", "messages": []},
            {"source": "cn", "problem": Q[1], "solution": "It is four.", "messages": []},
        ],
        {Q[0]: "\\textbf{(B)}\\ 4"},
        ["uncheckable answer: proof", "uncheckable answer: no answer"],
    ),
    "verl's GSM8K": (
        "parquet",
        [verl_row(Q[0] + HASH_STEPS, "72", 0, answer="...\n#### 72", question=Q[0])],
        {Q[0]: "72"},
        [],
    ),
    "verl's MATH": ("parquet", [verl_row(Q[0] + BOX_STEPS, "72", 0)], {Q[0]: "72"}, []),
    "verl's GSM8K and MATH in one file": (
        "jsonl",
        [verl_row(Q[0] + HASH_STEPS, "72", 0, question=Q[0]), verl_row(Q[1] + BOX_STEPS, "\\frac12", 0)],
        {Q[0]: "72", Q[1]: "\\frac12"},
        [],
    ),
    "Skywork-OR1": (
        "parquet",
        [
            verl_row(Q[0] + BOX_STEPS, json.dumps(["4"]), 0, model_difficulty={"7B": 3}),
            verl_row(Q[1] + BOX_STEPS, json.dumps(["0.6", "3/5"]), 1, model_difficulty={"7B": 3}),
        ],
        {Q[0]: "4", Q[1]: "3/5"},
        [],
    ),
    "Eurus-2": (
        "parquet",
        [{**verl_row(Q[0], "4", 0), "prompt": [{"role": "system", "content": "When tackling ..."},
                                               {"role": "user", "content": Q[0] + EURUS}]}],
        {Q[0]: "4"},
        [],
    ),
    "SimpleRL-Zoo": (
        "parquet",
        [{**verl_row(f"<|im_start|>user\n{Q[0]}\nPlease reason step by step, and put your final answer within "
                     "\\boxed{}.<|im_end|>\n<|im_start|>assistant\n", "4", 0), "level": 3}],
        {Q[0]: "4"},
        [],
    ),
    "Open-Reasoner-Zero, a list of conversations": (
        "json",
        [turns(Q[0], {"ground_truth": {"value": "4"}}), turns(Q[1], {"ground_truth": {"value": "\\frac{5}{6}"}})],
        {Q[0]: "4", Q[1]: "\\frac{5}{6}"},
        [],
    ),
    "Open-Reasoner-Zero on the hub": (
        "parquet",
        [{"0": {"from": "human", "value": Q[0]},
          "1": {"from": "assistant", "ground_truth": {"value": "4", "pass_at_n": 0.25}}}],
        {Q[0]: "4"},
        [],
    ),
    "SYNTHETIC-1": (
        "parquet",
        [
            {"problem_id": "p1", "task_type": "verifiable_math", "prompt": Q[0],
             "verification_info": json.dumps({"ground_truth": "4"})},
            {"problem_id": "p2", "task_type": "verifiable_code", "prompt": Q[1],
             "verification_info": json.dumps({"language": "python", "test_cases": []})},
        ],
        {Q[0]: "4"},
        ["uncheckable answer: no answer"],
    ),
    "Light-R1": (
        "jsonl",
        [{"conversations": turns(Q[0], {"value": "<think>hm</think> So $\\boxed{4}$."}, "user")},
         {"conversations": turns(Q[1], {"value": "<think>hm"}, "user")}],
        {Q[0]: "4"},
        ["uncheckable answer: no answer"],
    ),
    "DAPO, processed": (
        "parquet",
        [{**verl_row(Q[0], "34", "b0e1"), "prompt": Q[0], "solution": "34"}],
        {Q[0]: "34"},
        [],
    ),
    "MATH": (
        "jsonl",
        [{"problem": Q[0], "level": "Level 3", "solution": "They are $\\boxed{2}$ and $\\boxed{-1}$."},
         {"problem": Q[1], "level": "Level 1", "solution": "It is $\\boxed 7$."}],
        {Q[0]: '["2", "-1"]', Q[1]: "7"},
        [],
    ),
    "GSM8K": ("jsonl", [{"question": Q[0], "answer": "So 2*3=<<2*3=6>>6.\n#### 70,000"}], {Q[0]: "70,000"}, []),
    "TRL": ("jsonl", [{"prompt": [{"role": "user", "content": Q[0]}], "solution": "$4$"}], {Q[0]: "4"}, []),
    "numbers": (
        "jsonl",
        [{"problem": Q[0], "answer": 4}, {"problem": Q[1], "answer": 0.8333333333333334},
         {"problem": Q[2], "answer": 1e22}],
        {Q[0]: "4", Q[1]: "0.833333333333333", Q[2]: "1" + "0" * 22},
        [],
    ),
    "lists": (
        "jsonl",
        [{"problem": Q[0], "answer": ["1", "2"]}, {"problem": Q[1], "answer": "1 or 2"},
         {"problem": Q[2], "answer": "[1, 2]"}],
        {Q[0]: '["1", "2"]', Q[1]: "1 or 2", Q[2]: "[1, 2]"},
        [],
    ),
}  # fmt: skip


def write(path: Path, kind: str, rows: list[Any]) -> Path:
    path = path.with_suffix(f".{kind}")
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        text = json.dumps(rows) if kind == "json" else "\n".join(json.dumps(row) for row in rows)
        path.write_text(text, encoding="utf-8")
    return path


def prepare(tmp_path: Path, kind: str, rows: list[Any], *options: str) -> Any:
    source = write(tmp_path / "rows", kind, rows)
    arguments = ("--data_source", "made", "--local_save_dir", tmp_path / "out", "--no_decontaminate", *options)
    assert command("generic", "--local_dataset_path", source, *arguments) == 0
    return result_of(tmp_path / "out", "made")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_layout_is_read_as_it_is(tmp_path, capsys, name) -> None:
    """A set is read by the names of its columns, and one of them means something else in this set."""
    kind, rows, truths, reasons = LAYOUTS[name]
    result = prepare(tmp_path, kind, rows)
    assert {row["extra_info"]["question"]: row["reward_model"]["ground_truth"] for row in result.rows} == truths
    assert sorted(entry["reason"] for entry in result.dropped) == sorted(reasons)
    assert "question from" in capsys.readouterr().out  # and a line says what was taken


def test_row_numbers_are_no_ids_and_other_values_there_are(tmp_path, capsys) -> None:
    """Two sets joined into one file repeat their row numbers, and the file is refused for it."""
    rows = [verl_row(Q[0], "1", 0), verl_row(Q[1], "2", 0)]
    assert len(prepare(tmp_path, "parquet", rows).rows) == 2
    source = write(tmp_path / "ids", "parquet", [verl_row(Q[0], "1", "u"), verl_row(Q[1], "2", "u")])
    arguments = ("--data_source", "made", "--local_save_dir", tmp_path / "out", "--no_decontaminate")
    assert command("generic", "--local_dataset_path", source, *arguments) == 2
    assert "'u' is shared by two different questions" in capsys.readouterr().err


def test_the_line_says_what_was_taken(tmp_path, capsys) -> None:
    prepare(tmp_path, *LAYOUTS["verl's GSM8K and MATH in one file"][:2])
    line = capsys.readouterr().out.splitlines()[0]
    assert line.endswith(
        "rows.jsonl: question from extra_info.question (else prompt), answer from reward_model.ground_truth, "
        "id from extra_info.index (unless it is a row number)"
    )


def test_rows_say_what_the_grader_needs(tmp_path) -> None:
    """A template asks for a box only, and the grader reads other markers; or it takes another base for a logarithm."""
    row = {"problem": Q[0], "answer": "4"}
    boxed = prepare(tmp_path, "jsonl", [row], "--log_base", "10")
    assert boxed.rows[0]["extra_info"]["answer_format"] == boxed.card["output"]["answer_format"] == "boxed"
    assert boxed.rows[0]["extra_info"]["log_base"] == boxed.card["output"]["log_base"] == "10"
    for template in ("dapo", "plain"):
        other = prepare(tmp_path, "jsonl", [row], "--template", template)
        assert other.rows[0]["extra_info"]["answer_format"] == "auto"
        assert other.rows[0]["extra_info"]["log_base"] == "e"
