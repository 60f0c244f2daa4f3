"""Worked examples as turns of the chat: order, form, and what is refused.

What goes wrong in general: an example that shows no answer teaches to give none; a problem that is an example has its
solution in its prompt; a system prompt that is said again before each example; a file that is not what it seems.

Not exercised: whether examples help a model.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.generic import SOURCE
from data_prep.preparation_command import run_training_set
from data_prep.prompt_shots import read_shots, with_shots
from data_prep.prompt_templates import QWEN_MATH_SYSTEM, load_template, wrap_dapo
from tests.examples import examples
from verl_ispo.user_error import UserError

SHOTS = [
    {"question": "2 + 2 = ?", "response": "2 + 2 = 4, so \\boxed{4}."},
    {"question": "3 * 5 = ?", "response": "3 * 5 = 15, so \\boxed{15}."},
]


def write(path: Path, shots: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(shot) + "\n" for shot in shots) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "shots.jsonl", SHOTS)


def test_examples_are_turns_between_the_system_prompt_and_the_question(file: Path) -> None:
    assert with_shots(load_template("qwen_math"), file).render("7 - 1 = ?") == [
        {"role": "system", "content": QWEN_MATH_SYSTEM},
        {"role": "user", "content": SHOTS[0]["question"]},
        {"role": "assistant", "content": SHOTS[0]["response"]},
        {"role": "user", "content": SHOTS[1]["question"]},
        {"role": "assistant", "content": SHOTS[1]["response"]},
        {"role": "user", "content": "7 - 1 = ?"},
    ]


def test_an_examples_question_is_rendered_as_any(file: Path) -> None:
    turns = with_shots(load_template("dapo"), file).render("7 - 1 = ?")
    assert [turn["content"] for turn in turns if turn["role"] == "user"] == [
        wrap_dapo(question) for question in (SHOTS[0]["question"], SHOTS[1]["question"], "7 - 1 = ?")
    ]


def test_the_examples_say_which_answer_counts(file: Path) -> None:
    assert load_template("plain").answer_format == "auto"
    assert with_shots(load_template("plain"), file).answer_format == "boxed"


@settings(max_examples=examples(100), deadline=None)
@given(shots=st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, max_size=4), question=st.text(min_size=1))
def test_any_text_is_kept_as_it_is(
    shots: list[tuple[str, str]], question: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    written = [{"question": asked, "response": f"{said} \\boxed{{1}}"} for asked, said in shots if asked.strip()]
    if not written or question.strip() in {shot["question"].strip() for shot in written}:
        return
    path = write(tmp_path_factory.mktemp("shots") / "shots.jsonl", written)
    turns = with_shots(load_template("plain"), path).render(question)
    assert [turn["content"] for turn in turns] == [
        *(text for shot in written for text in (shot["question"], shot["response"])),
        question,
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no example in it"),
        ("not json\n", "line 1: not a JSON object"),
        ('{"question": "1+1"}\n', r"line 1: .*question and response \('response'\)"),
        ('["1+1", "2"]\n', "line 1: not a JSON object"),
        ('{"question": " ", "response": "\\\\boxed{2}"}\n', "line 1: question and response have to be text"),
        ('{"question": "1+1", "response": 2}\n', "line 1: question and response have to be text"),
        ('{"question": "1+1", "response": "it is two"}\n', "line 1: its response gives no answer"),
    ],
)
def test_a_file_that_is_no_list_of_examples_is_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "shots.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_shots(path)


def test_a_missing_file_and_one_that_is_not_utf8_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.jsonl: no such file"):
        read_shots(tmp_path / "nowhere.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        read_shots(tmp_path / "bytes.jsonl")


def prepare(tmp_path: Path, file: Path, questions: list[str]) -> int:
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"question": one, "answer": "1"}) + "\n" for one in questions))
    command = ["--local_dataset_path", str(problems), "--data_source", "mine", "--local_save_dir", str(tmp_path)]
    return run_training_set(SOURCE, [*command, "--template", "plain", "--no_decontaminate", "--shots", str(file)])


def test_prepared_rows_have_them_and_the_card_says_so(tmp_path: Path, file: Path) -> None:
    assert prepare(tmp_path, file, ["What is 6 - 5?", "What is 9 - 8?"]) == 0
    rows = pd.read_parquet(tmp_path / "mine.parquet")
    assert [len(prompt) for prompt in rows["prompt"]] == [5, 5]
    assert rows["extra_info"][0]["question"] == "What is 6 - 5?"
    assert rows["extra_info"][0]["answer_format"] == "boxed"
    [card] = tmp_path.glob("mine*.json")
    assert '"shots": 2' in card.read_text()


def test_a_problem_that_is_an_example_is_refused(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(tmp_path, file, ["What is 6 - 5?", SHOTS[1]["question"]]) == 2
    assert "is one of its examples, so its prompt would hold the solution: 3 * 5 = ?" in capsys.readouterr().err
    assert not (tmp_path / "mine.parquet").exists()
