"""The table: golden files, what is refused, and how seeds, samples, missing runs and the paper's scores appear.

The golden files hold the output for small fixed grades, byte for byte; the numbers in them are checked by hand here:
of 10 problems of AIME24 GRPO solves 3 (seed 1) and 4 (seed 2), so 35.0 with a deviation of sqrt(0.5) * 10 = 7.1 points;
of AMC23's 6 problems 3 and 3. ISPO solves 5 and 4. ``VERL_ISPO_UPDATE_GOLDEN=1`` rewrites them (then read the diff).
Their intervals are scipy's, pinned in requirements/cpu.txt.

Not exercised: whether LaTeX compiles the file (no TeX here); its escapes are checked as text.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.conftest import ResultWriter
from verl_ispo import cli
from verl_ispo.evaluation.baseline_comparison import compare
from verl_ispo.evaluation.document import build_document
from verl_ispo.evaluation.layout_csv import format_scores_csv
from verl_ispo.evaluation.layout_latex import format_latex
from verl_ispo.evaluation.layout_markdown import format_markdown
from verl_ispo.evaluation.metrics import Metric, parse_metric, problem_scores
from verl_ispo.evaluation.paper_results import AMC_NOTE, BASELINE_NOTE, COUNT_NOTE, find_figure, paper_figures
from verl_ispo.evaluation.results import SAMPLES_NAME, load_result
from verl_ispo.evaluation.statistics import mean_interval
from verl_ispo.evaluation.table import group_results
from verl_ispo.user_error import UserError

GOLDEN = Path(__file__).parent / "golden"
QWEN = "Qwen/Qwen2.5-Math-1.5B"
GREEDY = Metric("greedy", 1)


def write_example(write_result: ResultWriter) -> list[Path]:
    """Two seeds of GRPO, one of ISPO, a base model that ran one benchmark, and an unfinished one."""

    def sampled(greedy: dict[str, str], pattern: list[str]) -> dict[str, list[str]]:
        return {name: [pattern[i % len(pattern)] for i in range(len(grades))] for name, grades in greedy.items()}

    grpo1 = {"aime24": "1110000000", "amc23": "111000"}
    grpo2 = {"aime24": "1111000000", "amc23": "110001"}
    ispo = {"aime24": "1110011000", "amc23": "111100"}
    base = {"aime24": "0000000000"}
    return [
        write_result("base", base, sampled(base, ["0000"]), base_model=QWEN, method="Base", rule="hub model"),
        write_result("grpo-1", grpo1, sampled(grpo1, ["1000", "1100"]), base_model=QWEN, training_seed=1),
        write_result("grpo-2", grpo2, sampled(grpo2, ["0100", "0000"]), base_model=QWEN, training_seed=2),
        write_result(
            "ispo-1", ispo, sampled(ispo, ["1110", "0100", "0000"]), base_model=QWEN, method="ISPO", training_seed=1
        ),
        write_result("pacr", ispo, base_model=QWEN, method="PACR", finished=False),
    ]


@pytest.mark.parametrize("name", ["table.md", "scores.csv", "comparisons.csv", "table.tex"])
def test_golden_files(name: str, write_result: ResultWriter, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folders = write_example(write_result)
    assert cli.main(["table", *map(str, folders), "--out", str(tmp_path / "out")]) == 0
    found = (tmp_path / "out" / name).read_text(encoding="utf-8")
    if os.environ.get("VERL_ISPO_UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(found, encoding="utf-8")
    assert found == (GOLDEN / name).read_text(encoding="utf-8")
    if name == "table.md":
        assert found in capsys.readouterr().out


def test_the_numbers_behind_the_golden_files(write_result: ResultWriter):
    document = build_document([load_result(folder) for folder in write_example(write_result)])
    rows = {row.method: row for row in document.tables[0].rows}
    aime, amc, average = (
        rows["GRPO"].cells[document.tables[0].columns.index(n)] for n in ("AIME24", "AMC23", "Average")
    )
    assert aime.score.value == pytest.approx(0.35)
    assert aime.score.seed_deviation == pytest.approx(0.5**0.5 / 10)
    assert aime.score.problems == 10
    assert (amc.score.value, amc.score.seed_deviation) == (pytest.approx(0.5), pytest.approx(0.0))
    assert aime.paper.percent == 13.3
    assert average.missing == "not run"  # the paper's other three benchmarks
    assert rows["Base"].cells[2].missing == "not run"
    assert rows["PACR"].cells[0].missing == "unfinished"
    assert [document.tables[i].metric.name for i in range(4)] == ["pass@1_greedy", "avg@4", "maj@4", "pass@4"]


def test_seeds_are_averaged_by_problem_and_never_pooled(write_result: ResultWriter):
    grades = ["1" * 9 + "0" * 21, "1" * 9 + "0" * 21, "0" * 21 + "1" * 9]
    folders = [write_result(f"s{seed}", {"aime24": g}, training_seed=seed) for seed, g in enumerate(grades)]
    document = build_document([load_result(folder) for folder in folders])
    score = document.tables[0].rows[0].cells[0].score
    assert score.problems == 30
    assert len(score.seeds) == 3
    by_problem = np.mean([[int(mark) for mark in marks] for marks in grades], axis=0)
    assert score.interval == mean_interval(by_problem)
    pooled = mean_interval([int(mark) for marks in grades for mark in marks])
    assert score.interval != pooled
    # two seeds that agree in everything do not narrow the interval, and their deviation is 0
    twice = build_document([load_result(folder) for folder in folders[:2]]).tables[0].rows[0].cells[0].score
    assert twice.interval == mean_interval([int(mark) for mark in grades[0]])
    assert twice.seed_deviation == 0.0


def test_metrics_take_the_first_k_samples_and_pass_at_k_all_of_them(write_result: ResultWriter):
    result = load_result(write_result("a", {"aime24": "10"}, {"aime24": ["1100", "0001"]}))
    benchmark = result.benchmarks["aime24"]
    assert problem_scores(benchmark, parse_metric("avg@2")).tolist() == [1.0, 0.0]
    assert problem_scores(benchmark, parse_metric("avg@4")).tolist() == [0.5, 0.25]
    assert problem_scores(benchmark, parse_metric("maj@4")).tolist() == [0.5, 0.0]
    assert problem_scores(benchmark, parse_metric("pass@2")).tolist() == [pytest.approx(5 / 6), 0.5]
    assert problem_scores(benchmark, parse_metric("pass@1_greedy")).tolist() == [1.0, 0.0]
    assert problem_scores(benchmark, parse_metric("pass@8")) == "not run (n = 4)"


@pytest.mark.parametrize("text", ["pass@0", "avg@", "best@4", "pass@1", "mean", "pass@-1"])
def test_unknown_metrics_are_refused(text: str):
    if text == "pass@1":
        assert parse_metric(text) == Metric("pass", 1)
        return
    with pytest.raises(UserError, match="give pass@1_greedy, avg@K"):
        parse_metric(text)


def test_a_reward_function_without_answers_leaves_maj_empty(write_result: ResultWriter):
    folder = write_result("a", {"aime24": "10"}, {"aime24": ["11", "00"]})
    text = (folder / SAMPLES_NAME).read_text().replace('"answer 1"', "null").replace('"answer 0"', "null")
    (folder / SAMPLES_NAME).write_text(text)
    assert problem_scores(load_result(folder).benchmarks["aime24"], Metric("maj", 2)) == "no answers recorded"


# --- comparisons


def test_comparisons_are_paired_tested_exactly_and_corrected_together(write_result: ResultWriter):
    folders = [
        write_result("g", {"a": "1" * 5 + "0" * 15, "b": "1" * 10 + "0" * 10}, method="GRPO"),
        write_result("i", {"a": "1" * 14 + "0" * 6, "b": "1" * 10 + "0" * 9 + "1"}, method="ISPO"),
    ]
    document = build_document([load_result(folder) for folder in folders])
    assert document.baseline == "GRPO"
    on_a, on_b, average = document.comparisons
    assert on_a.difference == pytest.approx(9 / 20)
    assert (on_a.test.name, on_a.test.only_first, on_a.test.only_second) == ("mcnemar_exact", 9, 0)
    assert on_a.test.p_value == pytest.approx(2 / 2**9)
    assert on_b.test.p_value == 1.0
    assert average.difference == pytest.approx((9 / 20 + 1 / 20) / 2)
    assert average.test.name == "sign_flip"
    assert average.test.p_value == pytest.approx(2 / 2**10)
    # three tests: the smallest times 3, the next times 2, never falling
    assert average.p_holm == pytest.approx(3 * 2 / 2**10)
    assert on_a.p_holm == pytest.approx(2 * 2 / 2**9)
    assert on_b.p_holm == 1.0


def test_with_several_seeds_averages_are_compared_and_not_single_answers(write_result: ResultWriter):
    folders = [
        write_result("g1", {"a": "1000"}, training_seed=1),
        write_result("g2", {"a": "0000"}, training_seed=2),
        write_result("i1", {"a": "1110"}, method="ISPO", training_seed=1),
    ]
    [comparison] = build_document([load_result(folder) for folder in folders]).comparisons
    assert comparison.test.name == "sign_flip"
    assert comparison.difference == pytest.approx(0.75 - 0.125)
    assert comparison.seeds == (1, 2)


def test_the_baseline_is_of_the_same_base_model_and_can_be_chosen(write_result: ResultWriter):
    results = [
        load_result(write_result("a", {"x": "10"}, method="Base", base_model="small")),
        load_result(write_result("b", {"x": "11"}, method="ISPO", base_model="small")),
        load_result(write_result("c", {"x": "11"}, method="ISPO", base_model="large")),
    ]
    document = build_document(results)
    assert [(c.base_model, c.method, c.baseline) for c in document.comparisons] == [("small", "ISPO", "Base")]
    assert build_document(results, baseline="ispo").comparisons[0].method == "Base"
    with pytest.raises(UserError, match="--baseline PACR: not among the methods"):
        build_document(results, baseline="PACR")
    assert compare(group_results(results), ["x"], [Metric("maj", 2)], "Base") == []


# --- refusals


def load_all(*folders: Path) -> None:
    build_document([load_result(folder) for folder in folders])


def test_other_problems_are_refused_with_the_ids_that_differ(write_result: ResultWriter):
    one, two = write_result("a", {"aime24": "1010"}), write_result("b", {"aime24": "10100"}, method="ISPO")
    with pytest.raises(UserError, match=r"not on the same problems \(1 only in .*/b: aime24-4\)"):
        load_all(one, two)
    with pytest.raises(UserError, match=r"1 only in .*/b: aime24-4"):
        load_all(two, one)


def test_other_ground_truths_are_other_problems(write_result: ResultWriter):
    one = write_result("a", {"aime24": "10"}, truth="384")
    two = write_result("b", {"aime24": "10"}, truth="385", method="ISPO")
    with pytest.raises(UserError, match=r"aime24-0: ground truth '384' in .* '385' in"):
        load_all(one, two)


def test_two_results_with_one_name_are_refused(write_result: ResultWriter):
    one, two = write_result("a", {"x": "10"}, training_seed=1), write_result("b", {"x": "10"}, training_seed=1)
    with pytest.raises(UserError, match=r"/a and .*/b are both tiny, GRPO, training seed 1"):
        load_all(one, two)


@pytest.mark.parametrize("option", ["temperature", "max_new_tokens", "top_p", "context_tokens"])
def test_other_sampling_is_refused_within_a_base_model(write_result: ResultWriter, option: str):
    one = write_result("a", {"x": "10"})
    two = write_result("b", {"x": "10"}, method="ISPO", options={option: 0.5})
    with pytest.raises(UserError, match=rf"evaluated by other rules \({option}: .* and 0\.5\)"):
        load_all(one, two)
    other_model = write_result("c", {"x": "10"}, base_model="large", options={option: 0.5})
    load_all(one, other_model)


def test_another_grader_is_refused(write_result: ResultWriter):
    one, two = write_result("a", {"x": "10"}), write_result("b", {"x": "10"}, method="ISPO")
    manifest = json.loads((two / "manifest.json").read_text())
    manifest["grader"]["math_verify"] = "0.8.0"
    (two / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"reward function: .*0\.9\.0.* and .*0\.8\.0"):
        load_all(one, two)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda text: text.replace('"correct": true', '"correct": NaN', 1),
            "line 1: not a sample .*NaN is not a score",
        ),
        (lambda text: text.replace('"correct": true', '"correct": 1', 1), "line 1: a field .* wrong type"),
        (lambda text: text[:-20], "line 6: not a sample"),
        (lambda text: "".join(text.splitlines(keepends=True)[:-1]), "2 samples of x x-1 where the manifest has 3"),
        (lambda text: text + text.splitlines(keepends=True)[0], "has sample .* twice"),
        (lambda text: text + text.splitlines(keepends=True)[0].replace("x-0", "x-9"), "questions.jsonl does not have"),
    ],
)
def test_damaged_samples_are_refused(write_result: ResultWriter, damage, said: str):
    folder = write_result("a", {"x": "11"}, {"x": ["10", "01"]})
    (folder / SAMPLES_NAME).write_text(damage((folder / SAMPLES_NAME).read_text()))
    with pytest.raises(UserError, match=said):
        load_result(folder)


def test_folders_that_are_no_result_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["table", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"no manifest\.json; give a folder that verl-ispo eval has written"):
        load_result(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match="format 99, this version reads 1"):
        load_result(tmp_path)
    (tmp_path / "manifest.json").write_text("[")
    with pytest.raises(UserError, match="not a manifest"):
        load_result(tmp_path)


# --- the paper's figures


def test_the_papers_figures_are_found_by_any_spelling_and_carry_their_caveats():
    figure = find_figure("Qwen/Qwen2.5-Math-7B", "dr.grpo", "amc23", "pass@1_greedy")
    assert (figure.percent, figure.source) == (56.6, "table1")
    assert figure.notes == (BASELINE_NOTE, AMC_NOTE)
    assert find_figure("qwen2.5-7b", "ispo", "math500", "pass@32").percent == 95.6
    assert find_figure("qwen2.5-7b", "ispo", "math500", "pass@32").notes == ()
    assert find_figure("qwen2.5-7b", "ispo_guarded", "math500", "pass@32") is None
    assert len(paper_figures()) == 115
    assert {figure.source for figure in paper_figures()} == {"table1", "table4"}


def test_rows_of_the_paper_that_nobody_ran_hold_no_score_of_ours(write_result: ResultWriter):
    result = load_result(write_result("a", {"aime24": "10"}, base_model=QWEN, method="ISPO"))
    of_model = build_document([result], [GREEDY], paper_rows="models").tables[0]
    assert [row.method for row in of_model.rows] == ["ISPO", "Base", "GRPO", "Dr.GRPO", "PACR", "Scaf-GRPO", "PREPO"]
    everything = build_document([result], [GREEDY], paper_rows="all")
    assert len({row.base_model for row in everything.tables[0].rows}) == 3
    cells = [cell for row in everything.tables[0].rows for cell in row.cells]
    assert sum(cell.score is not None for cell in cells) == 1
    assert all(cell.missing == "not run" for cell in cells if cell.score is None)
    rows = list(csv.DictReader(format_scores_csv(everything).splitlines()))
    assert all(row["score_percent"] == "" for row in rows if row["status"] != "run")


def test_another_number_of_problems_than_the_benchmark_has_is_named(write_result: ResultWriter):
    part = load_result(write_result("a", {"aime24": "10"}, base_model=QWEN, method="ISPO"))
    whole = load_result(write_result("b", {"amc23": "10" * 20}, base_model=QWEN, method="ISPO", training_seed=2))
    assert build_document([part], [GREEDY]).notes == (COUNT_NOTE,)
    assert "n=2 (a); paper 27.8" in format_markdown(build_document([part], [GREEDY]))
    assert build_document([whole], [GREEDY]).notes == ()


def test_a_step_chosen_by_hand_is_named(write_result: ResultWriter):
    folders = [
        write_result("a", {"x": "10"}),
        write_result("b", {"x": "10"}, method="ISPO", rule="step 80, chosen by hand (last: 100)"),
    ]
    document = build_document([load_result(folder) for folder in folders])
    assert document.remarks[0] == (
        "Checkpoint rule: last step (tiny GRPO); step 80, chosen by hand (last: 100) (tiny ISPO). "
        "A step that was chosen by hand may have been chosen by its score."
    )


def test_contests_later_than_the_paper_are_columns_but_in_no_average_with_its_benchmarks(write_result: ResultWriter):
    names = ("aime24", "aime25", "amc23", "math500", "olympiadbench", "aime26", "hmmt_feb25")
    five, later = dict.fromkeys(names[:5], "10"), dict.fromkeys(names[5:], "11")
    folders = [
        write_result("g", {**five, **later}, base_model=QWEN, method="GRPO"),
        write_result("i", {**five, **later, "aime24": "11"}, base_model=QWEN, method="ISPO"),
    ]
    document = build_document([load_result(folder) for folder in folders], [GREEDY])
    table = document.tables[0]
    assert table.columns[-3:] == ("aime26", "hmmt_feb25", "Average")
    assert [row.cells[-1].score.value for row in table.rows] == [pytest.approx(0.5), pytest.approx(0.6)]
    [average] = [comparison for comparison in document.comparisons if comparison.benchmark == "Average"]
    assert average.difference == pytest.approx(0.1)
    assert "The average leaves out aime26, hmmt_feb25, later than the paper and its models." in document.remarks
    alone = build_document([load_result(write_result("l", later))], [GREEDY])
    assert alone.tables[0].rows[0].cells[-1].score.value == 1.0


# --- hostile names


def test_names_cannot_break_out_of_their_cell(write_result: ResultWriter):
    name = "a|b <script>alert(1)</script> [x](javascript:1)\n%$&#_{}~^\\"
    document = build_document([load_result(write_result("a", {"x": "10"}, method=name))])
    [line] = [line for line in format_markdown(document).splitlines() if "a\\|b" in line and "training" not in line][:1]
    assert "<script>" not in line
    assert "](" not in line
    assert line.count(" | ") == 3
    latex = format_latex(document)
    assert r"\%\$\&\#\_\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in latex
    assert "<script>" not in latex
