r"""The benchmarks: every problem once, the published count, answers that a grader can use.

Derivation. A benchmark's score means something only if it has the published number of problems; so the count is
checked, copies are removed (verl's AIME 2024 repeats each problem 32 times), and anything else is an error. What is
special about each publication is made here in small: leading zeros and one incorrect key (AIME), floats (AMC), lists,
several answers, units and tolerances (OlympiadBench), LaTeX (HMMT, BRUMO). The paper's real files are checked where
they are available.

Not exercised: the hub's copies themselves.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_problems import (
    BENCHMARKS,
    PAPER_BENCHMARKS,
    command,
    made_benchmark,
    olympiad_rows,
    problem,
    result_of,
    write_jsonl,
)

from data_prep.prompt_templates import QWEN_MATH_SYSTEM, wrap_dapo
from data_prep.schema import OUTPUT_SCHEMA
from verl_ispo.grading import compute_score

PROBLEM_12 = (
    "Define $f(x)=|| x|-\\tfrac{1}{2}|$ and $g(x)=|| x|-\\tfrac{1}{4}|$. Find the number of intersections of the "
    "graphs of \\[y=4 g(f(\\sin (2 \\pi x))) \\quad\\text{ and }\\quad x=4 g(f(\\cos (3 \\pi y))).\\]"
)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_the_same_schema_and_its_count(tmp_path, name):
    source = made_benchmark(name, tmp_path / "data.jsonl")
    assert command(name, "--local_dataset_path", source, "--local_save_dir", tmp_path) == 0
    assert pq.read_schema(tmp_path / f"{name}.parquet").equals(OUTPUT_SCHEMA)
    result = result_of(tmp_path, name)
    assert len(result.rows) == BENCHMARKS[name] == result.card["rows"]["written"]
    assert [row["extra_info"]["index"] for row in result.rows] == list(range(BENCHMARKS[name]))
    assert len({row["extra_info"]["id"] for row in result.rows}) == BENCHMARKS[name]
    for row in result.rows:
        assert (row["data_source"], row["ability"], row["extra_info"]["split"]) == (name, "math", "test")
        assert row["reward_model"]["style"] == "rule"
        assert row["prompt"] == [
            {"role": "system", "content": QWEN_MATH_SYSTEM},
            {"role": "user", "content": row["extra_info"]["question"]},
        ]
        assert not any(row["extra_info"][key] for key in ("unit", "tolerance", "multiple_answers"))


def test_training_sets_have_that_schema_too(prepare, tmp_path):
    prepare([{"question": problem(1), "answer": "1"}])
    assert pq.read_schema(tmp_path / "out" / "made.parquet").equals(OUTPUT_SCHEMA)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_count_is_an_error_unless_accepted(tmp_path, capsys, change):
    rows = [{"problem": problem(number), "answer": str(number)} for number in range(30 + change)]
    source = write_jsonl(tmp_path / "data.jsonl", rows)
    arguments = ["--local_dataset_path", source, "--local_save_dir", tmp_path / "out"]
    assert command("aime25", *arguments) == 2
    message = capsys.readouterr().err
    assert f"{30 + change} problems where aime25 has 30" in message
    assert "--allow_count_mismatch" in message
    assert not list((tmp_path / "out").glob("aime25*"))
    assert command("aime25", *arguments, "--allow_count_mismatch") == 0
    assert "INCOMPLETE OR DIFFERENT SET" in result_of(tmp_path / "out", "aime25").card["notes"][0]


def test_verl_s_copy_of_aime24_is_taken_once(tmp_path):
    once = [
        {
            "data_source": "math_dapo",
            "prompt": [{"content": wrap_dapo(problem(number)), "role": "user"}],
            "reward_model": {"ground_truth": str(number), "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": number, "raw_problem": problem(number)},
        }
        for number in range(30)
    ]
    pq.write_table(pa.Table.from_pylist(once * 32), tmp_path / "aime-2024.parquet")
    source = tmp_path / "aime-2024.parquet"
    assert command("aime24", "--local_dataset_path", source, "--local_save_dir", tmp_path / "out") == 0
    result = result_of(tmp_path / "out", "aime24")
    assert result.questions == [problem(number) for number in range(30)]
    assert result.card["rows"] == {
        "read": 960,
        "dropped: outside the benchmark": 0,
        "dropped: repeated copy": 930,
        "written": 30,
    }
    assert "930 repeated copies" in result.card["notes"][0]


@pytest.mark.parametrize(
    ("question", "answer", "written", "noted"),
    [
        (PROBLEM_12, "384", "385", True),
        (PROBLEM_12.replace("\\[", "$$").replace("\\]", "$$"), 384, "385", True),
        (PROBLEM_12, "385", "385", False),
        (problem(0), "384", "384", False),
    ],
)
def test_the_wrong_key_of_aime_2024_is_corrected_for_its_problem_only(tmp_path, question, answer, written, noted):
    rows = [{"problem": problem(number), "answer": str(number)} for number in range(1, 30)]
    source = write_jsonl(tmp_path / "data.jsonl", [*rows, {"problem": question, "answer": answer}])
    assert command("aime24", "--local_dataset_path", source, "--local_save_dir", tmp_path) == 0
    result = result_of(tmp_path, "aime24")
    assert result.rows[-1]["reward_model"]["ground_truth"] == written
    assert any("384 is wrong" in note for note in result.card["notes"]) == noted


def test_leading_zeros_and_empty_decimals_go_with_a_note(tmp_path):
    rows = [{"problem": problem(number), "answer": f"{number:03d}"} for number in range(30)]
    source = write_jsonl(tmp_path / "aime.jsonl", rows)
    assert command("aime25", "--local_dataset_path", source, "--local_save_dir", tmp_path) == 0
    result = result_of(tmp_path, "aime25")
    assert [row["reward_model"]["ground_truth"] for row in result.rows] == [str(number) for number in range(30)]
    assert result.card["notes"] == ["Leading zeros of an answer were removed. (30 rows)"]
    answers = [27.0, "27.0", "-1.0", "0.5", *map(str, range(36))]
    rows = [{"question": problem(number), "answer": answer} for number, answer in enumerate(answers)]
    source = write_jsonl(tmp_path / "amc.jsonl", rows)
    assert command("amc23", "--local_dataset_path", source, "--local_save_dir", tmp_path) == 0
    result = result_of(tmp_path, "amc23")
    written = [row["reward_model"]["ground_truth"] for row in result.rows]
    assert written[:4] == ["27", "27", "-1", "0.5"]
    assert result.card["answer_types"] == {"integer": 39, "decimal": 1}


def test_olympiadbench_keeps_several_answers_units_and_tolerances(tmp_path):
    rows = olympiad_rows(675)
    rows[0] |= {"final_answer": ["$(1,8), (2,7)$"], "is_multiple_answer": True, "answer_type": "Tuple"}
    rows[1] |= {"final_answer": "['$69$,$84$']", "is_multiple_answer": True}
    rows[2] |= {"final_answer": ["4.2"], "error": "1e-1", "unit": "%"}
    rows[3] |= {"final_answer": ["(-1,2)"], "answer_type": "Interval"}
    source = write_jsonl(tmp_path / "data.jsonl", rows)
    assert command("olympiadbench", "--local_dataset_path", source, "--local_save_dir", tmp_path) == 0
    written = result_of(tmp_path, "olympiadbench").rows
    several, numbers, percent, interval, plain = written[:5]
    assert json.loads(several["reward_model"]["ground_truth"]) == ["(1,8)", "(2,7)"]
    assert several["extra_info"]["multiple_answers"]
    assert json.loads(numbers["reward_model"]["ground_truth"]) == ["69", "84"]
    assert (percent["extra_info"]["unit"], percent["extra_info"]["tolerance"]) == ("%", "1e-1")
    assert interval["extra_info"]["answer_type"] == "interval"
    assert (plain["reward_model"]["ground_truth"], plain["extra_info"]["multiple_answers"]) == ("4", False)


def test_olympiadbench_is_picked_out_of_the_full_set(tmp_path):
    labels = {"language": "English", "subject": "Math", "modality": "Text-only", "question_type": "Open-ended"}
    others = [
        {"language": "Chinese"},
        {"subject": "Physics"},
        {"modality": "Multimodal"},
        {"question_type": "Theorem proof"},
    ]
    rows = [row | labels for row in olympiad_rows(679)]
    for row, other in zip(rows, others, strict=False):
        row |= other
    source = write_jsonl(tmp_path / "data.jsonl", rows)
    assert command("olympiadbench", "--local_dataset_path", source, "--local_save_dir", tmp_path) == 0
    result = result_of(tmp_path, "olympiadbench")
    assert result.questions == [row["question"] for row in rows[4:]]
    assert result.card["rows"]["dropped: outside the benchmark"] == 4


def test_the_later_contests_come_as_matharena_publishes_them(tmp_path):
    """Parquet with a whole number or LaTeX as the answer; several solutions stand in one text, in any order."""
    answers = ["\\frac{-1+\\sqrt{17}}{2}, \\frac{-1-\\sqrt{17}}{2}", "2^{25} \\cdot 26!", *map(str, range(28))]
    rows = [
        {"problem_idx": number, "answer": answer, "problem_type": ["Algebra"], "problem": problem(number)}
        for number, answer in enumerate(answers)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train-00000-of-00001.parquet")
    source = tmp_path / "train-00000-of-00001.parquet"
    assert command("hmmt_feb25", "--local_dataset_path", source, "--local_save_dir", tmp_path) == 0
    result = result_of(tmp_path, "hmmt_feb25")
    assert [row["reward_model"]["ground_truth"] for row in result.rows] == answers
    assert not any("FAILS" in note for note in result.card["notes"])
    for response, correct in (
        (r"\frac{-1-\sqrt{17}}{2}, \frac{-1+\sqrt{17}}{2}", True),
        (r"\frac{-1+\sqrt{17}}{2}", False),
    ):
        row = result.rows[0]
        graded = compute_score(
            row["data_source"], f"\\boxed{{{response}}}", row["reward_model"]["ground_truth"], row["extra_info"]
        )
        assert graded["acc"] == correct


@pytest.mark.parametrize("name", PAPER_BENCHMARKS)
def test_the_real_files(real_data, tmp_path, name):
    source = real_data / f"{name}.jsonl"
    assert command(name, "--local_dataset_path", source, "--local_save_dir", tmp_path) == 0
    result = result_of(tmp_path, name)
    assert len(result.rows) == BENCHMARKS[name]
    assert result.card["rows"]["dropped: repeated copy"] == 0
    for row in result.rows:
        truth = row["reward_model"]["ground_truth"]
        assert truth
        assert not truth.endswith(".0")
        if row["extra_info"]["multiple_answers"]:
            answers = json.loads(truth)
            assert answers
            assert all(isinstance(answer, str) and answer for answer in answers)
    if name == "aime24":
        (answer,) = [
            row["reward_model"]["ground_truth"] for row in result.rows if "3 \\pi y" in row["extra_info"]["question"]
        ]
        assert answer == "385"
    if name == "olympiadbench":
        assert sum(row["extra_info"]["multiple_answers"] for row in result.rows) == 94
        assert [row["extra_info"]["tolerance"] for row in result.rows if row["extra_info"]["tolerance"]] == ["1e-1"]
        assert sum(bool(row["extra_info"]["unit"]) for row in result.rows) == 8
