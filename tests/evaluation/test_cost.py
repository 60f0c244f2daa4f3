"""`verl-ispo table --cost`: accuracy against tokens and GPU seconds, and what is said where nothing was recorded.

- Tokens are counted by hand on two problems; a budget counts what is correct within it, as a shorter evaluation of the
  same model does (checked by evaluating the random model twice).
- Times come from lines written here, since a test cannot know how long a machine takes; a real evaluation is checked
  for what it records, not for how much.
- The training's cost is read from a metrics file in verl's form: 100 tokens in 10 s on 2 devices are 5 tokens/s each.

Not exercised: GPUs' names (no GPU here).
"""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.conftest import ResultWriter
from verl_ispo import cli
from verl_ispo.evaluation.cost import cost_parts, scores_within
from verl_ispo.evaluation.evaluation_options import EvaluationOptions
from verl_ispo.evaluation.manifest import MANIFEST_NAME, read_manifest, write_manifest
from verl_ispo.evaluation.pass_curves import curve_parts
from verl_ispo.evaluation.results import SAMPLES_NAME, load_result
from verl_ispo.evaluation.run import evaluate
from verl_ispo.evaluation.table import group_results
from verl_ispo.evaluation.timing import TIMING_NAME, read_timing
from verl_ispo.evaluation.training_cost import training_cost


def set_tokens(folder: Path, tokens: list[int]) -> Path:
    """Give the sampled responses of a result folder these lengths, in their order."""
    records = [json.loads(line) for line in (folder / SAMPLES_NAME).read_text().splitlines()]
    sampled = [record for record in records if record["mode"] == "sampled"]
    for record, length in zip(sampled, tokens, strict=True):
        record["tokens"] = length
    (folder / SAMPLES_NAME).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def add_timing(folder: Path, *lines: tuple[float, int, str | None, int | None]) -> Path:
    names = ("seconds", "responses", "device", "gpus")
    text = "".join(json.dumps(dict(zip(names, line, strict=True))) + "\n" for line in lines)
    (folder / TIMING_NAME).write_text(text)
    return folder


def add_training(folder: Path, **changes: Any) -> Path:
    training = {"steps": 10, "recorded_steps": 10, "seconds": 50.0, "device_seconds": 400.0, "tokens": 5000}
    manifest = read_manifest(folder)
    manifest["model"]["training"] = {**training, "device": "cuda", **changes}
    write_manifest(folder, manifest)
    return folder


def cost_row(*folders: Path) -> list[str]:
    """Evaluated on, evaluation, per response, training, its tokens."""
    [row] = cost_parts(group_results([load_result(folder) for folder in folders]), ["sums"])[1].rows
    return list(row[4:])


def test_accuracy_against_tokens(write_result: ResultWriter):
    folder = write_result("g", {"sums": "10"}, {"sums": ["110", "100"]}, options={"max_new_tokens": 64})
    result = load_result(set_tokens(folder, [4, 10, 64, 16, 64, 64]))
    part, _ = cost_parts(group_results([result]), ["sums"])
    assert part.columns[3:] == (
        *("accuracy", "mean tokens", "tokens per correct response"),
        *("within 4 tokens", "within 8 tokens", "within 16 tokens", "within 32 tokens"),
    )
    [row] = part.rows
    assert row[4:6] == ["37", "74"]  # 222 tokens, 6 responses, 3 of them correct
    [curve] = part.charts[0].curves
    assert curve.x == (4, 8, 16, 32, 64)
    assert curve.y == tuple(map(pytest.approx, (1 / 6, 1 / 6, 1 / 2, 1 / 2, 1 / 2)))
    assert scores_within([result.benchmarks["sums"]], 10).tolist() == pytest.approx([2 / 3, 0])


def test_without_samples_the_greedy_responses_count_and_nothing_correct_is_said(write_result: ResultWriter):
    result = load_result(write_result("g", {"sums": "00"}))
    [row] = cost_parts(group_results([result]), ["sums"])[0].rows
    assert row[4:6] == ["3", "none correct"]


def test_a_budget_is_what_a_shorter_evaluation_gives(options: EvaluationOptions, tmp_path: Path):
    """Each sample has its own seed, so a shorter evaluation draws the beginnings of the same responses."""
    (tmp_path / "any.py").write_text("def compute_score(solution_str, **_):\n    return float(len(solution_str) > 0)\n")
    options = dataclasses.replace(options, n=4, reward_function=str(tmp_path / "any.py"), max_new_tokens=12)
    evaluate(options)
    evaluate(dataclasses.replace(options, out=tmp_path / "short", max_new_tokens=6))
    long, short = (load_result(folder).benchmarks["sums"] for folder in (options.out, tmp_path / "short"))
    ended = [[tokens < 6 for tokens in problem.tokens] for problem in short.problems]
    assert 0 < sum(map(sum, ended)) < 24, "some responses should end before 6 tokens, and some not"
    assert ended == [[tokens < 6 for tokens in problem.tokens] for problem in long.problems]


def test_an_evaluation_records_its_seconds_and_device(options: EvaluationOptions):
    evaluate(options)
    timing = read_timing(options.out)
    assert timing.responses == 18
    assert timing.seconds > 0
    assert (timing.gpu_seconds, timing.devices) == (0.0, ("cpu",))
    evaluate(options)  # nothing to sample
    assert read_timing(options.out) == timing


def test_a_torn_line_costs_its_responses_only(tmp_path: Path):
    add_timing(tmp_path, (2.0, 3, "H100", 4), (1.0, 2, "H100", 4))
    path = tmp_path / TIMING_NAME
    path.write_text(path.read_text()[:-9])
    timing = read_timing(tmp_path)
    assert (timing.responses, timing.seconds, timing.gpu_seconds) == (3, 2.0, 8.0)


def test_seconds_times_gpus_of_evaluation_and_training(write_result: ResultWriter):
    folder = write_result("g", {"sums": "10"}, {"sums": ["1", "0"]})
    add_training(add_timing(folder, (30.0, 3, "H100", 4), (10.0, 1, "H100", 8)))
    assert cost_row(folder) == ["H100", "200", "50", "400", "5,000"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], ["not recorded", "not recorded", "-"]),
        ([(30.0, 3, "H100", 4)], ["H100", "not recorded for 1 of 4 responses", "-"]),
        ([(30.0, 4, None, None)], ["a server", "not recorded", "-"]),
        ([(30.0, 2, "cpu", 0), (1.0, 2, "H100", 1)], ["cpu, H100", "not recorded (partly on a CPU)", "-"]),
        ([(30.0, 4, "cpu", 0)], ["cpu", "30 s on a CPU", "7.5"]),
    ],
)
def test_what_an_evaluation_does_not_know_is_said(
    lines: list[tuple[float, int, str | None, int | None]], said: list[str], write_result: ResultWriter
):
    folder = write_result("g", {"sums": "10"}, {"sums": ["1", "0"]})
    if lines:
        add_timing(folder, *lines)
    assert cost_row(folder)[:3] == said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recorded_steps": 8}, ["not recorded for 2 of 10 steps"] * 2),
        ({"device": "cpu"}, ["400 s of worker processes on a CPU", "5,000"]),
        ({"device": None}, ["400 (device not recorded)", "5,000"]),
    ],
)
def test_what_a_training_does_not_know_is_said(changes: dict[str, Any], said: list[str], write_result: ResultWriter):
    folder = add_training(write_result("g", {"sums": "10"}), **changes)
    assert cost_row(folder)[3:] == said


def test_seeds_are_averaged_if_all_are_known(write_result: ResultWriter):
    one = add_training(write_result("a", {"sums": "10"}, training_seed=1))
    two = add_training(write_result("b", {"sums": "10"}, training_seed=2), device_seconds=600.0, tokens=7000)
    assert cost_row(one, two)[3:] == ["500", "6,000"]
    three = write_result("c", {"sums": "10"}, training_seed=3)
    assert cost_row(one, two, three)[3:] == ["not recorded for 1 of 3 seeds"] * 2


def write_run(run: Path, steps: int) -> Path:
    """A run's folder with metrics in verl's form, and its noted checkpoint."""
    (run / "checkpoints" / f"global_step_{steps}" / "actor").mkdir(parents=True)
    (run / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(steps))
    data = {"perf/total_num_tokens": 100, "perf/time_per_step": 10.0, "perf/throughput": 5.0}
    lines = [json.dumps({"step": step, "data": data}) for step in range(1, steps + 3)]
    (run / "metrics.1.jsonl").write_text("\n".join([json.dumps({"step": 0, "data": {"val-core/acc": 0.1}}), *lines]))
    (run / "trained_settings.json").write_text(json.dumps({"trainer.device": "cuda"}))
    return run / "checkpoints"


def test_a_trainings_cost_is_read_from_its_metrics_up_to_the_checkpoint(tmp_path: Path):
    checkpoints = write_run(tmp_path / "run", steps=3)
    expected = {"steps": 3, "recorded_steps": 3, "seconds": 30.0, "device_seconds": 60.0, "tokens": 300}
    for model in (checkpoints, checkpoints / "global_step_3", checkpoints / "global_step_3" / "actor"):
        assert training_cost(str(model), 3) == {**expected, "device": "cuda"}


def test_a_model_without_a_run_has_no_training_cost(tmp_path: Path, random_model: Path):
    assert training_cost(str(random_model), None) is None
    assert training_cost("organisation/name", None) is None
    checkpoints = write_run(tmp_path / "run", steps=3)
    (tmp_path / "run" / "metrics.1.jsonl").write_text("no metrics\nat all\n")
    assert training_cost(str(checkpoints), 3) is None
    (tmp_path / "run" / "metrics.1.jsonl").unlink()
    assert training_cost(str(checkpoints), 3) is None


def test_a_recorded_cost_survives_the_runs_folder(options: EvaluationOptions):
    evaluate(options)
    path = options.out / MANIFEST_NAME
    add_training(options.out)
    evaluate(dataclasses.replace(options, method="renamed"))
    assert json.loads(path.read_text())["model"]["training"]["device_seconds"] == 400.0


def test_the_command_writes_each_layout_and_the_picture(write_result: ResultWriter, tmp_path: Path):
    folders = [
        add_training(write_result("g", {"sums": "10", "more": "1"}, {"sums": ["11", "00"], "more": ["11"]})),
        write_result("i", {"sums": "10"}, {"sums": ["11", "11"]}, method="ISPO"),
        write_result("p", {"sums": "10", "more": "1"}, method="PACR", finished=False),
    ]
    out = tmp_path / "out"
    assert cli.main(["table", *map(str, folders), "--cost", "--out", str(out)]) == 0
    text = (out / "table.md").read_text()
    assert "## Accuracy against tokens" in text
    assert "| tiny | GRPO | 75.0 | 9 | not recorded | not recorded | - | 400 | 5,000 |" in text
    assert "| tiny | PACR | unfinished |" in text
    assert "Accuracy against GPU seconds" in (out / "table.tex").read_text()
    rows = {row["method"]: row for row in csv.DictReader((out / "cost.csv").read_text().splitlines())}
    assert (rows["GRPO"]["accuracy"], rows["GRPO"]["training_device_seconds"]) == ("0.75", "400.0")
    assert (rows["ISPO"]["accuracy"], rows["ISPO"]["training_device_seconds"]) == ("", "")
    assert (out / "accuracy_by_tokens.csv").is_file()
    for picture in ("accuracy_by_tokens.png", "cost.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")


def test_averages_of_the_tables_on_request_leave_out_later_benchmarks(write_result: ResultWriter):
    """As those of the scores do: on AIME 2026 nothing is solved here, which the averages must not show."""
    folder = write_result("g", {"sums": "11", "aime26": "0"}, {"sums": ["11", "11"], "aime26": ["00"]})
    groups = group_results([load_result(folder)])
    tokens, cost = cost_parts(groups, ["sums", "aime26"])
    [pass_part] = curve_parts(groups, ["sums", "aime26"])
    assert [row[3].split()[0] for row in tokens.rows if row[0] == "Average"] == ["100.0"]
    assert cost.rows[0][2] == "100.0"
    [average] = [row for row in pass_part.rows if row[0] == "Average"]
    assert average[3].startswith("100.0")
    assert average[-1] == "0.0, 100.0 to 100.0 (2 passes)"
