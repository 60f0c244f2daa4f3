r"""Training sets: what is dropped, what stays, and that the numbers add up.

Derivation. Rows are planted: copies, spellings of one question, a question with two answers, answers that cannot be
checked, questions out of a benchmark. Each has to be found, and the untouched rows have to survive. Since each row is
dropped for exactly one reason, ``read = written + everything dropped`` holds for any input. Which questions are kept
may not depend on the order of the rows (which copy of a question is kept does: the first).

Not exercised: whether the default thresholds are the best ones; they are stated, not tuned.
"""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_problems import (
    BENCHMARKS,
    PAPER_BENCHMARKS,
    command,
    made_benchmark,
    made_rows,
    problem,
    result_of,
    write_jsonl,
)

from data_prep.prompt_templates import wrap_dapo
from data_prep.reading import MAX_QUESTION_CHARS
from tests.examples import examples


def respelled(question: str) -> str:
    return question.replace("$x_{", "\\(  x_{").replace("}$", "}\\)").replace(" the ", "  THE ").rstrip(".")


def test_copies_and_spellings_are_dropped_and_the_first_stays(prepare):
    rows = made_rows(5)
    planted = [rows[2], rows[2], rows[4], rows[0] | {"question": respelled(rows[0]["question"])}]
    result = prepare([*rows, *planted])
    assert result.questions == [row["question"] for row in rows]
    assert result.card["rows"]["dropped: exact duplicate"] == 3
    assert result.card["rows"]["dropped: normalised duplicate"] == 1


def test_one_question_with_two_answers_goes_with_every_copy(prepare):
    rows = made_rows(4)
    conflict = {"question": respelled(rows[1]["question"]), "answer": "1000"}
    result = prepare([*rows, rows[1], conflict, conflict | {"answer": "1001"}])
    assert result.questions == [rows[0]["question"], rows[2]["question"], rows[3]["question"]]
    (entry,) = result.dropped
    assert (entry["reason"], entry["answers"]) == ("conflicting answers", ["1", "1000", "1001"])
    assert result.card["deduplication"]["conflicting_questions"] == 1
    kept = prepare([*rows, rows[1], conflict], "--conflicts", "keep_first")
    assert kept.questions == [row["question"] for row in rows]
    assert kept.card["rows"]["dropped: another copy with a conflicting answer"] == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("27", "27.0"),
        ("27", "$27$"),
        ("025", "25"),
        ("\\frac{1}{2}", "1/2"),
        ("1,000", "1000"),
        ("(1, 2)", "\\left(1,2\\right)"),
        (["1", "2"], ["2", "1"]),
    ],
)
def test_spellings_of_one_answer_are_no_conflict(prepare, one, other):
    rows = [{"question": problem(1), "answer": one}, {"question": problem(1), "answer": other}]
    assert prepare(rows).card["rows"]["dropped: normalised duplicate"] == 1


def test_rows_without_a_checkable_answer_are_dropped_and_listed(prepare):
    unusable = [None, "", "proof", "n/a", "1" * 2000]
    planted = [{"question": problem(100 + number), "answer": answer} for number, answer in enumerate(unusable)]
    no_question = [{"question": "", "answer": "3"}, {"question": None, "answer": "4"}]
    result = prepare([*made_rows(3), *planted, *no_question])
    assert len(result.rows) == 3
    assert [entry["reason"].partition(":")[0] for entry in result.dropped] == ["uncheckable answer"] * 5 + [
        "no question"
    ] * 2
    assert [entry["row"] for entry in result.dropped] == list(range(4, 11))


def test_a_question_of_a_million_characters_is_dropped_and_counted(prepare):
    result = prepare([{"question": "long " * 200_000, "answer": "1"}, *made_rows(2)])
    assert len(result.rows) == 2
    assert result.card["rows"][f"dropped: question over {MAX_QUESTION_CHARS} characters"] == 1
    assert len(result.dropped[0]["question"]) <= 2000


def test_unwrapped_and_bare_questions_are_counted(prepare):
    rows = made_rows(3)
    rows[0]["question"] = wrap_dapo(rows[0]["question"])
    rows.append({"question": wrap_dapo(rows[1]["question"]), "answer": rows[1]["answer"]})
    result = prepare(rows)
    assert result.questions == [problem(number) for number in range(3)]
    assert result.card["wrapping"] == {"wrapped_in_dapo_text": 2, "kept_as_it_was": 2}
    assert result.card["notes"][0].startswith("2 questions were not wrapped")


def test_dapo_math_unwraps_and_takes_another_template(tmp_path):
    rows = [
        {
            "data_source": "math_dapo",
            "prompt": [{"content": wrap_dapo(problem(number)), "role": "user"}],
            "ability": "MATH",
            "reward_model": {"ground_truth": str(number), "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": f"uuid-{number}"},
        }
        for number in range(10)
    ]
    source = write_jsonl(tmp_path / "dapo.jsonl", rows * 7)
    arguments = ["--local_dataset_path", source, "--local_save_dir", tmp_path, "--no_decontaminate"]
    assert command("dapo_math", *arguments, "--template", "plain") == 0
    result = result_of(tmp_path, "dapo_math")
    assert [row["prompt"] for row in result.rows] == [[{"role": "user", "content": problem(n)}] for n in range(10)]
    assert result.card["rows"]["dropped: exact duplicate"] == 60
    assert {row["data_source"] for row in result.rows} == {"dapo_math"}
    assert command("dapo_math", *arguments, "--template", "dapo") == 0
    wrapped = [row["prompt"][0]["content"] for row in result_of(tmp_path, "dapo_math").rows]
    assert wrapped == [wrap_dapo(problem(number)) for number in range(10)]


ROW = st.tuples(st.integers(0, 12), st.booleans(), st.sampled_from(["1", "2", "proof"]))


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, max_size=30), seed=st.integers(0, 1000))
def test_what_stays_does_not_depend_on_the_order_and_the_counts_add_up(prepare, rows, seed):
    rows = [{"question": problem(n) if plain else respelled(problem(n)), "answer": a} for n, plain, a in rows]
    rows.append({"question": problem(99), "answer": "7"})
    first = prepare(rows)
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    second = prepare(shuffled)

    def ids(result):
        return {row["extra_info"]["id"]: row["reward_model"]["ground_truth"] for row in result.rows}

    assert ids(first) == ids(second)
    answers = {}
    for row in rows:
        if row["answer"] != "proof":
            answers.setdefault(row["question"].lower().split()[1], set()).add(row["answer"])
    assert len(first.rows) == sum(len(found) == 1 for found in answers.values())
    for result in (first, second):
        counts = dict(result.card["rows"])
        assert counts.pop("read") == len(rows)
        assert counts.pop("written") == len(result.rows)
        assert sum(counts.values()) == len(rows) - len(result.rows)


def test_contaminated_rows_are_dropped_and_listed_with_the_problem(prepare, tmp_path):
    benchmark = write_jsonl(
        tmp_path / "aime24.jsonl", [{"problem": problem(500 + n), "answer": "1"} for n in range(30)]
    )
    planted = [
        problem(501),
        "A friend asks: " + respelled(problem(517)) + " Answer with a number.",
        wrap_dapo(problem(529)),
    ]
    rows = made_rows(20)
    mixed = [*rows[:7], *({"question": question, "answer": "9"} for question in planted), *rows[7:]]
    result = prepare(mixed, "--decontaminate_against", benchmark, decontaminate=True)
    assert result.questions == [row["question"] for row in rows]
    assert [entry["row"] for entry in result.dropped] == [8, 9, 10]
    assert [entry["benchmark_question"] for entry in result.dropped] == [problem(501), problem(517), problem(529)]
    assert {(entry["reason"], entry["benchmark"]) for entry in result.dropped} == {("contaminated", "aime24")}
    assert all(len(entry["shared_words"].split()) == 13 for entry in result.dropped)
    assert result.card["rows"]["dropped: contaminated: aime24"] == 3
    assert result.card["decontamination"]["missing_benchmarks"] == ["aime25", "amc23", "math500", "olympiadbench"]
    assert "NOT decontaminated against aime25" in result.card["notes"][-1]


def test_benchmarks_prepared_in_the_output_folder_are_used(prepare, tmp_path):
    for name in BENCHMARKS:
        source = made_benchmark(name, tmp_path / f"{name}.jsonl", first=1000)
        assert command(name, "--local_dataset_path", source, "--local_save_dir", tmp_path / "out") == 0
    result = prepare(made_rows(30, first=990), decontaminate=True)
    assert result.questions == [problem(number) for number in range(990, 1000)]
    found = result.card["decontamination"]
    assert {entry["name"]: entry["questions"] for entry in found["benchmarks"]} == BENCHMARKS
    assert found["missing_benchmarks"] == []
    assert not result.card["notes"]


def test_no_benchmark_at_all_is_an_error_unless_wanted(tmp_path, capsys):
    source = write_jsonl(tmp_path / "data.jsonl", made_rows(3))
    arguments = ["--local_dataset_path", source, "--data_source", "made", "--local_save_dir", tmp_path / "out"]
    assert command("generic", *arguments) == 2
    message = capsys.readouterr().err
    assert "no benchmark to decontaminate against" in message
    assert "--no_decontaminate" in message
    assert command("generic", *arguments, "--no_decontaminate") == 0
    assert "not decontaminated" in capsys.readouterr().err
    assert result_of(tmp_path / "out", "made").card["notes"][0].startswith("NOT decontaminated against aime24")


def test_near_duplicates_are_reported_and_dropped_only_on_request(prepare):
    rows = made_rows(6)
    words = rows[3]["question"].split()
    near = {"question": " ".join([*words[:-1], "again", words[-1]]), "answer": "3"}
    other_answer = {"question": rows[4]["question"] + " Please.", "answer": "777"}
    result = prepare([*rows, near, other_answer])
    assert len(result.rows) == 8
    assert [(pair["first"]["row"], pair["second"]["row"], pair["same_answer"]) for pair in result.near_duplicates] == [
        (4, 7, True),
        (5, 8, False),
    ]
    assert all(pair["similarity"] >= 0.8 for pair in result.near_duplicates)
    assert result.card["near_duplicates"]["pairs"] == 2
    dropped = prepare([*rows, near, other_answer], "--drop_near_duplicates")
    assert dropped.questions == [*(row["question"] for row in rows), other_answer["question"]]
    assert dropped.card["rows"]["dropped: near duplicate with the same answer"] == 1


def test_a_search_for_near_duplicates_that_was_cut_short_says_so(prepare, monkeypatch):
    monkeypatch.setattr("data_prep.near_duplicates.MAX_CANDIDATE_PAIRS", 3)
    rows = made_rows(10, first=10)
    near = [{"question": row["question"] + " again", "answer": row["answer"]} for row in rows]
    result = prepare([*rows, *near])
    assert result.card["near_duplicates"]["search_complete"] is False
    assert len(result.near_duplicates) == 3
    assert "not complete" in result.card["notes"][-1]


def test_long_prompts_are_dropped_by_tokens(prepare, tokenizer_path):
    rows = [*made_rows(3), {"question": problem(7) + " and so on" * 100, "answer": "1"}]
    options = ["--tokenizer", tokenizer_path, "--template", "plain"]
    result = prepare(rows, *options, "--max_prompt_tokens", 600)
    assert len(result.rows) == 3
    assert result.card["rows"]["dropped: prompt too long"] == 1
    # One token per byte, and the chat template around it.
    expected = [len(f"user: {question}\nassistant:".encode()) for question in result.questions]
    lengths = result.card["lengths"]["prompt_tokens"]
    assert (lengths["min"], lengths["max"]) == (min(expected), max(expected))
    unlimited = prepare(rows, *options)
    assert len(unlimited.rows) == 4
    assert unlimited.card["lengths"]["prompt_tokens"]["max"] > 1000


def test_the_card_reads_well(prepare):
    result = prepare([*made_rows(3), {"question": problem(0) + " |x| <b>", "answer": "1"}])
    text = (result.folder / "made.card.md").read_text(encoding="utf-8")
    assert "4 rows in `made.parquet`" in text
    assert result.card["output"]["sha256"] in text
    assert "| read | 4 |" in text
    assert result.card["lengths"]["question_chars"]["max"] == max(map(len, result.questions))
    assert result.card["versions"]["pyarrow"]
    assert "NaN" not in json.dumps(result.card)


def test_the_real_training_file(real_data, tmp_path):
    for name in PAPER_BENCHMARKS:
        assert command(name, "--local_dataset_path", real_data / f"{name}.jsonl", "--local_save_dir", tmp_path) == 0
    arguments = ["--data_source", "deepmath", "--local_save_dir", tmp_path]
    assert command("generic", "--local_dataset_path", real_data / "deepmath_5k.jsonl", *arguments) == 0
    result = result_of(tmp_path, "deepmath")
    assert result.card["rows"]["read"] == 4994
    assert result.card["rows"]["dropped: exact duplicate"] == 4
    assert 4900 < len(result.rows) < 4990
    assert {entry["reason"] for entry in result.dropped} == {"contaminated", "key fails on the grader"}
