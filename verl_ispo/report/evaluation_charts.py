"""The pictures of ``verl-ispo table``: the charts of a table on request, one line for each method."""

from __future__ import annotations

from pathlib import Path

from verl_ispo.evaluation.document_part import Chart, DocumentPart
from verl_ispo.report.line_chart import DASHES, MARKERS, Axes, Line, save_grid
from verl_ispo.report.visible_text import visible

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")
"""Told apart with the common forms of colour blindness (Okabe and Ito); then dashes and markers go on."""

COLUMNS = 3
MAX_LABEL_CHARS = 40


def save_charts(part: DocumentPart, path: Path) -> None:
    """Draw a part's charts side by side into a PNG.

    Args:
        part (`DocumentPart`): with at least one chart.
        path (`Path`): of the PNG.
    """
    labels = list(dict.fromkeys(curve.label for chart in part.charts for curve in chart.curves))
    charts = [(visible(chart.title, MAX_LABEL_CHARS), _lines(chart, labels), _axes(chart)) for chart in part.charts]
    # the first chart makes the legend
    charts.sort(key=lambda drawn: -len(drawn[1]))
    save_grid(charts, min(COLUMNS, len(charts)), part.charts[0].x_label, path)


def _lines(chart: Chart, labels: list[str]) -> list[Line]:
    lines = []
    for curve in chart.curves:
        at = labels.index(curve.label)
        colour = COLOURS[at % len(COLOURS)]
        label = visible(curve.label, MAX_LABEL_CHARS)
        lines.append(Line(label, curve.x, curve.y, colour, dash=at % len(DASHES), marker=at % len(MARKERS)))
    return lines


def _axes(chart: Chart) -> Axes:
    every = [x for curve in chart.curves for x in curve.x] or [1.0, 2.0]
    return Axes(chart.y_label, (min(every), max(every)), percent=True, doubling=chart.doubling)
