"""The table document as LaTeX (package booktabs)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from verl_ispo.evaluation.document import TableDocument
from verl_ispo.evaluation.document_part import DocumentPart
from verl_ispo.evaluation.layout_text import (
    COMPARING,
    READING,
    comparison_columns,
    comparison_fields,
    note_letter,
    table_rows,
)

_MARKUP = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        # a bracket after \\ would be read as its optional argument
        "[": "{[}",
        "\n": " ",
        "\r": " ",
    }
)


def format_latex(document: TableDocument) -> str:
    """One ``table*`` for each metric, one for the comparisons; the notes are in the captions."""
    lines = ["% needs \\usepackage{booktabs}; written by verl-ispo table"]
    notes = " ".join(f"({note_letter(index)}) {note}" for index, note in enumerate(document.notes))
    for table in document.tables:
        caption = " ".join([f"{table.metric.title}.", READING, notes, *document.remarks])
        lines += _table(["base model", "method", "seeds", *table.columns], table_rows(table, document), caption)
    if document.comparisons:
        rows = [comparison_fields(comparison) for comparison in document.comparisons]
        lines += _table(comparison_columns(document.baseline), rows, f"Against {document.baseline}. {COMPARING}")
    for part in document.parts:
        lines += part_lines(part)
    return "\n".join(lines) + "\n"


def part_lines(part: DocumentPart) -> list[str]:
    """A table on request."""
    return _table(part.columns, part.rows, f"{part.title}. {part.reading}")


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> list[str]:
    def line(fields: Iterable[str]) -> str:
        return " & ".join(map(_escape, fields)) + r" \\"

    return [
        "",
        r"\begin{table*}",
        r"\centering\scriptsize",
        rf"\caption{{{_escape(caption)}}}",
        rf"\begin{{tabular}}{{{'l' * len(names)}}}",
        r"\toprule",
        line(names),
        r"\midrule",
        *(line(row) for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}",
    ]


def _escape(text: str) -> str:
    return text.translate(_MARKUP)
