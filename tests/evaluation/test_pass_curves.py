"""`verl-ispo table --curves`: pass@k by k, G-Pass@k by tau, single passes, in each layout, and the picture.

The numbers of the example are small enough to count: of the 6 pairs of 4 samples with 2 correct ones, 5 hold a correct
one and 1 holds two. Not exercised: what the picture looks like, beyond its being a PNG of both methods.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.evaluation.conftest import ResultWriter
from verl_ispo import cli
from verl_ispo.evaluation.metrics import Metric, parse_metric, problem_scores
from verl_ispo.evaluation.pass_curves import curve_parts, doubling_up_to, single_passes
from verl_ispo.evaluation.results import load_result
from verl_ispo.evaluation.table import group_results
from verl_ispo.user_error import UserError


def write_two(write_result: ResultWriter) -> list[Path]:
    """GRPO solves half of each problem's samples; ISPO one problem always, the other never."""
    return [
        write_result("g", {"sums": "10"}, {"sums": ["1100", "0011"]}),
        write_result("i", {"sums": "10"}, {"sums": ["1111", "0000"]}, method="ISPO"),
    ]


def test_k_doubles_up_to_the_number_of_samples():
    assert [doubling_up_to(n) for n in (1, 2, 6, 16)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16]]


def test_what_is_alike_at_one_sample_differs_in_reach_and_stability(write_result: ResultWriter):
    groups = group_results([load_result(folder) for folder in write_two(write_result)])
    pass_part, g_part = curve_parts(groups, ["sums"])
    grpo, ispo = pass_part.charts[0].curves
    assert (grpo.label, grpo.x, grpo.y) == ("GRPO", (1, 2, 4), (0.5, pytest.approx(5 / 6), 1.0))
    assert (ispo.label, ispo.y) == ("ISPO", (0.5, 0.5, 0.5))
    # all four of four: never for GRPO, on one of two problems for ISPO; half of them: always for GRPO
    scores = {(row[2], row[3]): row[6] for row in g_part.csv_rows}
    assert (scores["GRPO", "g_pass@4_1"], scores["ISPO", "g_pass@4_1"]) == (0.0, 0.5)
    assert (scores["GRPO", "g_pass@4_0.5"], scores["ISPO", "g_pass@4_0.5"]) == (1.0, 0.5)
    assert (scores["GRPO", "mg_pass@4"], scores["ISPO", "mg_pass@4"]) == (0.0, 0.5)


def test_single_passes_show_what_one_sample_per_problem_could_have_said(write_result: ResultWriter):
    result = load_result(write_result("g", {"sums": "10", "other": "1"}, {"sums": ["1100", "0101"], "other": ["1111"]}))
    assert single_passes([result], ["sums"]) == [[0.5, 1.0, 0.0, 0.5]]
    assert single_passes([result], ["sums", "other"]) == [[0.75, 1.0, 0.5, 0.75]]
    [part, *_] = curve_parts(group_results([result]), ["sums"])
    assert part.rows[0][-1] == "40.8, 0.0 to 100.0 (4 passes)"  # sqrt((0 + 0.25 + 0.25 + 0) / 3)


def test_fewer_samples_and_unfinished_results_say_so(write_result: ResultWriter):
    folders = [
        *write_two(write_result),
        write_result("few", {"sums": "10"}, {"sums": ["1", "0"]}, method="GTPO"),
        write_result("none", {"sums": "10"}, method="PACR", finished=False),
    ]
    [part, _] = curve_parts(group_results([load_result(folder) for folder in folders]), ["sums"])
    rows = {row[2]: row[3:] for row in part.rows}
    assert list(rows["GTPO"][1:]) == ["not run (n = 1)", "not run (n = 1)", "one pass"]
    assert "PACR" not in rows


def test_greedy_responses_alone_make_no_curve(write_result: ResultWriter):
    groups = group_results([load_result(write_result("greedy", {"sums": "10"}))])
    with pytest.raises(UserError, match="--curves: these results have greedy responses alone"):
        curve_parts(groups, ["sums"])


def test_the_command_writes_each_layout_and_the_picture(write_result: ResultWriter, tmp_path: Path):
    folders = write_two(write_result)
    assert cli.main(["table", *map(str, folders), "--curves", "--out", str(tmp_path / "out")]) == 0
    out = tmp_path / "out"
    assert "| sums | tiny | GRPO | 50.0 [no interval] |" in (out / "table.md").read_text()
    assert "G-Pass@k by tau" in (out / "table.tex").read_text()
    lines = list(csv.DictReader((out / "pass_at_k.csv").read_text().splitlines()))
    found = [(line["method"], line["metric"], float(line["score"])) for line in lines]
    assert ("GRPO", "pass@2", pytest.approx(5 / 6)) in found
    assert (out / "g_pass_at_k.csv").is_file()
    assert (out / "pass_at_k.png").read_bytes().startswith(b"\x89PNG")


def test_without_the_option_nothing_is_added(write_result: ResultWriter, tmp_path: Path):
    assert cli.main(["table", *map(str, write_two(write_result)), "--out", str(tmp_path / "out")]) == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        *("comparisons.csv", "scores.csv", "table.md", "table.tex")
    ]


def test_g_pass_is_a_metric_like_others(write_result: ResultWriter):
    benchmark = load_result(write_two(write_result)[0]).benchmarks["sums"]
    metric = parse_metric("g_pass@2_0.75")
    assert metric == Metric("g_pass", 2, 0.75)
    assert metric.name == "g_pass@2_0.75"
    assert problem_scores(benchmark, metric).tolist() == [pytest.approx(1 / 6)] * 2
    assert problem_scores(benchmark, parse_metric("mg_pass@4")).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("text", ["g_pass@4", "g_pass@4_0", "g_pass@4_0.0", "g_pass@4_1.5", "g_pass@4_half"])
def test_a_metric_without_a_share_is_refused(text: str):
    with pytest.raises(UserError, match=r"g_pass@K_TAU, such as g_pass@16_0\.5"):
        parse_metric(text)


def test_a_threshold_that_is_no_share_is_refused(
    write_result: ResultWriter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["--curves", "--thresholds", "0.5", "50", "--out", str(tmp_path / "out")]
    assert cli.main(["table", str(write_two(write_result)[0]), *arguments]) == 2
    assert "--thresholds 0.5 50.0: give shares above 0 and up to 1" in capsys.readouterr().err
