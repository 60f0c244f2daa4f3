"""Every row of a data file: what verl's data set and reward manager would miss in it.

Files are read in batches, and only the columns that are looked at, so that a file of millions of rows needs little
memory; above a few seconds a bar shows how far it is.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.json
import pyarrow.parquet
from tqdm import tqdm

BATCH_ROWS = 4096
BAR_AFTER_S = 2.0
SHOWN_ROWS = 5

RowFault = Callable[[Any], str | None]
"""What is wrong with one value of a column, `None` if nothing is."""


def file_schema(path: Path) -> pyarrow.Schema | None:
    """Columns and types of a parquet or jsonl file; `None` for a jsonl file whose columns have no single type."""
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_schema(path)
    try:
        return pyarrow.json.read_json(path).schema
    except pyarrow.ArrowInvalid:  # `datasets` keeps such a column as JSON
        return None


def column_names(path: Path) -> tuple[str, ...]:
    """The columns of a parquet file, or the keys of a jsonl file's first row."""
    if path.suffix == ".parquet":
        return tuple(pyarrow.parquet.read_schema(path).names)
    return tuple(next(_json_rows(path), {}))


def count_rows(path: Path) -> int:
    """Rows of a parquet or jsonl file."""
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_metadata(path).num_rows
    with path.open("rb") as lines:
        return sum(bool(line.strip()) for line in lines)


def column_batches(path: Path, columns: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
    """Some columns of a parquet or jsonl file as Python values, a few thousand rows at a time, in the file's order.

    Raises:
        ValueError: the file is broken.
    """
    if path.suffix == ".parquet":
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
            yield {name: batch.column(name).to_pylist() for name in columns}
        return
    rows = _json_rows(path)
    while part := list(itertools.islice(rows, BATCH_ROWS)):
        yield {name: [row.get(name) for row in part] for name in columns}


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def bar(total: int | None, what: str) -> tqdm:
    """A bar over rows, which is shown only if the work takes more than a few seconds."""
    return tqdm(total=total, desc=what, unit=" rows", delay=BAR_AFTER_S, leave=False, file=sys.stderr)


def row_faults(path: Path, prompt_key: str, our_grader: bool = False) -> Iterator[str]:
    """The faults of all rows of a file, each kind once, with its rows.

    Args:
        path (`Path`): a parquet or jsonl file.
        prompt_key (`str`): ``data.prompt_key``, the column with the chat messages.
        our_grader (`bool`, *optional*, defaults to `False`): the reward function is this package's.
    """
    names = column_names(path)
    wanted = {prompt_key: "data.prompt_key names it", "data_source": "the scorer is chosen by it", "reward_model": ""}
    missing = [name for name in wanted if name not in names]
    if missing:
        yield (
            f"no column {', '.join(missing)}; it has {', '.join(names)}. python -m data_prep.generic writes "
            "what verl reads"
        )
    checks: dict[str, RowFault] = {
        prompt_key: prompt_fault,
        "data_source": source_fault,
        "reward_model": lambda value: truth_fault(value, our_grader),
    }
    checks = {name: check for name, check in checks.items() if name in names}
    remedies = {
        prompt_key: 'verl wants a list of messages, each with role and content ([{"role": "user", "content": "..."}])',
        "data_source": "the scorer is chosen by it, and validation scores are grouped by it",
        "reward_model": (
            "the scorer gets reward_model.ground_truth, and a row without one earns no reward or stops the step. "
            "Remove these rows, or give them an answer"
        ),
    }
    found: dict[tuple[str, str], list[int]] = {}
    rows = 0
    with bar(count_rows(path), f"reading {path.name}") as progress:
        for batch in column_batches(path, list(checks)):
            for name, check in checks.items():
                for index, value in enumerate(batch[name], start=rows):
                    fault = check(value)
                    if fault:
                        found.setdefault((name, fault), []).append(index)
            size = max(map(len, batch.values()), default=0)
            rows += size
            progress.update(size)
    for (name, fault), at in found.items():
        yield f"{named_rows(at, rows)}: {name} {fault}; {remedies[name]}"


def named_rows(at: Sequence[int], total: int) -> str:
    """Row numbers, from 0: all of them if they are few, else the first and how many there are."""
    if len(at) == 1:
        return f"row {at[0]}"
    shown = ", ".join(map(str, at[:SHOWN_ROWS]))
    return f"rows {shown}" if len(at) <= SHOWN_ROWS else f"rows {shown} and others ({len(at)} of {total})"


def prompt_fault(prompt: Any) -> str | None:
    """What a chat template could not use in the messages of a row."""
    if not isinstance(prompt, list):
        return "is null" if prompt is None else f"is {type(prompt).__name__}"
    if not prompt:
        return "is empty"
    for message in prompt:
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            return "has an entry without role and content"
        if not message["role"]:
            return "has a message without a role"
        if not isinstance(message["content"], str | list):
            content = message["content"]
            return f"has a message whose content is {'null' if content is None else type(content).__name__}"
    return None if any(message["content"] for message in prompt) else "has no text"


def source_fault(source: Any) -> str | None:
    """Whether a scorer could be chosen by the row's data source."""
    if source is None or source == "":
        return "is null" if source is None else "is empty"
    return None if isinstance(source, str) else f"is {type(source).__name__}"


def truth_fault(reward_model: Any, our_grader: bool) -> str | None:
    """Whether a scorer gets a ground truth from the row."""
    if not isinstance(reward_model, Mapping):
        return "is null" if reward_model is None else f"is {type(reward_model).__name__}, not a struct"
    truth = reward_model.get("ground_truth")
    if truth is None:
        return "has no ground_truth"
    if isinstance(truth, str | list) and not (truth.strip() if isinstance(truth, str) else truth):
        return "has an empty ground_truth"
    if our_grader and not isinstance(truth, str | int | float | list):
        return f"has a ground_truth of type {type(truth).__name__}, where the grader takes a text or a number"
    return None
