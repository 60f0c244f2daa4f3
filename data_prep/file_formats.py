"""Reading one local file of any supported format as batches of plain Python columns.

A column is named by a path: ``question``, or ``reward_model.ground_truth`` for a field of a struct. Every reader keeps
memory bounded by `MAX_BATCH_ROWS` rows and about `MAX_BATCH_BYTES` bytes at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from verl_ispo.user_error import UserError

MAX_BATCH_ROWS = 8192
MAX_BATCH_BYTES = 32 * 2**20
MAX_LINE_BYTES = 64 * 2**20
MAX_JSON_BYTES = 2**30
NAME_SAMPLE_ROWS = 100

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".arrow")


@dataclass(frozen=True)
class ColumnBatch:
    """Some consecutive rows of one file.

    Attributes:
        first_row (`int`): number of the first row in its file, counted from 1; blank lines do not count.
        columns (`tuple[list, ...]`): one list of Python values per requested column path, all equally long.
    """

    first_row: int
    columns: tuple[list[Any], ...]

    def __len__(self) -> int:
        return len(self.columns[0])


def column_names(path: Path) -> list[str]:
    """Names of the columns of `path`, struct fields as ``column.field``, in file order.

    For JSON the names are those of the first `NAME_SAMPLE_ROWS` rows together.

    Raises:
        UserError: if the file is empty, broken or of an unknown format.
    """
    with _NamedErrors(path):
        match path.suffix.lower():
            case ".parquet":
                return arrow_column_names(pq.ParquetFile(path).schema_arrow)
            case ".arrow":
                with pa.OSFile(str(path)) as file:
                    return arrow_column_names(_arrow_reader(file, path).schema)
            case ".csv":
                return list(pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns)
            case _:
                names: dict[str, None] = {}
                for index, (_, row) in enumerate(_json_rows(path)):
                    if index == NAME_SAMPLE_ROWS:
                        break
                    for key, value in row.items():
                        names[key] = None
                        if isinstance(value, dict):
                            names.update(dict.fromkeys(f"{key}.{field}" for field in value))
                return list(names)


def row_count(path: Path) -> int | None:
    """Number of rows where the format states it (parquet), else `None`; for the progress bar."""
    if path.suffix.lower() != ".parquet":
        return None
    with _NamedErrors(path):
        return pq.ParquetFile(path).metadata.num_rows


def read_batches(path: Path, columns: Sequence[str]) -> Iterator[ColumnBatch]:
    """The values under the paths `columns`, in file order.

    Raises:
        UserError: for broken content, naming the file and, where the format has them, the line.
    """
    readers = {".parquet": _parquet_batches, ".arrow": _arrow_batches, ".csv": _csv_batches}
    reader = readers.get(path.suffix.lower(), _json_batches)
    with _NamedErrors(path):
        yield from reader(path, columns)


def arrow_column_names(schema: pa.Schema) -> list[str]:
    """Column names of an Arrow schema, struct fields as ``column.field``."""
    names = []
    for field in schema:
        names.append(field.name)
        if pa.types.is_struct(field.type):
            names.extend(f"{field.name}.{child.name}" for child in field.type)
    return names


def arrow_values(table: pa.Table | pa.RecordBatch, column: str) -> list[Any]:
    """Python values of one column path of an Arrow table."""
    name, _, field = column.partition(".") if column not in table.schema.names else (column, "", "")
    values = table.column(name)
    if field:
        values = pc.struct_field(values, field)
    return _single_user_message(values) or values.to_pylist()


def _single_user_message(values: pa.Array | pa.ChunkedArray) -> list[str] | None:
    """Message texts where every row is a list of exactly one user message, as in the published DAPO file.

    That shape gets a fast path: building two million Python lists of dicts takes longer than everything else together.
    """
    kind = values.type
    if not ((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_struct(kind.value_type)):
        return None
    if {field.name for field in kind.value_type} != {"content", "role"} or values.null_count:
        return None
    content = kind.value_type.field("content").type
    if not (pa.types.is_string(content) or pa.types.is_large_string(content)):
        return None
    if not pc.all(pc.equal(pc.list_value_length(values), 1)).as_py():
        return None
    messages = pc.list_flatten(values)
    if not pc.all(pc.equal(pc.struct_field(messages, "role"), "user"), skip_nulls=False).as_py():
        return None
    return pc.struct_field(messages, "content").to_pylist()


def _parquet_batches(path: Path, columns: Sequence[str]) -> Iterator[ColumnBatch]:
    file = pq.ParquetFile(path)
    metadata = file.metadata
    bytes_total = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    row_bytes = max(1, bytes_total // max(1, metadata.num_rows))
    batch_rows = max(1, min(MAX_BATCH_ROWS, MAX_BATCH_BYTES // row_bytes))
    names = file.schema_arrow.names
    roots = list(dict.fromkeys(c if c in names else c.partition(".")[0] for c in columns))
    first_row = 1
    for batch in file.iter_batches(batch_size=batch_rows, columns=roots):
        yield ColumnBatch(first_row, tuple(arrow_values(batch, column) for column in columns))
        first_row += batch.num_rows


def _arrow_reader(file: pa.NativeFile, path: Path) -> pa.RecordBatchReader | pa.RecordBatchFileReader:
    """Arrow files come in two layouts; `datasets` writes the stream one."""
    if file.size() == 0:
        raise UserError(f"{path}: the file is empty")
    try:
        return pa.ipc.open_file(file)
    except pa.ArrowInvalid:
        file.seek(0)
        return pa.ipc.open_stream(file)


def _arrow_batches(path: Path, columns: Sequence[str]) -> Iterator[ColumnBatch]:
    first_row = 1
    with pa.OSFile(str(path)) as file:
        reader = _arrow_reader(file, path)
        is_stream = isinstance(reader, pa.RecordBatchReader)
        batches = reader if is_stream else (reader.get_batch(i) for i in range(reader.num_record_batches))
        for whole in batches:
            for start in range(0, whole.num_rows, MAX_BATCH_ROWS):
                batch = whole.slice(start, MAX_BATCH_ROWS)
                yield ColumnBatch(first_row, tuple(arrow_values(batch, column) for column in columns))
                first_row += batch.num_rows


def _csv_batches(path: Path, columns: Sequence[str]) -> Iterator[ColumnBatch]:
    # Text stays text: "007" keeps its zeros and "NA" is not a missing value.
    chunks = pd.read_csv(path, chunksize=1024, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    first_row = 1
    for chunk in chunks:
        yield ColumnBatch(first_row, tuple(chunk[column].tolist() for column in columns))
        first_row += len(chunk)


def _json_batches(path: Path, columns: Sequence[str]) -> Iterator[ColumnBatch]:
    lists: tuple[list[Any], ...] = tuple([] for _ in columns)
    first_row, pending_bytes, line_number = 1, 0, 0
    paths = [(column, *column.partition(".")[::2]) for column in columns]
    for line_number, (size_bytes, row) in enumerate(_json_rows(path), start=1):
        for values, (column, name, field) in zip(lists, paths, strict=True):
            value = row.get(column)
            if value is None and field and isinstance(row.get(name), dict):
                value = row[name].get(field)
            values.append(value)
        pending_bytes += size_bytes
        if len(lists[0]) == MAX_BATCH_ROWS or pending_bytes > MAX_BATCH_BYTES:
            yield ColumnBatch(first_row, lists)
            lists, first_row, pending_bytes = tuple([] for _ in columns), line_number + 1, 0
    if lists[0]:
        yield ColumnBatch(first_row, lists)


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Pairs (size in bytes, object) from JSON lines, or from one JSON list; the first character decides which."""
    with path.open("rb") as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"["):
        yield from _json_list_rows(path)
    else:
        yield from _json_line_rows(path)


def _json_list_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    size_bytes = path.stat().st_size
    if size_bytes > MAX_JSON_BYTES:
        raise UserError(
            f"{path}: a JSON list of {size_bytes / 2**30:.1f} GiB has to be read as a whole; convert it to JSON lines"
        )
    rows = _parsed_json(path.read_bytes().decode("utf-8-sig"), str(path), whole_file=True)
    for number, row in enumerate(rows, start=1):
        if isinstance(row, list) and row and all(isinstance(turn, dict) for turn in row):
            row = {"conversations": row}  # a bare conversation, as in Open-Reasoner-Zero's files
        if not isinstance(row, dict):
            raise UserError(f"{path}, item {number}: holds a {type(row).__name__}, not an object with named fields")
        yield size_bytes // len(rows), row


def _json_line_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise UserError(f"{path}, line {number}: longer than {MAX_LINE_BYTES // 2**20} MiB; is it JSON lines?")
            if not line.strip():
                continue
            location = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{location}: {_encoding_advice(error)}") from error
            row = _parsed_json(text, location)
            if not isinstance(row, dict):
                raise UserError(f"{location}: holds a {type(row).__name__}, not an object with named fields")
            yield len(line), row


def _parsed_json(text: str, location: str, whole_file: bool = False) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # malformed, numbers of thousands of digits, endless nesting
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        if whole_file and isinstance(error, json.JSONDecodeError):
            location = f"{location}, line {error.lineno}"
        raise UserError(f"{location}: malformed JSON ({reason}); correct it, or copy the file again") from error


def _encoding_advice(error: UnicodeDecodeError) -> str:
    byte = error.object[error.start]
    return f"not UTF-8 (byte 0x{byte:02x}); convert it first, e.g. iconv -f LATIN1 -t UTF-8 (or -f UTF-16) IN > OUT"


class _NamedErrors:
    """Turns what the parsers raise into a `UserError` that names the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        match error:
            case UnicodeDecodeError():
                raise UserError(f"{self.path}: {_encoding_advice(error)}") from error
            case pd.errors.EmptyDataError():
                raise UserError(f"{self.path}: the file is empty") from error
            case pd.errors.ParserError():
                raise UserError(f"{self.path}: malformed CSV ({error})".replace("\n", " ")) from error
            case pa.ArrowInvalid():
                size_bytes = self.path.stat().st_size
                raise UserError(
                    f"{self.path}: broken or truncated {self.path.suffix} file of {size_bytes} bytes "
                    f"({str(error).splitlines()[0]}); copy or download it again"
                ) from error
            case pa.ArrowException() | OSError() if not isinstance(error, FileNotFoundError | PermissionError):
                raise UserError(f"{self.path}: cannot be read ({str(error).splitlines()[0]})") from error
            case PermissionError():
                raise UserError(f"{self.path}: no permission to read it") from error
