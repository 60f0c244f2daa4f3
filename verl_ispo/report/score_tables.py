"""The rows of ``verl-ispo table``'s scores.csv as tables to read: one row per method, one column per benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from verl_ispo.report.table_file import EvaluationTable

NEEDED = ("base_model", "method", "benchmark", "metric", "status", "score_percent", "problems")


@dataclass(frozen=True)
class ScoreTable:
    """One metric: its name, a header and rows of text."""

    metric: str
    header: list[str]
    rows: list[list[str]]


def score_tables(table: EvaluationTable) -> list[ScoreTable]:
    """One table per metric, in the order of the file; none where the file has other columns than scores.csv."""
    if not set(NEEDED) <= set(table.header):
        return []
    entries = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    return [
        _one_metric(metric, [entry for entry in entries if entry["metric"] == metric])
        for metric in dict.fromkeys(entry["metric"] for entry in entries)
    ]


def _one_metric(metric: str, entries: list[dict[str, str]]) -> ScoreTable:
    # The average first, where a narrow screen shows it.
    benchmarks = sorted(dict.fromkeys(entry["benchmark"] for entry in entries), key=lambda name: name != "Average")
    cells = {(entry["base_model"], entry["method"], entry["benchmark"]): _cell(entry) for entry in entries}
    rows = dict.fromkeys((entry["base_model"], entry["method"]) for entry in entries)
    return ScoreTable(
        metric=metric,
        header=["base model", "method", *benchmarks],
        rows=[[*row, *(cells.get((*row, benchmark), "not run") for benchmark in benchmarks)] for row in rows],
    )


def _cell(entry: dict[str, str]) -> str:
    """Score, interval and number of problems; the status instead where there is no score."""
    paper = entry.get("paper_percent", "")
    beside = f"; paper {paper}" if paper else ""
    try:
        score = f"{float(entry['score_percent']):.1f}"
    except ValueError:
        return entry["status"] + beside
    interval = ""
    if entry.get("interval_low_percent") and entry.get("interval_high_percent"):
        low, high = float(entry["interval_low_percent"]), float(entry["interval_high_percent"])
        interval = f" [{low:.1f}, {high:.1f}]"
    seeds = f", sd {entry['between_seed_sd_percent']}" if entry.get("between_seed_sd_percent") else ""
    return f"{score}{interval} n={entry['problems']}{seeds}{beside}"
