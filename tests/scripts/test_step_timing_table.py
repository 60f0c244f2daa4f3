"""scripts/step_timing_table.py on made-up logs, by hand: medians, shares, which part is inside which, and the rest.

The names are those of a training on the CPU; tests/training/test_gpu_scripts.py makes the table of a real one. Not
exercised: a GPU's log.
"""

from __future__ import annotations

import csv
import json
import runpy
from pathlib import Path

import pytest

from tests.scripts.launchers import SCRIPTS

TABLE = runpy.run_path(str(SCRIPTS / "step_timing_table.py"))


def log(path: Path, steps: list[dict[str, float]]) -> Path:
    """A metrics file as verl's logger writes it; timings without their prefix."""
    lines = []
    for number, step in enumerate(steps, start=1):
        data = {key if "/" in key else f"timing_s/{key}": value for key, value in step.items()}
        lines.append(json.dumps({"step": number, "data": data}))
    path.write_text("\n".join(lines) + "\n")
    return path


def steps_of(gen: list[float], old_log_prob: float = 2.0, **more: float) -> list[dict[str, float]]:
    """Steps with 1 s that no timer covers."""
    return [{"gen": value, "old_log_prob": old_log_prob, "step": value + old_log_prob + 1, **more} for value in gen]


def test_medians_and_shares_of_the_steps_after_the_first(tmp_path: Path) -> None:
    run = TABLE["read_run"]("GRPO", log(tmp_path / "metrics.jsonl", steps_of([90, 6, 4, 5])), 1)
    assert (run.steps, run.step_s) == (3, 8.0)
    assert run.parts_s == {"gen": 5, "old_log_prob": 2, "rest of the step": 1}
    assert "| gen | 5.00 (62.5%) |" in TABLE["markdown"]([run])
    assert "| **step** | **8.00** |" in TABLE["markdown"]([run])


def test_what_is_inside_another_part_is_not_added_again(tmp_path: Path) -> None:
    ispo = steps_of([5, 5], old_log_prob=3.0, ispo_ablated_log_prob=1.0, ispo_answer_span=0.5)
    run = TABLE["read_run"]("ISPO", log(tmp_path / "metrics.jsonl", ispo), 0)
    assert run.parts_s["rest of the step"] == 1
    lines = TABLE["markdown"]([run]).splitlines()
    names = [line.split("|")[1].strip().removeprefix("&nbsp;&nbsp;") for line in lines[2:]]
    inside = ["in it: ispo_answer_span", "in it: ispo_ablated_log_prob"]
    assert names == ["gen", "old_log_prob", *inside, "rest of the step", "**step**"]


def test_what_is_timed_outside_of_the_step_is_left_out(tmp_path: Path) -> None:
    run = TABLE["read_run"]("ISPO", log(tmp_path / "metrics.jsonl", steps_of([5], testing=100.0)), 0)
    assert "testing" not in run.parts_s
    assert run.parts_s["rest of the step"] == 1


def test_runs_stand_side_by_side_in_the_order_of_a_step(tmp_path: Path) -> None:
    grpo = TABLE["read_run"]("GRPO", log(tmp_path / "a.jsonl", steps_of([5], update_actor=0.5, novelty=0.25)), 0)
    ispo = TABLE["read_run"]("ISPO", log(tmp_path / "b.jsonl", steps_of([5], ref=0.5)), 0)
    assert TABLE["ordered_parts"]([grpo, ispo]) == [
        *("gen", "old_log_prob", "ref", "update_actor", "novelty", "rest of the step")
    ]
    assert "| ref |  | 0.50 (6.2%) |" in TABLE["markdown"]([grpo, ispo])


def test_peak_memory_is_the_most_and_lengths_are_medians(tmp_path: Path) -> None:
    steps = steps_of([5, 5, 5])
    for step, memory, length in zip(steps, (30.0, 40.0, 35.0), (1000.0, 1024.0, 1016.0), strict=True):
        step |= {"actor/perf/max_memory_allocated_gb": memory, "response_length/mean": length}
    text = TABLE["markdown"]([TABLE["read_run"]("ISPO", log(tmp_path / "metrics.jsonl", steps), 0)])
    assert "| peak memory allocated, GiB | 40 |" in text
    assert "| new tokens | 1016 |" in text


def test_a_run_that_was_resumed_is_one_run(tmp_path: Path) -> None:
    log(tmp_path / "metrics.1.jsonl", steps_of([5, 5]))
    second = log(tmp_path / "metrics.2.jsonl", steps_of([7, 7]))
    second.write_text(second.read_text().replace('"step": 2', '"step": 3').replace('"step": 1', '"step": 2'))
    run = TABLE["read_run"]("ISPO", tmp_path, 0)
    assert (run.steps, run.parts_s["gen"]) == (3, 7)


def test_the_csv_holds_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = log(tmp_path / "metrics.jsonl", steps_of([9, 5], ispo_answer_span=1.0))
    assert TABLE["main"]([f"ISPO={metrics}", "--skip", "1", "--csv", str(tmp_path / "parts.csv")]) == 0
    assert "ISPO: 1 step(s)" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "parts.csv").open()))
    assert {row["what"]: float(row["value"]) for row in rows} == {
        **{"gen": 5.0, "old_log_prob": 2.0, "ispo_answer_span": 1.0, "rest of the step": 1.0, "step": 8.0}
    }
    assert [row["inside"] for row in rows if row["what"] == "ispo_answer_span"] == ["old_log_prob"]
    assert [float(row["share_of_step"]) for row in rows if row["what"] == "gen"] == [0.625]


@pytest.mark.parametrize(
    ("argument", "named"),
    [("ISPO", "give NAME=RUN"), ("ISPO=nowhere", "nowhere does not exist"), ("ISPO={}", "1 timed step(s)")],
)
def test_faults_are_one_sentence(argument: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = log(tmp_path / "metrics.jsonl", steps_of([5]))
    assert TABLE["main"]([argument.format(metrics), "--skip", "1"]) == 2
    assert named in capsys.readouterr().err
