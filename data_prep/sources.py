"""Where rows come from: a local file, a folder of files, or a data set on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.file_formats import (
    MAX_BATCH_ROWS,
    SUFFIXES,
    ColumnBatch,
    arrow_column_names,
    arrow_values,
    column_names,
    read_batches,
    row_count,
)
from verl_ispo.user_error import UserError

# Files that `datasets` and the hub put beside the data.
SIDE_FILES = {"dataset_info.json", "state.json", "dataset_infos.json", "dataset_dict.json"}
SPLIT_NAMES = {"train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval"}


@dataclass(frozen=True)
class SourcePart:
    """One file, or one split of a hub data set.

    Attributes:
        label (`str`): what messages and the data card call it.
        names (`list[str]`): its column paths.
        rows (`int` or `None`): number of rows, where known beforehand.
        read (`Callable`): takes column paths, yields `ColumnBatch`.
        identity (`dict`): what the data card says about the content: name and sha256, or hub id and revision.
    """

    label: str
    names: list[str]
    rows: int | None
    read: Callable[[list[str]], Iterator[ColumnBatch]]
    identity: dict[str, Any]


def local_parts(path: Path, split: str | None = None) -> list[SourcePart]:
    """The file `path`, or the data files of the folder `path` in the order of their names.

    Where file or folder names below `path` carry split names (``train-00000-of-00002.parquet``), only those of `split`
    are taken.

    Raises:
        UserError: if nothing readable is there, or none of the files belongs to `split`.
    """
    path = path.expanduser()
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; check --local_dataset_path")
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{path}: unknown format; known are {', '.join(SUFFIXES)}")
        files = [path]
    else:
        files = _files_of_split(path, split)
    parts = []
    for file in files:
        if file.stat().st_size == 0:
            raise UserError(f"{file}: the file is empty; copy or download it again, or delete it")
        names = column_names(file)
        if not names:
            raise UserError(f"{file}: holds no rows")
        label = file.name if path.is_file() else str(file.relative_to(path))
        identity = {"file": label, "bytes": file.stat().st_size, "sha256": file_sha256(file)}
        parts.append(SourcePart(str(file), names, row_count(file), _reader(file), identity))
    return parts


def hub_parts(hub_id: str, config: str | None, split: str, revision: str | None = None) -> list[SourcePart]:
    """One split of a data set on the hub, through `datasets` and its cache.

    Raises:
        UserError: if it cannot be loaded; the message says how to do without the hub.
    """
    import datasets  # takes a second, and local files do not need it

    try:
        dataset = datasets.load_dataset(hub_id, config, split=split, revision=revision)
    except Exception as error:  # the hub's client raises many unrelated types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{hub_id} (split {split}) cannot be loaded from the hub: {reason}; "
            "download it on a machine with a network and pass --local_dataset_path FILE_OR_FOLDER"
        ) from error

    def read(columns: list[str]) -> Iterator[ColumnBatch]:
        first_row = 1
        for table in dataset.with_format("arrow").iter(batch_size=MAX_BATCH_ROWS):
            yield ColumnBatch(first_row, tuple(arrow_values(table, column) for column in columns))
            first_row += table.num_rows

    identity = {"hub_id": hub_id, "config": config, "split": split, "revision": revision}
    names = arrow_column_names(dataset.features.arrow_schema)
    return [SourcePart(f"{hub_id} (split {split})", names, len(dataset), read, identity)]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _reader(file: Path) -> Callable[[list[str]], Iterator[ColumnBatch]]:
    return lambda columns: read_batches(file, columns)


def _files_of_split(folder: Path, split: str | None) -> list[Path]:
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and file.name not in SIDE_FILES
        and not any(piece.startswith(".") for piece in file.relative_to(folder).parts)
    )
    if not files:
        raise UserError(f"{folder}: the folder holds no file of a known format ({', '.join(SUFFIXES)})")
    splits = {file: _split_words(file.relative_to(folder)) for file in files}
    if split is None or not any(splits.values()):
        return files
    chosen = [file for file in files if split in splits[file]]
    if not chosen:
        present = sorted(set().union(*splits.values()))
        raise UserError(f"{folder}: no file belongs to the split {split!r}, only to {present}; pass --split")
    return chosen


def _split_words(path: Path) -> set[str]:
    return SPLIT_NAMES.intersection(re.split(r"[^a-z0-9]+", str(path).lower()))
