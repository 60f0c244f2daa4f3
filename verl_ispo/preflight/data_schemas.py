"""Several files under one key: verl concatenates them (``datasets.concatenate_datasets``), so their columns must agree.

`datasets` itself is asked, with one empty row per file, since its rules are not those of equality: a missing column or
a column without any value agrees with every type, a list of structs only with the same keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import pyarrow


def schema_faults(schemas: Mapping[str, pyarrow.Schema]) -> Iterator[str]:
    """The columns that two files have with types that cannot be brought together, each column once.

    Args:
        schemas (`Mapping[str, pyarrow.Schema]`): of each file that has rows, by name, in verl's order.
    """
    distinct: dict[str, pyarrow.Schema] = {}
    for name, schema in schemas.items():
        if not any(schema.equals(other, check_metadata=True) for other in distinct.values()):
            distinct[name] = schema
    if _concatenates(list(distinct.values())):
        return
    blamed: set[str] = set()
    for (one, first), (other, second) in combinations(distinct.items(), 2):
        for column in first.names:
            if column in blamed or column not in second.names:
                continue
            if not _concatenates([_only(first, column), _only(second, column)]):
                blamed.add(column)
                where, types = difference(first.field(column), second.field(column))
                yield f"{where} is {types[0]} in {one} and {types[1]} in {other}"
    if not blamed:
        yield f"{named_columns(distinct)} cannot be brought together"


def named_columns(schemas: Mapping[str, pyarrow.Schema]) -> str:
    """The files with their columns."""
    return "; ".join(f"{name} ({', '.join(schema.names)})" for name, schema in schemas.items())


def difference(one: pyarrow.Field, other: pyarrow.Field) -> tuple[str, tuple[str, str]]:
    """The first nested field in which two columns differ, as a dotted name, and both types."""
    name, first, second = one.name, one.type, other.type
    while True:
        inner = None
        if pyarrow.types.is_struct(first) and pyarrow.types.is_struct(second):
            names = [first.field(index).name for index in range(first.num_fields)]
            for key in names:
                index = second.get_field_index(key)
                if index >= 0 and first.field(key).type != second.field(index).type:
                    inner = (f"{name}.{key}", first.field(key).type, second.field(index).type)
                    break
        elif pyarrow.types.is_list(first) and pyarrow.types.is_list(second):
            inner = (f"{name}[]", first.value_type, second.value_type)
        if inner is None:
            return name, (str(first), str(second))
        name, first, second = inner


def _only(schema: pyarrow.Schema, column: str) -> pyarrow.Schema:
    return pyarrow.schema([schema.field(column)])


def _concatenates(schemas: list[pyarrow.Schema]) -> bool:
    """Whether `datasets` takes them together; it has no single kind of error for those that it does not."""
    from datasets import Dataset, concatenate_datasets

    rows = [
        Dataset(pyarrow.Table.from_arrays([pyarrow.nulls(1, field.type) for field in schema], schema=schema))
        for schema in schemas
    ]
    try:
        concatenate_datasets(rows)
    except Exception:
        return False
    return True
