"""Data files and scorers: what would stop verl is a PROBLEM that names file, row or data source, and the remedy.

verl's own scorer is the reference for what it knows. Not exercised: files on HDFS or S3, custom data set classes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from verl.utils.reward_score import default_compute_score

from tests.preflight.set_ups import (
    BOXED_PROMPT,
    OUR_GRADER,
    data_settings,
    math_row,
    problems,
    with_settings,
    write_rows,
)
from verl_ispo.answers.answer_place import ANSWER_LINE, BOXED, HASHES
from verl_ispo.preflight.data_files import check_data, read_sample, training_rows
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding
from verl_ispo.preflight.scorer import (
    asked_formats,
    check_custom_function,
    check_scorer,
    default_scorer_formats,
    default_scorer_knows,
)

TRAIN = "data.train_files"


def of_file(path: Path | str) -> list[Finding]:
    config = with_settings([f"{TRAIN}={path}", "data.train_batch_size=1"])
    return [finding for finding in check_data(config) if finding.subject == TRAIN]


def test_a_sound_file(tmp_path):
    findings = of_file(write_rows(tmp_path / "a.parquet", [math_row()] * 20))
    assert [finding.level for finding in findings] == [OK]
    assert "20 rows" in findings[0].text


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (
            {"prompt": math_row()["prompt"]},
            ("no column data_source, reward_model", "it has prompt", "data_prep.generic"),
        ),
        (math_row(prompt="What is 6 times 7?"), ("row 0", "prompt is str", "role and content")),
        (math_row(prompt=[{"text": "What is 6 times 7?"}]), ("row 0", "without role and content")),
        (math_row(prompt=[]), ("row 0", "is empty")),
        (math_row(reward_model={"style": "rule"}), ("row 0", "reward_model has no ground_truth")),
    ],
)
def test_rows_that_verl_cannot_use(tmp_path, row, named):
    findings = of_file(write_rows(tmp_path / "a.parquet", [row]))
    assert [finding.level for finding in findings] == [PROBLEM]
    for part in named:
        assert part in findings[0].text


def test_another_prompt_column_is_looked_for_where_the_config_says(tmp_path):
    row = math_row()
    row["messages"] = row.pop("prompt")
    file = write_rows(tmp_path / "a.parquet", [row] * 2)
    config = with_settings([f"{TRAIN}={file}", f"data.val_files={file}", "data.train_batch_size=1"])
    assert "no column prompt" in problems(check_data(config))[TRAIN]
    assert problems(check_data(with_settings(["data.prompt_key=messages"], config))) == {}


def test_files_that_are_not_what_they_seem(tmp_path):
    (tmp_path / "a.parquet").write_text("not parquet")
    (tmp_path / "b.txt").touch()
    (tmp_path / "c.jsonl").write_text("{broken")
    write_rows(tmp_path / "empty.parquet", [math_row()])
    for path, named in (
        (tmp_path / "nowhere.parquet", "nowhere.parquet does not exist"),
        (tmp_path / "a.parquet", "not readable as parquet"),
        (tmp_path / "b.txt", ".parquet, .json and .jsonl"),
        (tmp_path / "c.jsonl", "not readable as jsonl"),
        (tmp_path, "is a folder"),
    ):
        findings = of_file(path)
        assert [finding.level for finding in findings] == [PROBLEM]
        assert named in findings[0].text


@pytest.mark.parametrize("name", ["hdfs://cluster/a.parquet", "data/part-*.parquet", "~/data/rlhf/gsm8k/train.parquet"])
def test_what_cannot_be_looked_into_is_a_note(name):
    assert [finding.level for finding in of_file(name)] == [NOTE]


def test_jsonl_and_lists_of_files(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(math_row()) for _ in range(3)))
    assert read_sample(tmp_path / "a.jsonl").rows == (math_row(),) * 3
    write_rows(tmp_path / "b.parquet", [math_row()] * 30)
    findings = of_file(f"[{tmp_path}/a.jsonl,{tmp_path}/b.parquet,{tmp_path}/c.parquet]")
    assert [finding.level for finding in findings] == [OK, OK, PROBLEM]


def test_only_the_beginning_is_read(tmp_path):
    sample = read_sample(write_rows(tmp_path / "a.parquet", [math_row()] * 1000))
    assert (len(sample.rows), sample.total) == (8, 1000)


def test_rows_of_a_pass(tmp_path):
    config = with_settings(data_settings(tmp_path))
    assert training_rows(config) == 600
    assert training_rows(with_settings(["data.train_max_samples=100"], config)) == 100
    assert training_rows(with_settings([f"{TRAIN}=/nowhere.parquet"], config)) is None


def test_long_prompts_are_said_to_be_cut_whatever_truncation_says():
    notes = [finding for finding in check_data(with_settings([])) if finding.subject == "data.filter_overlong_prompts"]
    assert [finding.level for finding in notes] == [NOTE]
    assert "data.truncation=error does not change that" in notes[0].text


def scorer(tmp_path: Path, rows: list[dict], *settings: str) -> list[Finding]:
    return list(check_scorer(with_settings((*data_settings(tmp_path, rows), *settings))))


def asking(text: str, source: str = "math_dapo") -> dict:
    return math_row(source, [{"role": "system", "content": "You are kind."}, {"role": "user", "content": text}])


DAPO = "What is 6 times 7? Remember to put your answer on its own line after 'Answer:'."
GSM8K = 'What is 6 times 7? Let\'s think step by step and output the final answer after "####".'
R1_ZERO = "What is 6 times 7? Return the final answer in <answer> </answer> tags."
MINERVA = 'What is 6 times 7? End with "The final answer is $5$. I hope it is correct."'
GRADER_FORMAT = "reward.custom_reward_function.reward_kwargs.answer_format"


def test_an_unknown_data_source_is_the_wrong_scorer(tmp_path):
    found = problems(scorer(tmp_path, [math_row("deepmath")]))
    assert set(found) == {TRAIN, "data.val_files"}
    assert "wrong scorer" in found[TRAIN]
    assert "'deepmath'" in found[TRAIN]
    assert OUR_GRADER[0] in found[TRAIN]
    assert problems(scorer(tmp_path, [math_row("deepmath")], *OUR_GRADER)) == {}


@pytest.mark.parametrize(
    ("row", "reads"),
    [
        (asking(DAPO, "lighteval/MATH"), BOXED.description),
        (asking(BOXED_PROMPT, "openai/gsm8k"), "####"),
    ],
)
def test_a_template_that_does_not_fit_the_scorer(tmp_path, row, reads):
    found = problems(scorer(tmp_path, [row]))
    assert "wrong scorer" in found[TRAIN]
    assert reads in found[TRAIN]


@pytest.mark.parametrize(
    ("text", "chosen", "fits"),
    [
        (BOXED_PROMPT, "auto", True),
        (DAPO, "auto", True),
        (BOXED_PROMPT, "boxed", True),
        (BOXED_PROMPT, "answer_line", False),
        (DAPO, "answer_line", True),
        (DAPO, "boxed", False),
        (f"{DAPO} {BOXED_PROMPT}", "boxed", True),
        (GSM8K, "auto", True),
        (GSM8K, "hashes", True),
        (GSM8K, "boxed", False),
        (GSM8K, "boxed+hashes", True),
        (R1_ZERO, "auto", True),
        (R1_ZERO, "boxed", False),
        (MINERVA, "auto", True),
        (MINERVA, "boxed+hashes", False),
    ],
)
def test_the_template_against_ispos_answer_format(tmp_path, text, chosen, fits):
    settings = (*OUR_GRADER, f"algorithm.ispo.answer_format={chosen}", f"{GRADER_FORMAT}={chosen}")
    findings = scorer(tmp_path, [asking(text)], *settings)
    found = problems(findings)
    assert ("algorithm.ispo.answer_format" not in found) == fits
    if not fits:
        assert chosen in found["algorithm.ispo.answer_format"]
        assert "answer_format=auto" in found["algorithm.ispo.answer_format"]
    assert (GRADER_FORMAT in found) == (not fits)


def test_the_grader_looks_where_ispo_does(tmp_path):
    found = problems(scorer(tmp_path, [asking(BOXED_PROMPT)], *OUR_GRADER, "algorithm.ispo.answer_format=boxed"))
    assert f"+{GRADER_FORMAT}=boxed" in found[GRADER_FORMAT]


def test_what_a_row_says_about_its_answers_counts(tmp_path):
    """A file prepared with a box-only template, whose prompts were changed afterwards to ask for something else."""
    row = asking(GSM8K) | {"extra_info": {"answer_format": "boxed"}}
    found = problems(scorer(tmp_path, [row], *OUR_GRADER))
    assert "extra_info.answer_format" in found["algorithm.ispo.answer_format"]
    assert "answer_format=hashes" in found["algorithm.ispo.answer_format"]
    row = asking(BOXED_PROMPT) | {"extra_info": {"answer_format": "boxed"}}
    assert problems(scorer(tmp_path, [row], *OUR_GRADER)) == {}
    row = asking(BOXED_PROMPT) | {"extra_info": {"answer_format": "box"}}
    assert "answer_format is 'box'" in problems(scorer(tmp_path, [row], *OUR_GRADER))["algorithm.ispo.answer_format"]


def test_the_template_does_not_matter_without_signals(tmp_path):
    settings = ("algorithm.adv_estimator=grpo", "trainer.v1.ispo.watch_signals=false")
    assert problems(scorer(tmp_path, [asking(GSM8K, "openai/gsm8k")], *settings)) == {}


def test_a_prompt_that_asks_for_no_format_is_a_note(tmp_path):
    findings = scorer(tmp_path, [asking("What is 6 times 7?")], *OUR_GRADER)
    assert problems(findings) == {}
    assert any(finding.level == NOTE and "do not say how" in finding.text for finding in findings)


def test_asked_formats_are_read_from_all_messages():
    assert asked_formats([{"role": "system", "content": BOXED_PROMPT}, {"role": "user", "content": "6 x 7"}]) == {BOXED}
    assert asked_formats([{"role": "user", "content": DAPO}]) == {ANSWER_LINE}
    assert asked_formats("6 x 7") == set()


def test_what_is_known_of_verls_scorers_is_what_they_do():
    """Each format that we say a scorer reads is accepted by it, and the others are not."""
    responses = {BOXED: r"So it is $\boxed{42}$.", ANSWER_LINE: "So it is\nAnswer: 42", HASHES: "#### 42"}
    for source in ("openai/gsm8k", "lighteval/MATH", "math_dapo", "aime2024"):
        for marker, response in responses.items():
            result = default_compute_score(source, response, "42")
            correct = result["acc"] if isinstance(result, dict) else result == 1.0
            assert correct == (marker in default_scorer_formats(source)), (source, marker.name)
    assert default_scorer_knows("openai/gsm8k")
    assert not default_scorer_knows("deepmath")


def test_custom_functions_are_found_without_running_them(tmp_path):
    file = tmp_path / "reward.py"
    file.write_text(
        "raise SystemExit\nif True:\n    from math import sqrt as grade\ndef compute_score(**_): return 1.0\n"
    )
    for name in ("compute_score", "grade"):
        assert [finding.level for finding in check_custom_function(str(file), name)] == [OK]
        assert [finding.level for finding in check_custom_function(f"file://{file}", name)] == [OK]
    assert "has no score" in next(check_custom_function(str(file), "score")).text
    assert [finding.level for finding in check_custom_function(str(file), None)] == [PROBLEM]
    file.write_text("from math import *\n")
    assert [finding.level for finding in check_custom_function(str(file), "sqrt")] == [NOTE]
    file.write_text("def compute_score(:\n")
    assert "not Python" in next(check_custom_function(str(file), "compute_score")).text
    assert [
        finding.level for finding in check_custom_function("pkg://verl_ispo/tiny_task/reward", "compute_score")
    ] == [OK]
