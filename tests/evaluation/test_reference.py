"""``verl-ispo table --reference FILE``: figures of other papers beside ours, and what a faulty file is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.evaluation.conftest import ResultWriter
from verl_ispo import cli
from verl_ispo.evaluation.reference_figures import read_reference
from verl_ispo.user_error import UserError

HEADER = "base_model,method,benchmark,metric,value,source\n"
QWEN = "Qwen/Qwen2.5-Math-1.5B"


@pytest.fixture
def write_file(tmp_path: Path) -> Callable[..., Path]:
    def write(lines: str, header: str = HEADER) -> Path:
        (tmp_path / "ours.csv").write_text(header + lines, encoding="utf-8")
        return tmp_path / "ours.csv"

    return write


@pytest.fixture
def table(write_result: ResultWriter, tmp_path: Path) -> Callable[..., int]:
    """The table of one greedy result on AIME24 and a set of our own; the paper has 13.3 for AIME24."""
    folder = write_result("a", {"aime24": "10", "sums": "11"}, base_model=QWEN)
    return lambda *more: cli.main(["table", str(folder), "--out", str(tmp_path / "t"), *map(str, more)])


def test_a_figure_is_shown_beside_ours_and_replaces_the_papers(write_file, table, tmp_path: Path, capsys):
    path = write_file(
        "qwen2.5-math-1.5b,grpo,AIME-24,pass@1_greedy,21.5,Smith 2026 table 3\n"
        'Qwen2.5-Math-1.5B,GRPO,sums,pass@1_greedy,99,"Doe, p. 4"\n'
        "Qwen2.5-Math-1.5B,GRPO,summs,pass@1_greedy,98,Doe\n"
    )
    assert table("--reference", path) == 0
    said = capsys.readouterr().out
    assert "; reference 21.5" in said
    assert "; reference 99.0" in said
    assert "paper 13.3" not in said
    assert "'reference' is ours.csv: Smith 2026 table 3; Doe, p. 4." in said
    assert "1 of the 3 figures of ours.csv have no cell here (Qwen2.5-Math-1.5B, GRPO, summs, pass@1_greedy)" in said
    scores = (tmp_path / "t" / "scores.csv").read_text()
    assert ",21.5,Smith 2026 table 3," in scores
    assert table() == 0
    assert "paper 13.3" in capsys.readouterr().out


def test_methods_that_only_the_file_has_are_rows_on_request(write_file, table, capsys):
    path = write_file(
        f"{QWEN},OtherMethod,aime24,pass@1_greedy,30,Smith\nother/model,X,aime24,pass@1_greedy,30,Smith\n"
    )
    table("--reference", path)
    assert "OtherMethod | - |" not in capsys.readouterr().out
    table("--reference", path, "--paper-rows", "models")
    said = capsys.readouterr().out
    assert "| Qwen2.5-Math-1.5B | OtherMethod | - | not run; reference 30.0 |" in said
    assert "other/model" not in said.split("## Notes")[0]
    table("--reference", path, "--paper-rows", "all")
    assert "| other/model | X | - | not run; reference 30.0 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("m,GRPO,b,avg@16,101,s\n", "line 2: value '101' is no percentage; give a number from 0 to 100"),
        ("m,GRPO,b,avg@16,nan,s\n", "line 2: value 'nan' is no percentage"),
        ("m,GRPO,b,avg@16,1e1 %,s\n", "line 2: value '1e1 %' is no percentage"),
        ("m,GRPO,b,avg@16,10,s\nm,GRPO,b,best,10,s\n", "line 3: metric 'best' is none of a table; give pass@1_greedy"),
        ("m,GRPO,b,avg@16,10,s\nM,grpo,B,avg@16,11,s\n", "line 3: M, grpo, B, avg@16 is in line 2 already"),
        ("m,GRPO,,avg@16,10,s\n", "line 2: benchmark is empty; fill it in"),
        ("m,GRPO,b,avg@16,10\n", "line 2: not 6 fields"),
        ("m,GRPO,b,avg@16,10,s,t\n", "line 2: not 6 fields; put quotes around a field with a comma"),
        ("m,GR\x1bPO,b,avg@16,10,s\n", r"line 2: method 'GR\\x1bPO' has the invisible character U\+001B"),
        (f"m,{'x' * 300},b,avg@16,10,s\n", "line 2: method .* has over 200 characters"),
        ("", "no figure in it; give at least one line below the header"),
    ],
)
def test_a_fault_is_named_with_line_value_and_remedy(write_file, lines: str, said: str):
    with pytest.raises(UserError, match=said):
        read_reference(write_file(lines))


def test_a_file_without_the_columns_or_that_is_no_text_is_refused(write_file, tmp_path: Path):
    with pytest.raises(UserError, match="line 1: no column benchmark, source; the first line has to be base_model,"):
        read_reference(write_file("", "base_model,method,metric,value\n"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("binary", "missing"):
        with pytest.raises(UserError, match=r"cannot be read .* give a CSV file in UTF-8"):
            read_reference(tmp_path / name)
