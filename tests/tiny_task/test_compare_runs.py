"""The summary of runs, on logs made up here with verl's own line format.

The logs are written as verl's ``FileLogger`` writes them (orjson, one object per line, NaN as null);
test_with_verl.py checks this against the real class. Accuracies, standard errors and differences are worked out by
hand.

Not exercised: how the figure looks (it was looked at by eye); that its panels exist, that gaps are gaps and that
it is a PNG of the stated width is checked.
"""

import math

import orjson
import pandas as pd
import pytest
from PIL import Image

from verl_ispo.report import line_chart
from verl_ispo.runs.metric_log import read_metric_table
from verl_ispo.tiny_task import compare_runs, curves
from verl_ispo.tiny_task.accuracy import Accuracy, difference, read_accuracies

LEVELS = range(1, 7)


def validation(*solved):
    """verl's metrics of one validation, from the number of solved problems (of 50) of each level."""
    return {
        f"val-core/tiny_arithmetic_level{level}/acc/mean@1": count / 50
        for level, count in zip(LEVELS, solved, strict=True)
    }


def training(step, dropped=0.5, composite=0.0):
    return {
        "critic/score/mean": 0.3 + 0.004 * step,
        "ispo/zero_adv_rate/outcome": 0.4,
        "ispo/zero_adv_rate/composite": composite,
        "ispo/critical_entropy/wrong": 0.6,
        "ispo/trace_dropped_rate": dropped,
        "ispo/answer_missing_rate": 0.01,
        "ispo/trace_length": 20.0,
        "ispo/advantage_share/all_wrong": 0.3,
        "ispo/ifd/correct/mean": 1.5,
        "ispo/ifd/wrong/mean": 2.6,
        "timing_s/step": 1.5,
        "timing_s/old_log_prob": 0.2,
        "timing_s/ispo_ablated_log_prob": 0.05,
    }


def write_log(folder, entries, name="metrics.jsonl", tail=b""):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [orjson.dumps({"step": step, "data": data}, option=orjson.OPT_SERIALIZE_NUMPY) for step, data in entries]
    (folder / name).write_bytes(b"".join(line + b"\n" for line in lines) + tail)
    return folder


def plain(runs, problems_per_level):
    """The text without its line breaks, so that a sentence can be looked for."""
    return " ".join(compare_runs.describe(runs, problems_per_level).split())


def make_run(folder, final, dropped_at_end=0.01, steps=30):
    start = validation(48, 15, 9, 11, 6, 1)
    entries = [(0, start)]
    for step in range(1, steps + 1):
        share = step / steps
        data = training(step, dropped=0.6 + share * (dropped_at_end - 0.6), composite=0.0)
        if step == steps:
            data |= validation(*final)
        entries.append((step, data))
    return write_log(folder, entries)


@pytest.fixture
def three_runs(tmp_path):
    make_run(tmp_path / "grpo", (50, 50, 48, 25, 20, 7))  # 200 of 300
    make_run(tmp_path / "ispo", (50, 40, 30, 20, 10, 5), dropped_at_end=0.4)  # 155 of 300
    make_run(tmp_path / "ispo_guarded", (50, 50, 48, 26, 20, 8))  # 202 of 300
    return [tmp_path / name for name in ("ispo_guarded", "grpo", "ispo")]


def test_the_standard_error_is_that_of_stratified_counts():
    accuracy = Accuracy(10, {"1": 50, "2": 25, "3": 0, "4": 10}, 50)
    assert accuracy.mean == 0.425
    assert accuracy.standard_error == pytest.approx(math.sqrt((0.25 + 0.16) / 50) / 4)
    other = Accuracy(10, {"1": 50, "2": 0, "3": 0, "4": 0}, 50)
    found = difference(accuracy, other)
    assert found.value == pytest.approx(0.175)
    assert found.standard_error == pytest.approx(accuracy.standard_error)
    assert found.beyond_noise
    assert not difference(accuracy, accuracy).beyond_noise


def test_the_interval_says_something_at_0_and_at_1():
    low, high = Accuracy(0, {"1": 0}, 50).interval("1")
    assert low == pytest.approx(0, abs=1e-12)
    # Wilson at 0 of n: z² / (n + z²)
    assert high == pytest.approx(1.959964**2 / (50 + 1.959964**2), rel=1e-4)


def test_accuracies_that_do_not_fit_the_number_of_problems_are_pointed_out(tmp_path):
    run = read_metric_table(write_log(tmp_path, [(0, validation(1, 2, 3, 4, 5, 7))]))
    assert read_accuracies(run, 50)[0].solved == dict(zip("123456", (1, 2, 3, 4, 5, 7), strict=True))
    with pytest.warns(UserWarning, match="not multiples of 1/40"):
        read_accuracies(run, 40)


def test_a_validation_that_lacks_a_level_is_left_out(tmp_path):
    partial = validation(1, 2, 3, 4, 5, 6)
    partial.popitem()
    run = read_metric_table(write_log(tmp_path, [(0, validation(1, 2, 3, 4, 5, 6)), (5, partial)]))
    assert [accuracy.step for accuracy in read_accuracies(run, 50)] == [0]


def test_the_rows_have_a_fixed_order(three_runs, tmp_path):
    extra = make_run(tmp_path / "a_run_of_mine", (50, 50, 48, 26, 20, 8))
    runs = compare_runs.read_runs([extra, *three_runs])
    assert list(runs) == ["GRPO", "ISPO (literal)", "ISPO (guarded)", "a_run_of_mine"]
    accuracies = {label: read_accuracies(run, 50) for label, run in runs.items()}
    assert list(compare_runs.accuracy_table(accuracies).index) == list(runs)
    assert list(compare_runs.signal_table(runs).index) == list(runs)


def test_the_table_shows_the_counts(three_runs):
    runs = compare_runs.read_runs(three_runs)
    table = compare_runs.accuracy_table({label: read_accuracies(run, 50) for label, run in runs.items()})
    assert table.loc["GRPO"].to_dict() == {
        **{"step": "30", "start": "0.300", "final": "0.667", "s.e.": "0.019"},
        **{"L1": "1.00", "L2": "1.00", "L3": "0.96", "L4": "0.50", "L5": "0.40", "L6": "0.14"},
    }
    signals = compare_runs.signal_table(runs)
    assert signals.loc["GRPO", "zero adv. outcome"] == "0.40 / 0.40"
    assert signals.loc["GRPO", "zero adv. composite"] == "0.00 / 0.00"
    assert signals.loc["GRPO", "step time (s)"] == "1.50 / 1.50"


def test_the_text_says_what_the_numbers_show(three_runs):
    text = plain(compare_runs.read_runs(three_runs), 50)
    assert "300 problems, 50 per level" in text
    assert "GRPO at step 30 against its start: +0.367 (standard error 0.027), higher by more than noise." in text
    assert "ISPO (literal) against GRPO: -0.150 (standard error 0.029), lower by more than noise." in text
    assert "ISPO (guarded) against GRPO: +0.007 (standard error 0.027), within noise." in text
    assert "ISPO (guarded) against ISPO (literal): +0.157" in text
    assert "GRPO: in 30 of 30 steps at least one group's outcomes were all equal" in text
    assert "the latter was 0 in 30 steps and at most 0.00" in text
    # dropped traces fall linearly from 0.6 to 0.01 and 0.4: at steps 21 to 30 the gap is 0.85 x 0.39 on average
    assert "This happened here: compared with GRPO, ISPO (literal) ended" in text
    assert "ISPO (literal) ended with more answers without a trace (+0.33" in text
    assert "and lower accuracy (-0.150)" in text
    assert "more missing answers" not in text
    assert "in nats per token) in the first 10 steps: GRPO 1.50 for correct and 2.60 for incorrect rollouts;" in text
    assert "forward pass (trace ablated) and of the old log-probs: GRPO 0.050 s and 0.150 s;" in text
    assert "One run of each method" in text


def test_the_text_follows_the_numbers_and_not_the_names(three_runs, tmp_path):
    """The same logs under exchanged names: each verdict is turned around."""
    (tmp_path / "swapped").mkdir()
    (tmp_path / "grpo").rename(tmp_path / "swapped" / "ispo")
    (tmp_path / "ispo").rename(tmp_path / "swapped" / "grpo")
    text = plain(compare_runs.read_runs([tmp_path / "swapped" / name for name in ("grpo", "ispo")]), 50)
    assert "ISPO (literal) against GRPO: +0.150 (standard error 0.029), higher by more than noise." in text
    assert "This did not happen here" in text


def test_a_composite_that_collapses_is_reported(tmp_path):
    entries = [(0, validation(1, 1, 1, 1, 1, 1))]
    entries += [(step, training(step, composite=0.25 if step == 3 else 0.0)) for step in range(1, 5)]
    text = plain(compare_runs.read_runs([write_log(tmp_path / "ispo", entries)]), 50)
    assert "the latter was 0 in 3 steps and at most 0.25" in text


def test_what_was_not_logged_is_a_dash(tmp_path, capsys):
    entries = [(step, {"timing_s/step": 1.0, "ispo/critical_entropy/wrong": None}) for step in (1, 2)]
    compare_runs.main(["--runs", str(write_log(tmp_path / "grpo", entries)), "--out", str(tmp_path / "out")])
    text = capsys.readouterr().out
    [signals] = [line for line in text.splitlines() if line.startswith("GRPO") and "/" in line]
    assert signals.split() == ["GRPO", "-", "-", "-", "-", "-", "1.00", "/", "1.00"]
    assert "0 validation(s)" in text
    assert (tmp_path / "out" / "curves.png").exists()


def test_runs_at_different_steps_are_not_compared(tmp_path):
    folders = [
        make_run(tmp_path / "grpo", (50, 50, 48, 25, 20, 7), steps=30),
        make_run(tmp_path / "ispo", (50, 40, 30, 20, 10, 5), steps=20),
    ]
    text = plain(compare_runs.read_runs(folders), 50)
    assert "ISPO (literal) and GRPO were last validated at steps 20 and 30; not compared." in text
    assert "ISPO (literal) against GRPO" not in text
    assert "Whether this happened here cannot be said" in text


def test_the_command_prints_and_writes_the_same(three_runs, tmp_path, capsys):
    out = tmp_path / "out"
    compare_runs.main(["--runs", *map(str, three_runs), "--out", str(out)])
    printed = capsys.readouterr().out
    assert (out / "summary.txt").read_text() in printed
    assert printed.rstrip().endswith(str(out / "curves.png"))
    assert sorted(path.name for path in out.iterdir()) == ["curves.png", "summary.txt"]
    with Image.open(out / "curves.png") as image:
        assert image.format == "PNG"
        assert image.width == 12 * line_chart.DPI


def test_a_gap_in_a_metric_is_a_gap_in_the_curve():
    from matplotlib.figure import Figure

    values = [0.5] * 10 + [math.nan] * 10 + [0.5] * 10
    run = pd.DataFrame({"m": values}, index=range(1, 31))
    axes = Figure().subplots()
    line_chart.draw_on(axes, curves.metric_lines({"GRPO": run}, "m"), line_chart.Axes("", (1, 30)))
    for line in axes.get_lines():
        drawn = pd.Series(line.get_ydata(), line.get_xdata())
        assert drawn[11:20].isna().all()
        assert drawn[1:10].notna().all()


@pytest.mark.parametrize("arguments", [["nowhere"], ["a/grpo", "b/grpo"]])
def test_bad_folders_are_named(tmp_path, arguments, capsys):
    for folder in ("a/grpo", "b/grpo"):
        make_run(tmp_path / folder, (1, 1, 1, 1, 1, 1))
    folders = [str(tmp_path / name) for name in arguments]
    assert compare_runs.main(["--runs", *folders, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "nowhere" in error or "GRPO is given twice" in error
    assert not (tmp_path / "out").exists()
