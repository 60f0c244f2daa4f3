"""The same input and options give the same bytes: in another process, another folder, with another hash seed.

Derivation. Sets of Python strings change order with the hash seed, temporary names and times differ from run to run;
none of them may reach a file. Every file of an output is compared byte by byte.

Not exercised: other versions of the packages; the card names those that were used.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from made_problems import BENCHMARKS, REPOSITORY, made_benchmark, made_rows, write_jsonl


def run(name, *arguments, hash_seed):
    subprocess.run(
        [sys.executable, "-m", f"data_prep.{name}", *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
        check=True,
        capture_output=True,
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks(tmp_path, name):
    source = made_benchmark(name, tmp_path / "data.jsonl")
    for seed in (1, 2):
        run(name, "--local_dataset_path", source, "--local_save_dir", tmp_path / str(seed), hash_seed=seed)
    first, second = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert first == second
    assert set(first) == {f"{name}.{ending}" for ending in ("parquet", "card.json", "card.md")}


def test_training_sets(tmp_path):
    benchmark = made_benchmark("aime24", tmp_path / "aime24.jsonl", first=50)
    rows = made_rows(300)
    near = [{"question": row["question"] + " again", "answer": row["answer"]} for row in rows[100:140]]
    conflicts = [{"question": row["question"], "answer": f"{row['answer']}.5"} for row in rows[200:220]]
    source = write_jsonl(tmp_path / "data.jsonl", [*rows, *near, *conflicts, *rows])
    for seed in (1, 2):
        arguments = ["--local_dataset_path", source, "--local_save_dir", tmp_path / str(seed)]
        run("generic", *arguments, "--data_source", "made", "--decontaminate_against", benchmark, hash_seed=seed)
    first, second = contents(tmp_path / "1"), contents(tmp_path / "2")
    assert first == second
    assert len(first) == 5
    assert first["made.dropped.jsonl"].count(b"\n") == 30 + 20
    assert first["made.near_duplicates.jsonl"].count(b"\n") >= 40
