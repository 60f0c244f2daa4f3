"""Charts with their titles, gaps and numbers: one line per run on shared axes, or one chart per run."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from verl_ispo.report import line_chart
from verl_ispo.report.line_chart import DASHES, MARKERS, SERIES, Axes, Line
from verl_ispo.report.loaded_run import Run
from verl_ispo.report.number_format import show
from verl_ispo.report.series_statistics import known

# Rows of the table under a chart.
TABLE_ROWS = 12

Series = tuple[Sequence[int], Sequence[float]]
SeriesOf = Callable[[Run], Series]


@dataclass(frozen=True)
class LegendEntry:
    """A line's look, for the legend, which is above the charts so that it covers no data."""

    label: str
    colour: str
    dash: int

    @property
    def css_colour(self) -> str:
        """The CSS variable behind the chart's stand-in."""
        return line_chart.COLOURS[self.colour]

    @property
    def dash_array(self) -> str:
        """For SVG's ``stroke-dasharray``."""
        pattern = DASHES[self.dash % len(DASHES)]
        return "none" if isinstance(pattern, str) else " ".join(str(2 * length) for length in pattern[1])


@dataclass(frozen=True)
class Panel:
    """One chart of a figure.

    Attributes:
        title: what is drawn.
        svg: `None` where there is nothing to draw.
        gap: why something is not drawn, empty where all is.
        header: of the table under the chart.
        rows: of the table, as text.
    """

    title: str
    svg: Markup | None
    gap: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class FigureBlock:
    """Several charts under one title.

    Attributes:
        anchor: id in the page.
        title: of the figure.
        source: which of the paper's figures and tables it corresponds to; may be empty.
        look_for: one plain sentence on what to look for.
        legend: of all charts.
        rows: the charts, one list per row of the page.
    """

    anchor: str
    title: str
    source: str
    look_for: str
    legend: Sequence[LegendEntry]
    rows: Sequence[Sequence[Panel]]


@dataclass(frozen=True)
class Drawing:
    """The runs of a report and the look of each.

    Attributes:
        runs: in order.
        step_range: first and last step of all of them.
    """

    runs: Sequence[Run]
    step_range: tuple[int, int]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Drawing:
        """Shared axes of these runs."""
        steps = [step for run in runs for step in run.log.steps]
        return cls(runs, (min(steps), max(steps)))

    def changes(self, *names: str) -> list[tuple[int, str]]:
        """Step and colour of each change of settings, of the runs of these names or of all."""
        return [
            (step, SERIES[at % len(SERIES)])
            for at, run in enumerate(self.runs)
            for step in run.changed_steps
            if not names or run.name in names
        ]

    def run_legend(self) -> list[LegendEntry]:
        """One entry per run."""
        return [LegendEntry(run.name, SERIES[at % len(SERIES)], at) for at, run in enumerate(self.runs)]


def metric(name: str, sparse: bool = False) -> SeriesOf:
    """The series of one metric of a run's log."""
    return lambda run: run.log.series(name, sparse)


def overlay(
    drawing: Drawing,
    title: str,
    unit: str,
    series_of: SeriesOf,
    name: str,
    percent: bool = False,
    value_range: tuple[float, float] | None = None,
) -> Panel:
    """One chart with a line for each run.

    Args:
        drawing (`Drawing`).
        title (`str`): of the chart.
        unit (`str`): of the y axis.
        series_of (`Callable`): from a run to steps and values, empty where it has none.
        name (`str`): metric that a run has to log for it, for the note on gaps.
        percent (`bool`, *optional*, defaults to `False`): values are shares.
        value_range (`tuple`, *optional*): of the y axis; the chart's own values by default.
    """
    lines, absent = [], []
    for at, run in enumerate(drawing.runs):
        steps, values = series_of(run)
        if known(values):
            lines.append(Line(run.name, steps, values, SERIES[at % len(SERIES)], dash=at, marker=at % len(MARKERS)))
        else:
            absent.append(run.name)
    if not lines:
        return Panel(title, None, f"No run has {name}.")
    return _panel(
        drawing,
        title,
        unit,
        lines,
        percent=percent,
        gap=_gap(absent, name),
        value_range=value_range,
        changes=drawing.changes(),
    )


def one_chart_a_run(
    drawing: Drawing,
    title: str,
    unit: str,
    metrics: Sequence[tuple[LegendEntry, str, str | None]],
    thresholds_of: Callable[[Run], dict[str, float]] = lambda run: {},
) -> list[Panel]:
    """Charts on the same axes, one per run, with the same lines in each.

    Args:
        drawing (`Drawing`).
        title (`str`): of each chart; the run's name is put behind it.
        unit (`str`): of the y axis.
        metrics (`Sequence`): look, metric, and the metric of the band around it or `None`.
        thresholds_of (`Callable`, *optional*): from a run to label and value of horizontal lines.
    """
    lines_of: dict[str, list[Line]] = {}
    absent_of: dict[str, list[str]] = {}
    for run in drawing.runs:
        lines_of[run.name], absent_of[run.name] = [], []
        for at, (look, name, spread_name) in enumerate(metrics):
            steps, values = run.log.series(name)
            if not known(values):
                absent_of[run.name].append(name)
                continue
            spread = None
            if spread_name is not None:
                _, found = run.log.series(spread_name)
                spread = found if len(found) == len(values) else None
            lines_of[run.name].append(Line(look.label, steps, values, look.colour, look.dash, at, spread))
    all_lines = [line for lines in lines_of.values() for line in lines]
    all_thresholds = [value for run in drawing.runs for value in thresholds_of(run).values()] if all_lines else []
    value_range = line_chart.shared_value_range(all_lines, *all_thresholds)
    panels = []
    for run in drawing.runs:
        lines, absent = lines_of[run.name], absent_of[run.name]
        run_title = f"{title}: {run.name}"
        if not lines:
            panels.append(Panel(run_title, None, f"This run has no {' or '.join(absent)}."))
            continue
        gap = f"Never defined in this run: {', '.join(absent)}." if absent else ""
        panels.append(
            _panel(
                drawing,
                run_title,
                unit,
                lines,
                gap=gap,
                value_range=value_range,
                thresholds=thresholds_of(run),
                changes=drawing.changes(run.name),
            )
        )
    return panels


def _panel(
    drawing: Drawing,
    title: str,
    unit: str,
    lines: Sequence[Line],
    *,
    percent: bool = False,
    gap: str = "",
    value_range: tuple[float, float] | None = None,
    thresholds: dict[str, float] | None = None,
    changes: Sequence[tuple[int, str]] = (),
) -> Panel:
    axes = Axes(unit, drawing.step_range, value_range, percent, thresholds, changes)
    spoken = "; ".join(
        f"{line.label} from {show(known(line.values)[0], percent)} to {show(known(line.values)[-1], percent)}"
        for line in lines
    )
    identifier = f"chart{zlib.crc32(title.encode('utf-8', 'replace')):08x}"
    svg = line_chart.draw_lines(lines, axes, identifier, f"{title} by training step: {spoken}")
    header, rows = _table(lines, percent)
    return Panel(title, svg, gap, header, rows)


def _table(lines: Sequence[Line], percent: bool) -> tuple[list[str], list[list[str]]]:
    steps = sorted({step for line in lines for step in line.steps})
    if len(steps) > TABLE_ROWS:
        steps = [steps[round(at * (len(steps) - 1) / (TABLE_ROWS - 1))] for at in range(TABLE_ROWS)]
    columns = [dict(zip(line.steps, line.values, strict=True)) for line in lines]
    rows = [[str(step), *(show(column.get(step), percent) for column in columns)] for step in steps]
    return ["step", *(line.label for line in lines)], rows


def _gap(absent: Sequence[str], name: str) -> str:
    return f"Not drawn: {', '.join(absent)} (no {name})." if absent else ""
