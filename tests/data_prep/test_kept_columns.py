"""Columns that a method reads beside question and answer go through the preparation as they are.

- A local file in the layout of Scaf-GRPO's public data set: verl's columns, the bare question, and three lists of hint
  parts. The hints stand beside the right question, also where rows before it are dropped, and verl's data set has them.
- A cell may be a text, a list of texts, chat messages, or nothing.
- A column that is missing, holds something else, or has the name of an output column is refused.

Not exercised: the published file itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_problems import command, made_rows, problem, write_jsonl

from verl_ispo.methods.scaf_grpo import HINT_COLUMNS


def prepared(folder: Path, source: Path, *options: str) -> list[dict[str, Any]]:
    arguments = ("--local_dataset_path", source, "--data_source", "made", "--local_save_dir", folder)
    assert command("generic", *arguments, "--no_decontaminate", *options) == 0
    return pq.read_table(folder / "made.parquet").to_pylist()


def scaf_row(number: int) -> dict[str, Any]:
    return {
        "question": problem(number),
        "prompt": [{"role": "system", "content": "Reason."}, {"role": "user", "content": problem(number)}],
        "data_source": "DeepScaleR",
        "reward_model": {"style": "rule", "ground_truth": str(number)},
        "extra_info": {"index": number, "split": "train"},
        **{column: [f"{column} {number}.{part}" for part in range(4)] for column in HINT_COLUMNS},
    }


@pytest.fixture
def scaf_file(tmp_path: Path) -> Path:
    """Rows 0 to 5; the third one asks the first one's question again."""
    rows = [scaf_row(number) for number in range(6)]
    rows[2]["question"] = rows[2]["prompt"][1]["content"] = rows[0]["question"]
    rows[2]["reward_model"] = rows[0]["reward_model"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


def test_hints_stay_beside_their_questions(scaf_file: Path, tmp_path: Path) -> None:
    rows = prepared(tmp_path / "out", scaf_file, "--keep_columns", *HINT_COLUMNS)
    assert [row["extra_info"]["question"] for row in rows] == [problem(number) for number in (0, 1, 3, 4, 5)]
    for row in rows:
        number = row["reward_model"]["ground_truth"]
        for column in HINT_COLUMNS:
            assert row[column] == [f"{column} {number}.{part}" for part in range(4)]


def test_other_columns_are_not_kept_unless_asked_for(scaf_file: Path, tmp_path: Path) -> None:
    assert not set(prepared(tmp_path / "out", scaf_file)[0]) & set(HINT_COLUMNS)


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("one", ["one"]),
        (["one", "two"], ["one", "two"]),
        ([{"role": "assistant", "content": "said"}], ["said"]),
        (None, []),
        ([], []),
    ],
)
def test_cells(cell: object, texts: list[str], tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "data.jsonl", [row | {"trace": cell} for row in made_rows(2)])
    assert [row["trace"] for row in prepared(tmp_path / "out", source, "--keep_columns", "trace")] == [texts, texts]


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("missing", "x", "no column missing to keep"),
        ("trace", 3, "which is neither a text nor a list of texts"),
        ("trace", [{"role": "user"}], "which is neither a text nor a list of texts"),
        ("prompt", "x", "the output has a column of that name already"),
    ],
)
def test_refused(column: str, cell: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_jsonl(tmp_path / "data.jsonl", [row | {"trace": cell} for row in made_rows(1)])
    arguments = ("--data_source", "made", "--local_save_dir", tmp_path / "out", "--no_decontaminate")
    assert command("generic", "--local_dataset_path", source, *arguments, "--keep_columns", column) == 2
    assert message in capsys.readouterr().err


@pytest.mark.trainer
def test_verls_data_set_has_the_hints(scaf_file: Path, tmp_path: Path, tokenizer_path: Path) -> None:
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    prepared(tmp_path / "out", scaf_file, "--keep_columns", *HINT_COLUMNS)
    config = {"max_prompt_length": 32_768, "filter_overlong_prompts_workers": 1, "cache_dir": str(tmp_path / "cache")}
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)
    row = RLHFDataset([str(tmp_path / "out/made.parquet")], tokenizer, OmegaConf.create(config))[1]
    assert row[HINT_COLUMNS[2]] == [f"solution_breakdown_parts 1.{part}" for part in range(4)]
