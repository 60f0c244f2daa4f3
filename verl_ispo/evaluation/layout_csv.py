"""The table document as CSV, one line per score or comparison, for further work."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from verl_ispo.evaluation.document import TableDocument
from verl_ispo.evaluation.document_part import DocumentPart
from verl_ispo.evaluation.statistics import Interval
from verl_ispo.evaluation.table import Group

_SCORE_COLUMNS = (
    *("base_model", "method", "benchmark", "metric", "status", "score_percent", "interval_low_percent"),
    *("interval_high_percent", "interval_method", "problems", "training_seeds", "seed_scores_percent"),
    *("between_seed_sd_percent", "checkpoint_rule", "steps", "paper_percent", "paper_source", "notes"),
)
_COMPARISON_COLUMNS = (
    *("base_model", "method", "baseline", "benchmark", "metric", "problems", "difference_points"),
    *("interval_low_points", "interval_high_points", "interval_method", "test", "only_method", "only_baseline"),
    *("p_value", "p_holm", "method_seeds", "baseline_seeds"),
)


def format_scores_csv(document: TableDocument) -> str:
    """Every cell of every metric; an empty field where there is nothing."""
    groups = {(group.base_model, group.method): group for group in document.groups}
    lines = []
    for table in document.tables:
        for row in table.rows:
            group = groups[row.base_model, row.method]
            for column, cell in zip(table.columns, row.cells, strict=True):
                score, paper = cell.score, cell.paper
                notes = [*(score.notes if score else ()), *(paper.notes if paper else ())]
                line: list[Any] = [row.base_model, row.method, column, table.metric.name]
                line += [cell.missing or "run", _percent(score.value if score else None)]
                line += _interval(score.interval if score else None)
                line += [score.problems if score else None]
                line += [_joined(name for name, _ in score.seeds) if score else None]
                line += [_joined(_percent(value) for _, value in score.seeds) if score else None]
                line += [_percent(score.seed_deviation if score else None)]
                line += _checkpoints(group) if score else [None, None]
                line += [paper.percent if paper else None, paper.source if paper else None, _joined(notes)]
                lines.append(line)
    return _csv(_SCORE_COLUMNS, lines)


def format_comparisons_csv(document: TableDocument) -> str:
    """Every comparison with the baseline."""
    lines = []
    for comparison in document.comparisons:
        test = comparison.test
        line: list[Any] = [comparison.base_model, comparison.method, comparison.baseline, comparison.benchmark]
        line += [comparison.metric.name, comparison.problems, _percent(comparison.difference)]
        line += [*_interval(comparison.interval), test.name, test.only_first, test.only_second]
        line += [f"{test.p_value:.6g}", f"{comparison.p_holm:.6g}", *comparison.seeds]
        lines.append(line)
    return _csv(_COMPARISON_COLUMNS, lines)


def format_part_csv(part: DocumentPart) -> str:
    """The numbers of a table on request, unrounded shares in [0, 1]; an empty field where nothing is known."""
    return _csv(part.csv_columns, part.csv_rows)


def _checkpoints(group: Group) -> list[str]:
    models = [result.manifest["model"] for result in group.results]
    return [_joined(model["checkpoint_rule"] for model in models), _joined(model["step"] for model in models)]


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.4f}"


def _interval(interval: Interval | None) -> list[str | None]:
    if interval is None:
        return [None, None, None]
    return [_percent(interval.low), _percent(interval.high), interval.method]


def _joined(parts: Iterable[Any]) -> str:
    return "; ".join("-" if part is None else str(part) for part in parts)


def _csv(columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    return text.getvalue()
