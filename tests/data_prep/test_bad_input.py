"""Any fault in the input: one line that names the file and the remedy, exit code 2, and nothing written.

Derivation. The faults are those that data files have in practice: missing or renamed columns, empty files, truncated
parquet, wrong encodings, million-character questions, duplicate ids, malformed lines; and of options that cannot be
used. In every case an earlier output must stay unchanged.

Not exercised: a disk that returns wrong bytes.
"""

from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
import pytest
from made_problems import command, made_benchmark, made_rows, problem, write_jsonl

from data_prep import file_formats


def parquet(path):
    pd.DataFrame(made_rows(500)).to_parquet(path)
    return path


def truncated(path):
    whole = parquet(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def damaged(path):
    whole = bytearray(parquet(path).read_bytes())
    whole[100:400] = bytes(300)
    path.write_bytes(bytes(whole))


def arrow_cut(path):
    table = pa.Table.from_pylist(made_rows(500))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    path.write_bytes(path.read_bytes()[:-2000])


def latin1(path):
    rows = "".join(
        json.dumps(row, ensure_ascii=False) + "\n" for row in [*made_rows(2), {"question": "é", "answer": "1"}]
    )
    path.write_bytes(rows.encode("latin-1"))


def joined(path):
    rows = [{"id": 7, **made_rows(1)[0]}, {"id": 8, **made_rows(1, 1)[0]}, {"id": 7, **made_rows(1, 2)[0]}]
    write_jsonl(path, rows)


FAULTS = {
    "renamed columns": (
        "x.jsonl",
        lambda p: write_jsonl(p, [{"frage": "a", "antwort": "b"}]),
        "frage, antwort; pass --question",
    ),
    "missing answer": (
        "x.jsonl",
        lambda p: write_jsonl(p, [{"question": "a", "key": "b"}]),
        "question, key; pass --answer_col",
    ),
    "missing in parquet": (
        "x.parquet",
        lambda p: pd.DataFrame({"text": ["a"]}).to_parquet(p),
        "it has text; pass --question",
    ),
    "empty jsonl": ("x.jsonl", lambda p: p.touch(), "the file is empty"),
    "empty csv": ("x.csv", lambda p: p.touch(), "the file is empty"),
    "empty parquet": ("x.parquet", lambda p: p.touch(), "the file is empty"),
    "empty arrow": ("x.arrow", lambda p: p.touch(), "the file is empty"),
    "blank lines only": ("x.jsonl", lambda p: p.write_text("\n\n"), "holds no rows"),
    "empty list": ("x.json", lambda p: p.write_text("[]"), "holds no rows"),
    "header only": ("x.csv", lambda p: p.write_text("question,answer\n"), "holds no rows"),
    "no rows": (
        "x.parquet",
        lambda p: parquet(p) and pd.DataFrame(made_rows(1)).head(0).to_parquet(p),
        "holds no rows",
    ),
    "truncated parquet": ("x.parquet", truncated, "broken or truncated .parquet file of"),
    "damaged parquet": ("x.parquet", damaged, "x.parquet: "),
    "no parquet": (
        "x.parquet",
        lambda p: p.write_text("<html>404</html>"),
        "broken or truncated .parquet file of 16 bytes",
    ),
    "truncated arrow": ("x.arrow", arrow_cut, "x.arrow: "),
    "latin-1": ("x.jsonl", latin1, "line 3: not UTF-8 (byte 0xe9); convert it first, e.g. iconv"),
    "utf-16": (
        "x.jsonl",
        lambda p: p.write_text('{"question": "a"}', encoding="utf-16"),
        "line 1: not UTF-8 (byte 0xff)",
    ),
    "latin-1 csv": (
        "x.csv",
        lambda p: p.write_bytes("question,answer\né,1\n".encode("latin-1")),
        "not UTF-8 (byte 0xe9)",
    ),
    "malformed line": (
        "x.jsonl",
        lambda p: p.write_text('{"question": "a", "answer": "1"}\n\n{"question": "b", \n'),
        "line 3: malformed JSON",
    ),
    "malformed list": (
        "x.json",
        lambda p: p.write_text('[{"question": "a"},\n{"question" "b"}]'),
        "line 2: malformed JSON",
    ),
    "no object": (
        "x.jsonl",
        lambda p: p.write_text('{"question": "a", "answer": "1"}\n["b"]\n'),
        "line 2: holds a list",
    ),
    "no object in a list": (
        "x.json",
        lambda p: p.write_text('[{"question": "a", "answer": "1"}, 3]'),
        "item 2: holds a int",
    ),
    "deep nesting": ("x.jsonl", lambda p: p.write_text("[" * 100_000 + "\n"), "malformed JSON"),
    "deep object": ("x.jsonl", lambda p: p.write_text('{"a":' * 100_000 + "\n"), "line 1: malformed JSON"),
    "uneven csv": ("x.csv", lambda p: p.write_text("question,answer\na,1\nb,2,3,4\n"), "malformed CSV"),
    "duplicate ids": ("x.jsonl", joined, "the id '7' is shared by two different questions, in rows 1 and 3"),
    "unknown format": ("x.xlsx", lambda p: p.write_text("x"), "unknown format; known are .jsonl"),
    "nothing there": ("x.jsonl", lambda p: None, "no such file or folder; check --local_dataset_path"),
    "empty folder": ("x", lambda p: p.mkdir(), "holds no file of a known format"),
    "nothing left": (
        "x.jsonl",
        lambda p: write_jsonl(p, [{"question": "a", "answer": ""}]),
        "no row is left of 1 ({'uncheckable answer: no answer': 1}); check --question_column",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_nothing_is_written(tmp_path, capsys, fault):
    name, make, message = FAULTS[fault]
    folder = tmp_path / "out"
    good = write_jsonl(tmp_path / "good.jsonl", made_rows(3))
    arguments = ["--data_source", "made", "--no_decontaminate", "--local_save_dir", folder]
    assert command("generic", "--local_dataset_path", good, *arguments) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    make(tmp_path / name)
    assert command("generic", "--local_dataset_path", tmp_path / name, *arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning")]
    assert line.startswith("python -m data_prep.generic: error: ")
    assert message in line
    assert str(tmp_path / name) in line
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_fault_in_the_second_file_of_a_folder_names_that_file(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "a.jsonl", made_rows(2))
    write_jsonl(tmp_path / "data" / "b.jsonl", [{"text": "x"}])
    arguments = ["--data_source", "made", "--no_decontaminate", "--local_save_dir", tmp_path / "out"]
    assert command("generic", "--local_dataset_path", tmp_path / "data", *arguments) == 2
    assert "b.jsonl: no question column" in capsys.readouterr().err


def test_duplicate_ids_can_be_let_through(tmp_path):
    joined(tmp_path / "x.jsonl")
    arguments = ["--data_source", "made", "--no_decontaminate", "--local_save_dir", tmp_path / "out"]
    assert command("generic", "--local_dataset_path", tmp_path / "x.jsonl", *arguments, "--id_column", "none") == 0


def test_a_line_without_end_is_refused_in_bounded_memory(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(file_formats, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"question": "x" * 2000, "answer": "1"}))
    arguments = ["--data_source", "made", "--no_decontaminate", "--local_save_dir", tmp_path / "out"]
    assert command("generic", "--local_dataset_path", path, *arguments) == 2
    assert "line 1: longer than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": None, "answer": "1"}, "row 30: no question"),
        ({"problem": "x" * 1_000_000, "answer": "1"}, "row 30: a question of 1000000 characters (limit 32768)"),
        ({"problem": problem(3), "answer": ""}, "row 30: uncheckable answer (no answer)"),
        ({"problem": problem(3), "answer": "4"}, "one problem with two answers, '3' in row 4 and '4' in row 30"),
    ],
)
def test_a_benchmark_takes_no_doubtful_row(tmp_path, capsys, row, message):
    rows = [{"problem": problem(number), "answer": str(number)} for number in range(29)]
    source = write_jsonl(tmp_path / "x.jsonl", [*rows, row])
    assert command("aime25", "--local_dataset_path", source, "--local_save_dir", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(source) in error
    assert not list((tmp_path / "out").glob("aime25*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max_prompt_tokens", "5"], "needs --tokenizer"),
        (["--tokenizer", "/no/such/tokenizer"], "--tokenizer /no/such/tokenizer: cannot be loaded"),
        (["--template", "chatml"], "--template chatml: neither a Jinja file nor one of"),
        (["--decontaminate_against", "bench.jsonl"], "exclude each other"),
        (["--data_source", "aime24"], "would overwrite the benchmark of that name"),
        (["--question_column", "frage"], "no column 'frage'; it has question, answer"),
        (["--answer_column", "antwort"], "no column 'antwort'; it has question, answer"),
        (["--id_column", "nummer"], "no column 'nummer'; it has question, answer"),
    ],
)
def test_options_that_cannot_be_used_are_named(tmp_path, capsys, options, message):
    source = write_jsonl(tmp_path / "x.jsonl", made_rows(3))
    arguments = ["--data_source", "made", "--no_decontaminate", "--local_save_dir", tmp_path / "out", *options]
    assert command("generic", "--local_dataset_path", source, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_tokenizer_without_a_chat_template_is_refused(tmp_path, capsys, tokenizer_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "bare")
    source = made_benchmark("aime25", tmp_path / "x.jsonl")
    options = ["--tokenizer", tmp_path / "bare"]
    assert command("aime25", "--local_dataset_path", source, "--local_save_dir", tmp_path / "out", *options) == 2
    assert "has no chat template" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--ngram", "0"], ["--min_overlap", "1.5"], ["--max_prompt_tokens", "-3"]])
def test_numbers_out_of_range_are_refused(tmp_path, capsys, options):
    with pytest.raises(SystemExit) as caught:
        command("generic", "--local_dataset_path", tmp_path, "--data_source", "made", *options)
    assert caught.value.code == 2
    assert options[1] in capsys.readouterr().err
