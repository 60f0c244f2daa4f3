"""The parquet files: verl's columns, the split, determinism, and that a file is never half-written.

Not exercised: verl's own reader, which is in test_with_verl.py.
"""

import argparse
import os
import sys

import pandas as pd
import pytest

from verl_ispo.atomic_file import atomic_file
from verl_ispo.tiny_task import make_data


def read(folder, name):
    return pd.read_parquet(folder / name)


def test_the_columns_are_verls(tmp_path):
    make_data.main(["--out", str(tmp_path), "--levels", "1-4", "--train-rows", "200"])
    train, held_out = read(tmp_path, "train.parquet"), read(tmp_path, "heldout.parquet")
    for table in (train, held_out):
        assert list(table.columns) == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
        assert set(table["ability"]) == {"math"}
        for _, row in table.iterrows():
            [message] = row["prompt"]
            assert message == {"role": "user", "content": row["extra_info"]["question"]}
            terms = row["extra_info"]["question"].removesuffix("=").replace("-", "+-").split("+")
            assert row["reward_model"] == {"style": "rule", "ground_truth": str(sum(map(int, terms)))}
    assert len(train) == 200
    assert set(train["data_source"]) == {"tiny_arithmetic"}
    assert {info["level"] for info in train["extra_info"]} == {1, 2, 3, 4}
    assert held_out["data_source"].value_counts().to_dict() == {f"tiny_arithmetic_level{n}": 50 for n in range(1, 7)}
    assert [info["index"] for info in train["extra_info"]] == list(range(200))
    assert {info["split"] for info in train["extra_info"]} == {"train"}
    assert {info["split"] for info in held_out["extra_info"]} == {"heldout"}


def test_the_held_out_file_does_not_depend_on_the_mix_and_shares_no_question_with_it(tmp_path):
    for levels in ("1-4", "1-6"):
        make_data.main(["--out", str(tmp_path / levels), "--levels", levels])
    easy, stress = (read(tmp_path / levels, "heldout.parquet") for levels in ("1-4", "1-6"))
    pd.testing.assert_frame_equal(easy, stress)
    questions = {info["question"] for info in easy["extra_info"]}
    for levels in ("1-4", "1-6"):
        train = read(tmp_path / levels, "train.parquet")
        assert questions.isdisjoint(info["question"] for info in train["extra_info"])


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for folder, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        make_data.main(["--out", str(tmp_path / folder), "--seed", seed, "--train-rows", "50"])
    first, second, other = ((tmp_path / folder / "train.parquet").read_bytes() for folder in "abc")
    assert first == second
    assert first != other


@pytest.mark.parametrize(
    ("text", "levels"), [("1-6", (1, 2, 3, 4, 5, 6)), ("1-4", (1, 2, 3, 4)), ("3", (3,)), ("1, 3-5", (1, 3, 4, 5))]
)
def test_levels_are_read(text, levels):
    assert make_data.parse_levels(text) == levels


@pytest.mark.parametrize("text", ["", "0", "7", "1-7", "4-1", "a", "1-", "1,,2"])
def test_levels_that_do_not_exist_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="levels"):
        make_data.parse_levels(text)


@pytest.mark.parametrize("option", [["--train-rows", "0"], ["--held-out-per-level", "100"], ["--levels", "9"]])
def test_bad_options_write_nothing(tmp_path, option, capsys):
    with pytest.raises(SystemExit) as ended:
        sys.exit(make_data.main(["--out", str(tmp_path / "data"), *option]))
    assert ended.value.code == 2
    assert option[1] in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "train.parquet"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), atomic_file(path) as file:
        file.write("not bytes")
    assert path.read_bytes() == b"old"
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "no space")))
    with pytest.raises(OSError, match="no space"), atomic_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["train.parquet"]
