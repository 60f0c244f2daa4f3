"""Reading verl's metrics.

Derivation: verl's file logger writes ``{"step": s, "data": {...}}`` a line, NaN as null, and starts its file anew at
every start; so attempts are files, a later one counts where steps meet, and the last line of a killed run may be cut
off. Tensorboard's event files carry the same scalars.

Not exercised: event files of other writers than torch's, logs too large for memory.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.report.made_up_run import write_metrics
from verl_ispo.report.errors import ReportInputError
from verl_ispo.report.metric_log import natural_order, read_metric_log


def test_values_are_those_of_the_file(tmp_path: Path):
    write_metrics(tmp_path / "metrics.1.jsonl", {1: {"a": 0.5, "b": 2}, 2: {"a": 0.25, "name": "text"}})
    log = read_metric_log(tmp_path)
    assert log.steps == {1: {"a": 0.5, "b": 2.0}, 2: {"a": 0.25}}
    assert log.gaps == ()


attempt = st.dictionaries(st.integers(0, 9), st.dictionaries(st.sampled_from("ab"), st.floats(-9, 9)), min_size=1)


@given(attempts=st.lists(attempt, min_size=1, max_size=12))
@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_several_attempts_the_last_to_log_a_value_counts(tmp_path_factory: pytest.TempPathFactory, attempts):
    folder = tmp_path_factory.mktemp("run")
    expected: dict[int, dict[str, float]] = {}
    for number, steps in enumerate(attempts, 1):
        write_metrics(folder / f"metrics.{number}.jsonl", steps)
        for step, data in steps.items():
            expected.setdefault(step, {}).update(data)
    log = read_metric_log(folder)
    assert log.steps == expected
    assert list(log.steps) == sorted(expected)


def test_the_tenth_attempt_follows_the_ninth():
    assert sorted(["metrics.10.jsonl", "metrics.9.jsonl"], key=natural_order) == ["metrics.9.jsonl", "metrics.10.jsonl"]


def test_nan_is_a_gap_and_not_a_number(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step":1,"data":{"a":null,"b":1}}\n{"step":2,"data":{"a":NaN,"b":1}}\n{"step":3,"data":{"a":1e999,"b":1}}\n'
        '{"step":4,"data":{"b":1}}\n{"step":5,"data":{"a":7,"b":1}}\n'
    )
    steps, values = read_metric_log(tmp_path).series("a")
    assert steps == [1, 2, 3, 4, 5]
    assert [math.isnan(value) for value in values] == [True] * 4 + [False]
    assert read_metric_log(tmp_path).series("a", sparse=True)[0] == [1, 2, 3, 5]


def test_a_line_that_a_kill_has_cut_off_is_left_out_and_said(tmp_path: Path):
    write_metrics(tmp_path / "metrics.1.jsonl", {1: {"a": 1.0}})
    with (tmp_path / "metrics.1.jsonl").open("a") as file:
        file.write('{"step":2,"data":{"a":')
    log = read_metric_log(tmp_path)
    assert list(log.steps) == [1]
    assert log.gaps == ("metrics.1.jsonl: the last line (2) is cut off and left out",)


def test_repeated_steps_are_said(tmp_path: Path):
    write_metrics(tmp_path / "metrics.1.jsonl", {step: {"a": 1.0} for step in (1, 2, 3)})
    write_metrics(tmp_path / "metrics.2.jsonl", {step: {"a": 2.0} for step in (2, 3)})
    assert read_metric_log(tmp_path).gaps == (
        "metrics.2.jsonl repeats 2 steps (2 to 3) of an earlier attempt; its values are shown",
    )


@pytest.mark.parametrize(
    "content",
    ["a,b\n1,2\n", '{"loss": 3}\n', "[1, 2]\n", '{"step": "1", "data": {}}\n', "[" * 100_000 + "\n"],
    ids=["csv", "other json", "list", "step is text", "deep nesting"],
)
def test_a_foreign_file_is_named(tmp_path: Path, content: str):
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(ReportInputError, match=r"metrics\.jsonl is no metrics log of verl: line 1"):
        read_metric_log(tmp_path)


def test_nothing_to_read_says_what_to_do(tmp_path: Path):
    with pytest.raises(ReportInputError, match="does not exist"):
        read_metric_log(tmp_path / "nowhere")
    with pytest.raises(ReportInputError, match=r"no metrics\*\.jsonl and no tensorboard.*trainer\.logger"):
        read_metric_log(tmp_path)
    (tmp_path / "experiment.jsonl").write_text(json.dumps({"step": 1, "data": {"a": 1}}))
    with pytest.raises(ReportInputError, match=r"it has experiment\.jsonl: give such a file itself"):
        read_metric_log(tmp_path)
    assert list(read_metric_log(tmp_path / "experiment.jsonl").steps) == [1]
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ReportInputError, match="no step yet"):
        read_metric_log(tmp_path)


def test_tensorboard_event_files_are_read_instead(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path / "tensorboard"))
    for step in (1, 2):
        writer.add_scalar("ispo/ifd/wrong/mean", 0.5 * step, step)
    writer.add_scalar("actor/grad_norm", math.nan, 2)
    writer.close()
    log = read_metric_log(tmp_path)
    assert log.series("ispo/ifd/wrong/mean") == ([1, 2], [0.5, 1.0])
    assert math.isnan(log.steps[2]["actor/grad_norm"])
