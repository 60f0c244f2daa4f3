"""Reading verl's metrics.

Derivation: verl's file logger writes one ``{"step": s, "data": {...}}`` per line, NaN as null, and overwrites its file
at every start; so each attempt is a file, the later one counts where both have a step, and the last line of a killed
run may be cut off. Tensorboard's event files carry the same scalars.

Not exercised: event files of other writers than torch's, logs too large for memory.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.report.made_up_run import write_metrics
from verl_ispo.runs.metric_log import metric, natural_order, read_metric_log, read_metric_table
from verl_ispo.user_error import UserError


def write_log(folder, entries, name="metrics.jsonl", tail=b""):
    """Entries as verl's ``file`` logger writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [orjson.dumps({"step": step, "data": data}, option=orjson.OPT_SERIALIZE_NUMPY) for step, data in entries]
    (folder / name).write_bytes(b"".join(line + b"\n" for line in lines) + tail)
    return folder


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


def test_the_attempt_without_a_number_is_the_first(tmp_path: Path):
    write_metrics(tmp_path / "metrics.jsonl", {1: {"a": 1.0}})
    write_metrics(tmp_path / "metrics.2.jsonl", {1: {"a": 2.0}})
    assert read_metric_log(tmp_path).steps == {1: {"a": 2.0}}


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
    with pytest.raises(UserError, match=r"metrics\.jsonl is not a metrics log of verl: line 1"):
        read_metric_log(tmp_path)


def test_nothing_to_read_says_what_to_do(tmp_path: Path):
    with pytest.raises(UserError, match="does not exist"):
        read_metric_log(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no metrics\*\.jsonl and no tensorboard.*trainer\.logger"):
        read_metric_log(tmp_path)
    (tmp_path / "experiment.jsonl").write_text(json.dumps({"step": 1, "data": {"a": 1}}))
    with pytest.raises(UserError, match=r"it has experiment\.jsonl: give one of these files itself"):
        read_metric_log(tmp_path)
    assert list(read_metric_log(tmp_path / "experiment.jsonl").steps) == [1]
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="no step yet"):
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


def test_a_log_is_read_by_step_and_metric(tmp_path):
    run = read_metric_table(write_log(tmp_path, [(1, {"a": 1, "b": 2.5}), (2, {"a": 3})]))
    assert run.loc[1].to_dict() == {"a": 1.0, "b": 2.5}
    assert math.isnan(run.loc[2, "b"])  # a gap, not 0


def test_two_lines_of_one_step_are_joined(tmp_path):
    run = read_metric_table(write_log(tmp_path, [(0, {"a": 1}), (0, {"b": 2})]))
    assert run.loc[0].to_dict() == {"a": 1.0, "b": 2.0}


def test_later_attempts_win_in_the_order_of_their_numbers(tmp_path):
    write_log(tmp_path, [(1, {"a": 1}), (2, {"a": 1, "b": 1})], "metrics.jsonl")
    write_log(tmp_path, [(2, {"a": 10}), (3, {"a": 10})], "metrics.10.jsonl")
    write_log(tmp_path, [(2, {"a": 2}), (3, {"a": 2})], "metrics.2.jsonl")
    run = read_metric_table(tmp_path)
    assert run["a"].to_dict() == {1: 1.0, 2: 10.0, 3: 10.0}
    assert run.loc[2, "b"] == 1.0


def test_a_last_line_cut_off_anywhere_is_passed_over(tmp_path, recwarn):
    whole = orjson.dumps({"step": 2, "data": {"a": 12.5}})
    for length in range(len(whole)):
        run = read_metric_table(write_log(tmp_path, [(1, {"a": 1})], tail=whole[:length]))
        assert run.index.tolist() == [1]
    assert not recwarn.list
    assert read_metric_table(write_log(tmp_path, [(1, {"a": 1})], tail=whole)).index.tolist() == [1, 2]


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"3", b'{"step": 1}', b'{"step": "x", "data": {}}', b'{"data": {}}', b"\xff"]
)
def test_a_broken_line_in_the_middle_is_named(tmp_path, line):
    path = write_log(tmp_path, [(1, {"a": 1})]) / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n" + orjson.dumps({"step": 2, "data": {"a": 2}}) + b"\n")
    with pytest.warns(UserWarning, match=r"metrics\.jsonl: 1 unreadable line\(s\) left out, the first is line 2"):
        run = read_metric_table(tmp_path)
    assert run["a"].to_dict() == {1: 1.0, 2: 2.0}


@pytest.mark.parametrize("value", [math.nan, None])
def test_what_is_no_finite_number_is_a_gap(tmp_path, value):
    run = read_metric_table(write_log(tmp_path, [(1, {"a": value, "b": 1})]))
    assert math.isnan(run.loc[1, "a"])


@pytest.mark.parametrize("value", ["text", True, [1.0]])
def test_what_is_no_number_is_no_metric(tmp_path, value):
    run = read_metric_table(write_log(tmp_path, [(1, {"a": value, "b": 1}), (2, {"a": 3.0})]))
    assert math.isnan(run.loc[1, "a"])
    assert metric(run, "a").to_dict() == {2: 3.0}


def test_a_python_writers_infinity_is_a_gap(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "data": {"a": Infinity, "b": NaN, "c": 1}}\n')
    assert read_metric_table(tmp_path).loc[1].isna().tolist() == [True, True, False]


@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_a_folder_without_a_log_is_an_error_with_the_remedy(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(UserError, match="VERL_FILE_LOGGER_PATH"):
        read_metric_table(tmp_path)
