"""Every file format and every published shape of columns gives the same problems.

Derivation. The same five problems are written in each format; the resulting rows may not differ. The shapes of
columns are those of the published files: bare columns, DAPO's nested ones, a de-duplicated DAPO, a worked solution,
capitals.

Not exercised: the hub itself, which cannot be reached here. The calls of `datasets` are checked with a stand-in, and
its failure with the real library in offline mode.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import datasets
import pandas as pd
import pyarrow as pa
import pytest
from made_problems import REPOSITORY, command, made_rows, problem, result_of, write_jsonl

from data_prep import file_formats
from data_prep.prompt_templates import wrap_dapo
from data_prep.sources import hub_parts, local_parts
from verl_ispo.user_error import UserError

ROWS = [
    {"question": 'Say "7", \n or $a|b$; ü求', "answer": "7"},
    {"question": "Zeros stay", "answer": "007"},
    {"question": "NA is text", "answer": "NA+1"},
    {"question": "Third one", "answer": "\\frac{1}{2}"},
    {"question": "Null-like", "answer": "nullity 3"},
]


def write(folder, ending):
    path = folder / f"data.{ending}"
    match ending:
        case "jsonl":
            write_jsonl(path, ROWS)
        case "json":
            path.write_text(json.dumps(ROWS, indent=1))
        case "csv":
            with path.open("w", newline="", encoding="utf-8-sig") as file:
                writer = csv.DictWriter(file, ["question", "answer"])
                writer.writeheader()
                writer.writerows(ROWS)
        case "parquet":
            pd.DataFrame(ROWS).to_parquet(path)
        case "arrow":
            table = pa.Table.from_pylist(ROWS)
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
    return path


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet", "arrow"])
def test_every_format_gives_the_same_rows(tmp_path, ending):
    source = write(tmp_path, ending)
    arguments = ["--data_source", "made", "--no_decontaminate", "--local_save_dir", tmp_path / "out"]
    assert command("generic", "--local_dataset_path", source, *arguments) == 0
    rows = result_of(tmp_path / "out", "made").rows
    assert [row["extra_info"]["question"] for row in rows] == [row["question"] for row in ROWS]
    assert [row["reward_model"]["ground_truth"] for row in rows] == [row["answer"] for row in ROWS]


def test_a_json_file_may_hold_json_lines(tmp_path):
    path = write_jsonl(tmp_path / "test.json", ROWS)
    (batch,) = file_formats.read_batches(path, ["answer"])
    assert batch.columns == ([row["answer"] for row in ROWS],)


def test_a_saved_datasets_folder_is_read(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    (part,) = local_parts(tmp_path / "saved")
    assert part.names == ["question", "answer"]
    assert sum(len(batch) for batch in part.read(["question"])) == len(ROWS)


def test_batches_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(file_formats, "MAX_BATCH_ROWS", 2)
    for ending in ("jsonl", "json", "parquet", "arrow"):
        batches = list(file_formats.read_batches(write(tmp_path, ending), ["answer"]))
        assert [(batch.first_row, len(batch)) for batch in batches] == [(1, 2), (3, 2), (5, 1)]


@pytest.mark.parametrize(
    "row",
    [
        {"question": "QUESTION", "answer": "7"},
        {"problem": "QUESTION", "answer": 7, "solution": "long"},
        {"Problem": "QUESTION", "Answer": "7", "ID": "2024-I-1"},
        {"problem": "QUESTION", "solution": "Hence\n$\\boxed{7}$."},
        {"question": "QUESTION", "final_answer": ["7"], "context": None},
        {"question": "QUESTION", "answer": "So it is 7.\n#### 7"},
        {"prompt": [{"role": "user", "content": wrap_dapo("QUESTION")}], "label": "7"},
        {
            "prompt": wrap_dapo("QUESTION"),
            "solution": "7",
            "source_prompt": [{"role": "user", "content": "other"}],
            "reward_model": {"ground_truth": "7", "style": "rule"},
        },
        {
            "data_source": "math_dapo",
            "prompt": [{"content": wrap_dapo("QUESTION"), "role": "user"}],
            "ability": "MATH",
            "reward_model": {"ground_truth": "7", "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": "9a9b6eb4-a1cb-49d1-8c1e-62eaf2f74079"},
        },
        {"prompt": [{"role": "system", "content": "no"}, {"role": "user", "content": "QUESTION"}], "answer": "7"},
        {"prompt": [{"role": "user", "content": [{"type": "text", "text": "QUESTION"}]}], "answer": "7"},
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_published_shapes_of_columns(tmp_path, row, ending):
    row = json.loads(json.dumps(row).replace("QUESTION", problem(1)))
    path = tmp_path / f"data.{ending}"
    if ending == "jsonl":
        write_jsonl(path, [row])
    else:
        pa.parquet.write_table(pa.Table.from_pylist([row]), path)
    arguments = ["--data_source", "made", "--no_decontaminate", "--local_save_dir", tmp_path / "out"]
    assert command("generic", "--local_dataset_path", path, *arguments) == 0
    (made,) = result_of(tmp_path / "out", "made").rows
    assert (made["extra_info"]["question"], made["reward_model"]["ground_truth"]) == (problem(1), "7")


def test_columns_can_be_given(tmp_path):
    path = write_jsonl(
        tmp_path / "data.jsonl", [{"question": "no", "meta": {"q": problem(1)}, "answer": "no", "gt": "7"}]
    )
    arguments = ["--data_source", "made", "--no_decontaminate", "--local_save_dir", tmp_path / "out"]
    given = ["--question_column", "meta.q", "--answer_column", "gt"]
    assert command("generic", "--local_dataset_path", path, *arguments, *given) == 0
    (made,) = result_of(tmp_path / "out", "made").rows
    assert (made["extra_info"]["question"], made["reward_model"]["ground_truth"]) == (problem(1), "7")


def test_a_folder_is_read_in_the_order_of_names_and_by_split(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_jsonl(folder / "train-00001.jsonl", made_rows(2, first=2))
    write_jsonl(folder / "train-00000.jsonl", made_rows(2, first=0))
    write_jsonl(folder / "test-00000.jsonl", made_rows(2, first=8))
    (folder / "README.md").write_text("no data")
    (folder / ".hidden.jsonl").write_text("no data")
    assert [part.identity["file"] for part in local_parts(folder, "train")] == [
        "train-00000.jsonl",
        "train-00001.jsonl",
    ]
    assert [part.identity["file"] for part in local_parts(folder, "test")] == ["test-00000.jsonl"]
    with pytest.raises(UserError, match=r"only to \['test', 'train'\]"):
        local_parts(folder, "validation")


def test_a_folder_without_split_names_is_read_whole(tmp_path):
    write_jsonl(tmp_path / "test2025-I.jsonl", made_rows(1))
    write_jsonl(tmp_path / "test2025-II.jsonl", made_rows(1, first=1))
    assert len(local_parts(tmp_path, "train")) == 2


def test_the_hub_is_asked_for_the_benchmark(tmp_path, monkeypatch):
    asked = []

    def stand_in(*arguments, **options):
        asked.append((arguments, options))
        rows = [{"id": i, "problem": problem(i), "solution": f"$\\boxed{{{i}}}$", "url": ""} for i in range(30)]
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", stand_in)
    assert command("aime24", "--local_save_dir", tmp_path) == 0
    assert asked == [(("math-ai/aime24", None), {"split": "test", "revision": None})]
    result = result_of(tmp_path, "aime24")
    assert [row["reward_model"]["ground_truth"] for row in result.rows] == [str(i) for i in range(30)]
    assert result.card["inputs"][0]["hub_id"] == "math-ai/aime24"


def test_without_a_network_the_way_around_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(UserError, match=r"math-ai/aime24 .* --local_dataset_path"):
        hub_parts("math-ai/aime24", None, "test")


def test_local_files_need_neither_the_hub_library_nor_verl():
    heavy = ["verl", "datasets", "torch", "transformers"]
    code = f"import sys, data_prep.generic, data_prep.aime24; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert shown.stdout == "[]\n"
