"""The data card of a parquet: what was read, dropped and written, as JSON for tools and Markdown for people.

A card holds no time and no absolute output path, so that the same input and options give the same bytes.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np

PACKAGES = ("datasets", "jinja2", "numpy", "pandas", "pyarrow", "transformers", "verl_ispo")


def length_summary(lengths: Sequence[int]) -> dict[str, float]:
    """Smallest, 5 %, median, mean, 95 % and largest of some lengths; empty for none."""
    if not len(lengths):
        return {}
    values = np.asarray(lengths)
    low, median, high = (int(q) for q in np.percentile(values, (5, 50, 95), method="lower"))
    return {
        "min": int(values.min()),
        "p5": low,
        "median": median,
        "mean": round(float(values.mean()), 1),
        "p95": high,
        "max": int(values.max()),
    }


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change the output."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def make_card(
    name: str,
    output: dict[str, Any],
    inputs: list[dict[str, Any]],
    rows_sha256: str,
    counts: dict[str, int],
    answer_types: Counter[str],
    lengths: dict[str, dict[str, float]],
    options: dict[str, Any],
    notes: list[str],
    details: dict[str, Any],
) -> dict[str, Any]:
    """Puts a card together.

    Args:
        name (`str`): of the output.
        output (`dict`): file name, rows, bytes and sha256 of the parquet.
        inputs (`list[dict]`): identity of every file read, and the columns taken from it.
        rows_sha256 (`str`): over questions and answers of all rows as read, independent of the file format.
        counts (`dict[str, int]`): rows read, rows dropped at every stage in order, rows written.
        answer_types (`Counter`): rows by kind of answer.
        lengths (`dict`): `length_summary` by unit.
        options (`dict`): the command's options.
        notes (`list[str]`): what a reader must know: corrections, missing benchmarks.
        details (`dict`): rules and findings of single stages.
    """
    return {
        "name": name,
        "output": output,
        "inputs": inputs,
        "rows_sha256": rows_sha256,
        "rows": counts,
        "answer_types": dict(sorted(answer_types.items(), key=lambda item: (-item[1], item[0]))),
        "lengths": lengths,
        "notes": notes,
        **details,
        "options": options,
        "versions": package_versions(),
    }


def card_json(card: dict[str, Any]) -> str:
    """The card for tools."""
    return json.dumps(card, ensure_ascii=False, indent=2) + "\n"


def card_markdown(card: dict[str, Any]) -> str:
    """The card for people; data set hosts show Markdown."""
    output = card["output"]
    lines = [f"# {card['name']}", "", f"{output['rows']} rows in `{output['file']}`, sha256 `{output['sha256']}`.", ""]
    if card["notes"]:
        lines += ["## Notes", "", *(f"- {_cell(note)}" for note in card["notes"]), ""]
    lines += ["## Rows", "", *_table(("stage", "rows"), card["rows"].items()), ""]
    lines += [f"sha256 over questions and answers as read: `{card['rows_sha256']}`.", ""]
    for entry in card["inputs"]:
        title = entry.get("file") or entry.get("hub_id")
        lines += [f"## Input: {title}", "", *_table(("", ""), entry.items()), ""]
    lines += ["## Answer types", "", *_table(("type", "rows"), card["answer_types"].items()), "", "## Lengths", ""]
    units = {unit: summary for unit, summary in card["lengths"].items() if summary}
    header = ("", *next(iter(units.values()), {}))
    lines += [*_table(header, ((unit, *summary.values()) for unit, summary in units.items())), ""]
    known = {
        "name",
        "output",
        "inputs",
        "rows_sha256",
        "rows",
        "answer_types",
        "lengths",
        "notes",
        "options",
        "versions",
    }
    for title in [key for key in card if key not in known] + ["options", "versions"]:
        lines += [f"## {title.replace('_', ' ').capitalize()}", "", *_table(("", ""), card[title].items()), ""]
    return "\n".join(lines)


def _table(header: tuple[str, ...], rows: Any) -> list[str]:
    text = [[_cell(value) for value in row] for row in rows]
    return [_row(header), _row(["---"] * len(header)), *(_row(row) for row in text)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: Any) -> str:
    if isinstance(value, list | dict):
        shown = value[:10] if isinstance(value, list) else value
        text = json.dumps(shown, ensure_ascii=False) + (
            f" and {len(value) - 10} more" if len(value) > len(shown) else ""
        )
    else:
        text = str(value)
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
