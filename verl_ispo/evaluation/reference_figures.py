"""Scores of other papers or of earlier work, read from a CSV file, shown beside ours like the paper's own.

They are only shown, and used in no calculation. A figure of the file replaces the paper's own where both are about one
cell.
"""

from __future__ import annotations

import csv
import io
import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from verl_ispo.evaluation.metrics import parse_metric
from verl_ispo.evaluation.paper_results import PaperFigure, canonical
from verl_ispo.user_error import UserError

COLUMNS = ("base_model", "method", "benchmark", "metric", "value", "source")
LABEL = "reference"
_MAX_CHARS = 200
_MAX_BYTES = 10_000_000


def read_reference(path: Path) -> tuple[PaperFigure, ...]:
    """Read a file of figures; see ``verl-ispo table --help`` for its columns.

    Raises:
        UserError: naming line, value and remedy.
    """
    where = f"--reference {path}"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{where}: over {_MAX_BYTES:,} bytes; give a file of figures, one line each")
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
        names = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise UserError(
                f"{where}, line 1: no column {', '.join(missing)}; the first line has to be {','.join(COLUMNS)}"
            )
        reader.fieldnames = names
        lines = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{where}: cannot be read ({error}); give a CSV file in UTF-8") from error
    figures: dict[tuple[str, str, str, str], PaperFigure] = {}
    first: dict[tuple[str, str, str, str], int] = {}
    for number, row in lines:
        figure = _figure(f"{where}, line {number}", row)
        key = (canonical(figure.base_model), canonical(figure.method), canonical(figure.benchmark), figure.metric)
        if key in figures:
            raise UserError(
                f"{where}, line {number}: {figure.base_model}, {figure.method}, {figure.benchmark}, {figure.metric} is "
                f"in line {first[key]} already; leave one of them"
            )
        figures[key], first[key] = figure, number
    if not figures:
        raise UserError(f"{where}: no figure in it; give at least one line below the header")
    return tuple(figures.values())


def reference_remarks(path: Path, figures: Sequence[PaperFigure], shown: Sequence[PaperFigure]) -> list[str]:
    """Where the figures are from, and which have no cell in the table.

    Args:
        path (`Path`): the file, for its name.
        figures (`Sequence[PaperFigure]`): all of it.
        shown (`Sequence[PaperFigure]`): those that a cell of the table has.
    """
    sources = list(dict.fromkeys(figure.source for figure in shown))
    left = [figure for figure in figures if figure not in shown]
    remarks = [f"'{LABEL}' is {path.name}: {'; '.join(sources)}."] if sources else []
    if left:
        some = "; ".join(f"{one.base_model}, {one.method}, {one.benchmark}, {one.metric}" for one in left[:5])
        remarks.append(
            f"{len(left)} of the {len(figures)} figures of {path.name} have no cell here ({some}"
            f"{'; ...' if len(left) > 5 else ''}): no such base model, method, benchmark or metric is shown."
        )
    return remarks


def _figure(where: str, row: dict[str, str | None]) -> PaperFigure:
    if None in row or None in row.values():
        raise UserError(f"{where}: not {len(row) - (None in row)} fields; put quotes around a field with a comma in it")
    fields = {name: (row[name] or "").strip() for name in COLUMNS}
    for name, text in fields.items():
        if not text:
            raise UserError(f"{where}: {name} is empty; fill it in, or leave the line out")
        bad = next((character for character in text if unicodedata.category(character) in ("Cc", "Cf", "Cs")), None)
        if len(text) > _MAX_CHARS or bad is not None:
            what = f"over {_MAX_CHARS} characters" if bad is None else f"the invisible character U+{ord(bad):04X}"
            raise UserError(f"{where}: {name} {text[:40]!a} has {what}; write it as plain, short text")
    try:
        metric = parse_metric(fields["metric"]).name
    except UserError as error:
        raise UserError(
            f"{where}: metric {fields['metric'][:40]!r} is none of a table; give pass@1_greedy, avg@K, maj@K, "
            "maj_text@K or pass@K, such as avg@16"
        ) from error
    try:
        percent = float(fields["value"])
    except ValueError:
        percent = math.nan
    if not 0.0 <= percent <= 100.0:
        raise UserError(f"{where}: value {fields['value'][:40]!r} is no percentage; give a number from 0 to 100")
    names = (fields["base_model"], fields["method"], fields["benchmark"])
    return PaperFigure(*names, metric, percent, fields["source"], (), label=LABEL)
