"""The table document as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from verl_ispo.evaluation.document import TableDocument
from verl_ispo.evaluation.document_part import DocumentPart
from verl_ispo.evaluation.layout_text import (
    COMPARING,
    READING,
    RUN_COLUMNS,
    comparison_columns,
    comparison_fields,
    note_letter,
    run_fields,
    table_rows,
)

_MARKUP = str.maketrans({"|": r"\|", "<": "&lt;", ">": "&gt;", "`": r"\`", "\n": " ", "\r": " "})


def format_markdown(document: TableDocument) -> str:
    """All tables, comparisons, runs and notes."""
    lines = ["# Results", ""] + ([READING, ""] if document.tables else [])
    for table in document.tables:
        names = ["base model", "method", "training seeds", *table.columns]
        lines += [f"## {table.metric.title}", "", *markdown_table(names, table_rows(table, document))]
    if document.comparisons:
        rows = [comparison_fields(comparison) for comparison in document.comparisons]
        lines += [f"## Against {_escape(document.baseline or '')}", "", COMPARING, ""]
        lines += markdown_table(comparison_columns(document.baseline), rows)
    for part in document.parts:
        lines += part_lines(part)
    runs = [run_fields(group, result) for group in document.groups for result in group.results]
    if runs:
        lines += ["## Runs", "", *markdown_table(RUN_COLUMNS, runs), "## Notes", ""]
    lines += [f"- ({note_letter(index)}) {_escape(note)}" for index, note in enumerate(document.notes)]
    lines += [f"- {_escape(remark)}" for remark in document.remarks]
    return "\n".join(lines) + "\n"


def part_lines(part: DocumentPart) -> list[str]:
    """A table on request, under its own heading."""
    return [f"## {_escape(part.title)}", "", _escape(part.reading), "", *markdown_table(part.columns, part.rows)]


def markdown_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, with an empty one behind them; cells are escaped."""

    def line(fields: Iterable[str]) -> str:
        return "| " + " | ".join(fields) + " |"

    escaped = [line(map(_escape, row)) for row in rows]
    return [line(map(_escape, names)), line("---" for _ in names), *escaped, ""]


def _escape(text: str) -> str:
    return text.translate(_MARKUP).replace("](", r"]\(")  # no table, no HTML, no link
