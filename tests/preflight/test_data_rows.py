"""Every row of a file, and the columns of several files: what would vanish quietly or stop verl is named with its rows.

`datasets.concatenate_datasets`, which verl calls, is the reference for the columns.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pytest
from datasets import Dataset, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.preflight.set_ups import OUR_GRADER, math_row, problems, with_settings, write_rows
from verl_ispo.preflight import data_rows
from verl_ispo.preflight.data_files import check_data
from verl_ispo.preflight.data_rows import named_rows, row_faults
from verl_ispo.preflight.data_schemas import schema_faults

TRAIN = "data.train_files"
TRUTHS = {
    "no ground_truth": {"style": "rule", "ground_truth": None},
    "an empty ground_truth": {"style": "rule", "ground_truth": " "},
}
PROMPTS = {
    "is empty": [],
    "content is null": [{"role": "user", "content": None}],
    "without a role": [{"role": None, "content": "1+1?"}],
    "has no text": [{"role": "user", "content": ""}],
}


def faults(path: Path, our_grader: bool = False) -> list[str]:
    return list(row_faults(path, "prompt", our_grader))


@settings(max_examples=examples(20), deadline=None)
@given(bad=st.sets(st.integers(0, 99), min_size=1, max_size=12), kind=st.sampled_from(sorted(TRUTHS | PROMPTS)))
def test_a_faulty_row_is_found_wherever_it_is(
    tmp_path_factory: pytest.TempPathFactory, bad: set[int], kind: str
) -> None:
    """A null answer drops its group without a word, and the first rows of a file are mostly sound."""
    rows = [math_row() for _ in range(100)]
    for index in bad:
        rows[index] = math_row(prompt=PROMPTS.get(kind), reward_model=TRUTHS.get(kind))
    (fault,) = faults(write_rows(tmp_path_factory.mktemp("rows") / "a.parquet", rows))
    assert kind in fault
    assert fault.startswith(f"{named_rows(sorted(bad), 100)}: ")


def test_rows_are_counted_over_batches_and_shown_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_rows, "BATCH_ROWS", 7)
    rows = [math_row(reward_model=TRUTHS["no ground_truth"] if index % 3 == 2 else None) for index in range(60)]
    (fault,) = faults(write_rows(tmp_path / "a.parquet", rows))
    assert fault.startswith("rows 2, 5, 8, 11, 14 and others (20 of 60): reward_model has no ground_truth")
    assert "Remove these rows" in fault


@pytest.mark.parametrize(
    ("row", "our_grader", "named"),
    [
        (math_row() | {"reward_model": "42"}, False, "reward_model is str, not a struct"),
        (math_row() | {"reward_model": None}, False, "reward_model is null"),
        (math_row(source=""), False, "data_source is empty"),
        (math_row() | {"data_source": None}, False, "data_source is null"),
        (math_row() | {"data_source": 3}, False, "data_source is int"),
        (math_row() | {"prompt": None}, False, "prompt is null"),
        (math_row(prompt=[{"role": "user", "content": 3}]), False, "content is int"),
        (math_row(reward_model={"ground_truth": {"inputs": ["1"]}}), True, "of type dict"),
        (math_row(reward_model={"ground_truth": []}), False, "an empty ground_truth"),
    ],
)
def test_values_of_another_kind(tmp_path: Path, row: dict, our_grader: bool, named: str) -> None:
    (fault,) = faults(write_rows(tmp_path / "a.parquet", [row]), our_grader)
    assert named in fault


@pytest.mark.parametrize("truth", ["42", 42, 4.5, ["42", "43"], {"inputs": ["1"]}])
def test_ground_truths_that_some_scorer_takes_are_left_alone(tmp_path: Path, truth: object) -> None:
    assert faults(write_rows(tmp_path / "a.parquet", [math_row(reward_model={"ground_truth": truth})])) == []


def test_the_last_row_of_a_file_is_in_the_doctors_report(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.parquet", [*[math_row()] * 500, math_row(reward_model=TRUTHS["no ground_truth"])])
    config = with_settings([f"{TRAIN}={file}", f"data.val_files={file}", *OUR_GRADER])
    assert "row 500: reward_model has no ground_truth" in problems(check_data(config))[TRAIN]


TYPES = st.recursive(
    st.sampled_from([pyarrow.int64(), pyarrow.float64(), pyarrow.string(), pyarrow.large_string(), pyarrow.null()]),
    lambda inner: st.one_of(
        inner.map(pyarrow.list_),
        st.dictionaries(st.sampled_from("ab"), inner, min_size=1).map(lambda fields: pyarrow.struct(fields.items())),
    ),
    max_leaves=4,
)
SCHEMAS = st.dictionaries(st.sampled_from(("prompt", "extra_info")), TYPES, min_size=1).map(
    lambda fields: pyarrow.schema(list(fields.items()))
)


@settings(max_examples=examples(30), deadline=None)
@given(one=SCHEMAS, other=SCHEMAS)
def test_what_verl_cannot_join_is_named(one: pyarrow.Schema, other: pyarrow.Schema) -> None:
    """Files that were written in different ways: a number as text, a list of other structs, a column of nulls."""

    def rows(schema: pyarrow.Schema) -> Dataset:
        return Dataset(pyarrow.Table.from_arrays([pyarrow.nulls(2, field.type) for field in schema], schema=schema))

    try:
        concatenate_datasets([rows(one), rows(other)])
    except Exception:
        joins = False
    else:
        joins = True
    found = list(schema_faults({"one.parquet": one, "other.parquet": other}))
    assert bool(found) == (not joins)
    for fault in found:
        assert "one.parquet" in fault
        assert "other.parquet" in fault


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"data_source": 3}, ("data_source is string in", "and int64 in")),
        ({"reward_model": {"style": "rule", "ground_truth": 42}}, ("reward_model.ground_truth is string", "int64")),
        ({"prompt": [{"role": "user", "content": "1+1?", "name": "x"}]}, ("prompt[] is struct", "name: string")),
    ],
)
def test_two_files_and_the_types_of_their_column_are_named(
    tmp_path: Path, changed: dict, named: tuple[str, ...]
) -> None:
    one = write_rows(tmp_path / "one.parquet", [math_row()] * 4)
    other = write_rows(tmp_path / "other.parquet", [math_row() | changed] * 4)
    config = with_settings([f"{TRAIN}=[{one},{other}]", f"data.val_files={one}", "data.train_batch_size=1"])
    text = [found.text for found in check_data(config) if "cannot join" in found.text]
    assert len(text) == 1
    for part in (*named, "one.parquet", "other.parquet"):
        assert part in text[0]
    assert not [
        found for found in check_data(with_settings([f"{TRAIN}=[{one},{one}]"], config)) if "join" in found.text
    ]


def test_files_of_other_columns_join(tmp_path: Path) -> None:
    """A column that one file lacks is filled with nulls, which is no fault."""
    one = write_rows(tmp_path / "one.parquet", [math_row()] * 4)
    other = write_rows(tmp_path / "other.parquet", [math_row() | {"extra_info": {"index": 1}}] * 4)
    config = with_settings([f"{TRAIN}=[{one},{other}]", f"data.val_files={one}", "data.train_batch_size=1"])
    assert problems(check_data(config)) == {}
