"""Data: the files exist, verl can read and join them, and their rows have what its data set and reward manager need."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from verl_ispo.preflight.composition import setting, uses_our_grader
from verl_ispo.preflight.data_rows import count_rows, file_schema, row_faults
from verl_ispo.preflight.data_schemas import schema_faults
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding

FILE_KEYS = ("data.train_files", "data.val_files")
# verl's own defaults, which mean "not given".
VERL_DEFAULT_FILES = ("~/data/rlhf/gsm8k/train.parquet", "~/data/rlhf/gsm8k/test.parquet")
SAMPLED_ROWS = 8


@dataclass(frozen=True)
class Sample:
    """The beginning of a data file.

    Attributes:
        columns: names of all columns.
        rows: the first rows, as Python values.
        total: rows of the file.
    """

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    total: int


def given_files(config: DictConfig, key: str) -> list[str]:
    """The files under a key, which takes one or a list."""
    value = setting(config, key, [])
    return [value] if isinstance(value, str) else [str(name) for name in value]


def read_sample(path: Path) -> Sample:
    """The schema and the first rows of a parquet or jsonl file.

    Raises:
        ValueError: for a file of another kind, or a broken one.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path)
    if path.suffix != ".jsonl":
        raise ValueError("verl reads .parquet, .json and .jsonl, and only parquet and jsonl are looked into here")
    with path.open(encoding="utf-8") as file:
        lines = (line for line in file if line.strip())
        rows = tuple(json.loads(line) for line in itertools.islice(lines, SAMPLED_ROWS))
    return Sample(tuple(rows[0]) if rows else (), rows, count_rows(path))


def _read_parquet(path: Path) -> Sample:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    first = next(file.iter_batches(batch_size=SAMPLED_ROWS), None)
    rows = () if first is None else tuple(first.to_pylist())
    return Sample(tuple(file.schema_arrow.names), rows, file.metadata.num_rows)


def readable_files(config: DictConfig, key: str) -> list[tuple[str, Path]]:
    """Name and path of the files under a key that can be looked into here and have rows."""
    found = []
    for name in given_files(config, key):
        path = Path(os.path.expanduser(name))
        if not _is_remote(name) and path.is_file():
            try:
                if read_sample(path).rows:
                    found.append((name, path))
            except (ValueError, OSError):
                continue
    return found


def readable_samples(config: DictConfig, key: str) -> list[Sample]:
    """Samples of the readable files under a key; `check_data` reports what is wrong with the others."""
    return [read_sample(path) for _, path in readable_files(config, key)]


def training_rows(config: DictConfig) -> int | None:
    """Rows that a pass over the training data has, `None` if a file cannot be read here."""
    samples = readable_samples(config, "data.train_files")
    if not samples or len(samples) < len(given_files(config, "data.train_files")):
        return None
    limit = setting(config, "data.train_max_samples", -1)
    rows = sum(sample.total for sample in samples)
    return min(rows, limit) if limit > 0 else rows


def check_data(config: DictConfig) -> Iterator[Finding]:
    """Every training and validation file, and whether they have enough prompts for a step."""
    for key in FILE_KEYS:
        names = given_files(config, key)
        if not any(names):
            yield Finding(PROBLEM, key, f"is empty; set {key}=FILE.parquet")
            continue
        for name in names:
            yield from _check_file(config, key, name)
        if len(names) > 1:
            yield from _check_schemas(config, key)
    yield from _check_rows_for_a_step(config)
    yield from _check_long_prompts(config)


def _is_remote(name: str) -> bool:
    return "://" in name


def _check_file(config: DictConfig, key: str, name: str) -> Iterator[Finding]:
    path = Path(os.path.expanduser(name))
    if name in VERL_DEFAULT_FILES and not path.exists():
        yield Finding(NOTE, key, f"not given; verl's default is {name}, which is not here")
    elif _is_remote(name):
        yield Finding(NOTE, key, f"{name} is not on this machine; whether it exists and what it holds is not checked")
    elif any(sign in name for sign in "*?["):
        yield Finding(NOTE, key, f"{name} is a pattern; its rows are not checked. verl takes a list: {key}=[A,B]")
    elif not path.exists():
        yield Finding(PROBLEM, key, f"{name} does not exist; write it with python -m data_prep.*, or correct the path")
    elif path.is_dir():
        yield Finding(PROBLEM, key, f"{name} is a folder; verl reads files: {key}=[{name}/a.parquet,...]")
    elif path.suffix == ".json":
        yield Finding(
            NOTE, key, f"{name} is json; its rows are not checked (python -m data_prep.generic writes parquet)"
        )
    elif path.suffix not in (".parquet", ".jsonl"):
        yield Finding(PROBLEM, key, f"{name} has a name that verl does not read; it takes .parquet, .json and .jsonl")
    else:
        yield from _check_readable_file(config, key, name, path)


def _check_readable_file(config: DictConfig, key: str, name: str, path: Path) -> Iterator[Finding]:
    try:
        sample = read_sample(path)
    except (ValueError, OSError) as error:
        yield Finding(PROBLEM, key, f"{name} is not readable as {path.suffix[1:]}: {str(error).strip()}")
        return
    if not sample.rows:
        yield Finding(PROBLEM, key, f"{name} has no rows")
        return
    if setting(config, "data.custom_cls.path"):
        yield Finding(NOTE, key, f"{name}: rows not checked, since data.custom_cls reads them")
        return
    try:
        faults = list(row_faults(path, str(setting(config, "data.prompt_key", "prompt")), uses_our_grader(config)))
    except (ValueError, OSError) as error:
        faults = [f"not readable to its end: {str(error).strip()}"]
    for fault in faults:
        yield Finding(PROBLEM, key, f"{name}: {fault}")
    if not faults:
        yield Finding(OK, key, f"{name}, {sample.total} rows")


def _check_schemas(config: DictConfig, key: str) -> Iterator[Finding]:
    """The columns of several files against each other."""
    schemas = {}
    for name, path in readable_files(config, key):
        schema = file_schema(path)
        if schema is not None:
            schemas[name] = schema
    for fault in schema_faults(schemas):
        yield Finding(
            PROBLEM,
            key,
            f"{fault}, which verl cannot join (datasets.concatenate_datasets); write both files in the same way, for "
            "instance with python -m data_prep.*, or cast that column in one of them",
        )


def _check_rows_for_a_step(config: DictConfig) -> Iterator[Finding]:
    rows, batch = training_rows(config), setting(config, "data.train_batch_size")
    if rows is not None and rows < batch:
        yield Finding(
            PROBLEM,
            "data.train_batch_size",
            f"is {batch}, but the training data has {rows} rows (after data.train_max_samples), so an epoch has no "
            f"step; set data.train_batch_size={rows} or less",
        )


def _check_long_prompts(config: DictConfig) -> Iterator[Finding]:
    """verl 0.9's V1 agent loop cuts prompts that are too long; ``data.truncation`` is stored and never read there."""
    limit, truncation = setting(config, "data.max_prompt_length"), setting(config, "data.truncation", "error")
    if setting(config, "data.filter_overlong_prompts"):
        yield Finding(OK, "data.filter_overlong_prompts", f"prompts over {limit} tokens are left out")
        return
    yield Finding(
        NOTE,
        "data.filter_overlong_prompts",
        f"is false: a prompt over data.max_prompt_length={limit} tokens loses its beginning, with a line in "
        "the log and "
        f"no error. data.truncation={truncation} does not change that in verl's V1 trainer, which does not read it. "
        "Set data.filter_overlong_prompts=true to leave such prompts out",
    )
