"""What `verl-ispo eval` reads, and what it refuses before anything is sampled.

- Benchmark files: missing, not parquet, empty, without columns, without ground truths, one problem twice.
- Reward functions: from a module or a file; no verdict, NaN, an exception, a ground truth that cannot be graded.
- Checkpoints: which folder, step and rule, by the file layout alone (a real merge is in ``test_checkpoints.py``).
- Options that make no sense.

Every refusal must name the value and where it is.

Not exercised: a model id of the hub (needs a network); only that an unreachable one is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.evaluation.conftest import arithmetic_row
from verl_ispo.evaluation.grader import Grader
from verl_ispo.evaluation.model_folder import LATEST_STEP_FILE, model_digest, resolve_checkpoint
from verl_ispo.evaluation.questions import Question, questions_digest, read_questions
from verl_ispo.evaluation.run import EvaluationOptions, evaluate
from verl_ispo.user_error import UserError

WriteBenchmark = Callable[..., Path]


def test_a_benchmark_is_read_with_its_ids(write_benchmark: WriteBenchmark):
    questions = read_questions([write_benchmark([arithmetic_row(3, unit="m"), arithmetic_row(4, unit="m")])])
    assert [question.question_id for question in questions] == ["sums-3", "sums-4"]
    assert questions[0].ground_truth == "6"
    assert questions[0].extra_info["unit"] == "m"
    assert questions[0].text == "3+3="


def test_without_ids_the_prompt_identifies_a_problem(write_benchmark: WriteBenchmark):
    rows = [arithmetic_row(index) for index in range(2)]
    for row in rows:
        del row["extra_info"]["id"]
    first = read_questions([write_benchmark(rows)])
    again = read_questions([write_benchmark(rows[::-1], "reversed.parquet")])
    assert [question.question_id for question in first] == [question.question_id for question in again[::-1]]
    assert len({question.question_id for question in first}) == 2


def test_the_digest_is_of_the_content_and_not_of_the_file(write_benchmark: WriteBenchmark):
    rows = [arithmetic_row(index) for index in range(3)]
    first = questions_digest(read_questions([write_benchmark(rows)]))
    assert first == questions_digest(read_questions([write_benchmark(rows, "copy.parquet")]))
    rows[2]["reward_model"]["ground_truth"] = "5"
    assert first != questions_digest(read_questions([write_benchmark(rows, "changed.parquet")]))


def blanked(index: int, value: Any) -> dict[str, Any]:
    row = arithmetic_row(index)
    row["reward_model"]["ground_truth"] = value
    return row


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no column data_source, prompt, reward_model"),
        ([blanked(0, None), blanked(1, None)], "2 of 2 problems have no reward_model.ground_truth, sums-0, sums-1"),
        ([blanked(0, "1"), blanked(1, " ")], "1 of 2 problems have no reward_model.ground_truth, sums-1"),
        ([blanked(0, float("nan")), blanked(1, 2.0)], "1 of 2 problems have no reward_model.ground_truth, sums-0"),
        ([arithmetic_row(1), arithmetic_row(2), arithmetic_row(1)], r"1 ids stand for more than one row, sums-1 \(2"),
        ([{**arithmetic_row(1), "prompt": []}], "row 0: prompt is not a list of chat messages"),
        ([{**arithmetic_row(1), "data_source": ""}], "row 0: data_source is empty"),
    ],
)
def test_faulty_benchmarks_are_refused(write_benchmark: WriteBenchmark, rows: list[dict[str, Any]], said: str):
    with pytest.raises(UserError, match=said):
        read_questions([write_benchmark(rows)])


def test_one_problem_in_two_files_is_refused(write_benchmark: WriteBenchmark):
    paths = [write_benchmark([arithmetic_row(1)], name) for name in ("a.parquet", "b.parquet")]
    with pytest.raises(UserError, match="1 ids stand for more than one row"):
        read_questions(paths)


def test_a_file_that_is_missing_empty_or_no_parquet_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere\.parquet: no such file; prepare it"):
        read_questions([tmp_path / "nowhere.parquet"])
    text = tmp_path / "text.parquet"
    text.write_text("question,answer\n")
    with pytest.raises(UserError, match=r"text\.parquet: not a readable parquet file"):
        read_questions([text])
    pd.DataFrame(columns=["data_source", "prompt", "reward_model"]).to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(UserError, match=r"empty\.parquet: the file holds no problem"):
        read_questions([tmp_path / "empty.parquet"])


# --- reward functions

QUESTION = Question("sums", "sums-1", ({"role": "user", "content": "1+1="},), "2", {})


def grader_of(tmp_path: Path, body: str) -> Grader:
    file = tmp_path / "reward.py"
    file.write_text(f"def judge(data_source, solution_str, ground_truth, extra_info=None):\n    {body}\n")
    return Grader(f"{file}:judge")


@pytest.mark.parametrize(
    ("returned", "grade"),
    [
        ("{'score': 0.3, 'acc': True, 'pred': '2', 'status': 'correct'}", (0.3, True, "correct", "2")),
        ("{'score': 0.0, 'acc': False, 'pred': '', 'status': 'timeout'}", (0.0, False, "timeout", "")),
        ("{'score': 1.0, 'pred': ''}", (1.0, True, "correct", "")),
        ("{'score': 0.0, 'pred': ''}", (0.0, False, "no_answer", "")),
        ("-1", (-1.0, False, "wrong", None)),
        ("True", (1.0, True, "correct", None)),
    ],
)
def test_verdicts_are_read_from_what_scorers_return(tmp_path: Path, returned: str, grade: tuple[Any, ...]):
    assert dataclasses.astuple(grader_of(tmp_path, f"return {returned}").grade(QUESTION, "2")) == grade


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return float('nan')", "is neither correct nor incorrect"),
        ("return 0.5", "is neither correct nor incorrect"),
        ("return {'acc': True}", "neither a number nor a dict with 'score'"),
        ("return None", "neither a number nor a dict with 'score'"),
        ("raise KeyError('unit')", "on sums sums-1, raised KeyError: 'unit'"),
    ],
)
def test_a_reward_function_without_a_verdict_is_refused(tmp_path: Path, body: str, said: str):
    with pytest.raises(UserError, match=said):
        grader_of(tmp_path, body).grade(QUESTION, "2")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 1.0", r"calls an empty response correct on sums sums-1 \(ground truth '2'\)"),
        ("return {'score': 0.0, 'status': 'error'}", "ends in an error on sums sums-1"),
    ],
)
def test_ground_truths_are_tried_before_anything_is_sampled(tmp_path: Path, body: str, said: str):
    with pytest.raises(UserError, match=said):
        grader_of(tmp_path, body).check_ground_truths([QUESTION])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nowhere.py", "no file nowhere.py; for a module write pkg://nowhere.py"),
        ("pkg://verl_ispo.nowhere", "cannot import verl_ispo.nowhere"),
        ("pkg://verl_ispo.tiny_task.reward:nothing", "has no function nothing"),
    ],
)
def test_a_reward_function_that_is_not_there_is_named(spec: str, said: str):
    with pytest.raises(UserError, match=said):
        Grader(spec)


def test_a_reward_file_is_known_by_its_content(tmp_path: Path):
    first = grader_of(tmp_path, "return 0").identity()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    assert grader_of(moved, "return 0").identity() == first
    assert grader_of(moved, "return -1").identity() != first


# --- checkpoints


def checkpoint_folder(run: Path, step: int, last: int | None) -> Path:
    """The layout of a verl checkpoint whose actor was saved in Hugging Face form as well."""
    folder = run / f"global_step_{step}" / "actor" / "huggingface"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(f"step {step}")
    if last is not None:
        (run / LATEST_STEP_FILE).write_text(str(last))
    return folder


def test_the_last_step_is_the_rule_and_anything_else_is_called_by_hand(tmp_path: Path):
    first, last = checkpoint_folder(tmp_path, 10, 20), checkpoint_folder(tmp_path, 20, 20)
    assert dataclasses.astuple(resolve_checkpoint(str(tmp_path))) == (last, 20, "last step")
    assert resolve_checkpoint(str(tmp_path / "global_step_20")).rule == "last step"
    assert resolve_checkpoint(str(tmp_path / "global_step_20" / "actor")).rule == "last step"
    by_hand = resolve_checkpoint(str(tmp_path / "global_step_10"))
    assert dataclasses.astuple(by_hand) == (first, 10, "step 10, chosen by hand (last: 20)")
    assert resolve_checkpoint(str(first)).rule == "folder as given"


def test_a_checkpoint_moved_away_from_its_run_has_an_unknown_last_step(tmp_path: Path):
    checkpoint_folder(tmp_path, 10, None)
    assert resolve_checkpoint(str(tmp_path / "global_step_10")).rule == "step 10, chosen by hand (last: unknown)"


def test_folders_that_are_no_checkpoint_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="no such folder, and not a model id"):
        resolve_checkpoint(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="neither a Hugging Face folder"):
        resolve_checkpoint(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"no weights \(\*\.safetensors or \*\.bin\)"):
        resolve_checkpoint(str(tmp_path))
    (tmp_path / LATEST_STEP_FILE).write_text("7")
    with pytest.raises(UserError, match=r"names step 7, but .*global_step_7 is not there"):
        resolve_checkpoint(str(tmp_path))
    (tmp_path / LATEST_STEP_FILE).write_text("seven")
    with pytest.raises(UserError, match="'seven' is not a step"):
        resolve_checkpoint(str(tmp_path))
    (tmp_path / LATEST_STEP_FILE).write_text("3")
    (tmp_path / "global_step_3" / "actor").mkdir(parents=True)
    with pytest.raises(UserError, match="neither an FSDP nor a Megatron"):
        resolve_checkpoint(str(tmp_path / "global_step_3"))


def test_a_model_id_that_the_hub_does_not_give_is_refused(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="no such folder, and the hub does not give it"):
        resolve_checkpoint("nobody/nothing")


def test_the_model_digest_sees_weights_and_tokenizer_and_nothing_else(tmp_path: Path):
    folder = checkpoint_folder(tmp_path, 1, 1)
    first = model_digest(folder)
    (folder / "README.md").write_text("notes")
    assert model_digest(folder) == first
    (folder / "tokenizer.json").write_text("{}")
    second = model_digest(folder)
    (folder / "model.safetensors").write_text("other")
    assert len({first, second, model_digest(folder)}) == 3


# --- options


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n": -1}, "--n -1: give 0 or more"),
        ({"temperature": 0.0}, "--temperature 0.0: give a number above 0; greedy is always run"),
        ({"temperature": float("nan")}, "--temperature nan"),
        ({"top_p": 1.5}, "--top-p 1.5"),
        ({"max_new_tokens": 0}, "--max-new-tokens 0"),
        ({"seed": -1}, "--seed -1"),
        ({"benchmarks": ()}, "--benchmarks: give at least one"),
        ({"sampler": "vllm"}, "--sampler vllm: vLLM is not installed|no GPU is visible"),
        ({"context_tokens": 3}, "each of its 6 prompts fills the context of 3 tokens"),
    ],
)
def test_options_without_sense_are_refused_before_the_output_is_touched(
    options: EvaluationOptions, changes: dict[str, Any], said: str
):
    with pytest.raises(UserError, match=said):
        evaluate(dataclasses.replace(options, **changes))
    assert not options.out.exists()


def test_a_tokenizer_without_a_chat_template_is_refused(options: EvaluationOptions, tmp_path: Path):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(options.model, bare)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        evaluate(dataclasses.replace(options, model=str(bare)))
