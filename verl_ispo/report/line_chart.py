"""Line charts over the training steps, drawn by matplotlib: one as inline SVG for the report, or a grid of them as PNG.

The SVG is coloured by the page's CSS (light, dark, print). matplotlib, because its SVG needs no script (plotly would
put 4 to 5 MB of JavaScript into the page and need a laxer content security policy) and prints sharply.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from verl_ispo.atomic_file import atomic_file
from verl_ispo.report.visible_text import visible

SIZE_INCHES = (4.5, 2.7)
# More steps than this are drawn thin, with their running mean on top.
SMOOTHED_FROM_STEPS = 100
TICK_STEPS = (1, 2, 2.5, 5, 10)
# Up to this many steps each one gets a marker.
MARKED_UP_TO_STEPS = 40

# Colours are stand-ins that the SVG's text is searched for, and that become CSS variables of the page.
INK, FAINT = "#a0b0c0", "#a0b0c1"
COLOURS = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    **{f"#a0b1{number:02x}": f"var(--series{number})" for number in range(7)},
    "#a0b2c1": "var(--correct)",
    "#a0b2c2": "var(--incorrect)",
}
SERIES = [f"#a0b1{number:02x}" for number in range(7)]
CORRECT, INCORRECT = "#a0b2c1", "#a0b2c2"
MARKERS = "os^DvPX"
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))

DPI = 120  # of a PNG: 12 inches wide, and still clear when scaled to 1200 pixels


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        label: for the table under the chart and for readers of the page's text.
        steps: x positions, ascending.
        values: one per step; NaN leaves a gap.
        colour: one of this module's stand-ins for the page; any of matplotlib's colours for a PNG.
        dash: index into `DASHES`.
        marker: index into `MARKERS`.
        spread: half the height of a band around the line, one per step.
        window: steps under the running mean, with the single steps drawn thin; `None` chooses by the number of steps.
    """

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    colour: str
    dash: int = 0
    marker: int = 0
    spread: Sequence[float] | None = None
    window: int | None = None


@dataclass(frozen=True)
class Axes:
    """What the charts of one figure share.

    Attributes:
        unit: label of the y axis.
        step_range: of all runs.
        value_range: `None` fits the chart's own values.
        percent: values are shares.
        thresholds: label to a value at which a horizontal line is drawn.
        changes: step and colour of each vertical line, where a run went on with other settings.
        x_label: label of the x axis.
        doubling: each tick of x is twice the one before.
    """

    unit: str
    step_range: tuple[float, float]
    value_range: tuple[float, float] | None = None
    percent: bool = False
    thresholds: Mapping[str, float] | None = None
    changes: Sequence[tuple[int, str]] = ()
    x_label: str = "training step"
    doubling: bool = False


def draw_lines(lines: Sequence[Line], axes: Axes, name: str, description: str) -> Markup:
    """The chart as an ``<svg>`` element.

    Args:
        lines (`Sequence[Line]`).
        axes (`Axes`).
        name (`str`): prefix of every id in it, so that one page can hold several charts.
        description (`str`): for readers who do not see it.
    """
    with matplotlib.rc_context(_style(INK, FAINT)):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        plot = figure.add_subplot()
        draw_on(plot, lines, axes)
        plot.set_xlabel(axes.x_label)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), name, description)


def save_grid(charts: Sequence[tuple[str, Sequence[Line], Axes]], columns: int, x_label: str, path: Path) -> None:
    """Small multiples as a PNG, which appears under its name when it is complete.

    Args:
        charts (`Sequence`): title, lines and axes of each; the first one's lines make the legend above all of them.
        columns (`int`): charts side by side.
        x_label (`str`): below all charts.
        path (`Path`): of the PNG, 12 inches wide at `DPI`.
    """
    rows = math.ceil(len(charts) / columns)
    with matplotlib.rc_context(_style("black", "#dddddd")):
        figure = Figure(figsize=(12, 3.2 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, squeeze=False).flatten()
        for plot, (title, lines, axes) in zip(grid, charts, strict=False):
            plot.set_title(title, loc="left", fontsize=10.5)
            draw_on(plot, lines, axes)
        for empty in range(len(charts), rows * columns):
            grid[empty].set_axis_off()
            grid[empty - columns].tick_params(labelbottom=True)
        figure.supxlabel(x_label, fontsize=10)
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=12)
        with atomic_file(path) as file:
            figure.savefig(file, format="png", dpi=DPI)


def draw_on(plot: matplotlib.axes.Axes, lines: Sequence[Line], axes: Axes) -> None:
    """Draw lines, thresholds and scales; without any line the chart says that nothing was logged."""
    for line in lines:
        _draw_line(plot, line)
    for label, value in (axes.thresholds or {}).items():
        plot.axhline(value, color=matplotlib.rcParams["text.color"], linewidth=1, linestyle=(0, (3, 3)))
        plot.annotate(
            visible(label, 40),
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            fontsize=9,
        )
    for step, colour in axes.changes:
        plot.axvline(step, color=colour, linewidth=1, linestyle=(0, (1, 2)), zorder=2)
    first, last = axes.step_range
    if axes.doubling:
        plot.set_xscale("log", base=2)
        plot.set_xlim(first / 1.1, last * 1.1)
        plot.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    else:
        plot.set_xlim(first - 0.02 * (last - first + 1), last + 0.02 * (last - first + 1))
        plot.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=TICK_STEPS))
    plot.yaxis.set_major_locator(MaxNLocator(5, steps=TICK_STEPS))
    if axes.percent:
        plot.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    _set_value_range(plot, axes)
    plot.set_ylabel(axes.unit)
    if not lines:
        plot.text(0.5, 0.5, "not logged", transform=plot.transAxes, ha="center", va="center")
        plot.set_yticks([])


def shared_value_range(lines: Sequence[Line], *more: float) -> tuple[float, float] | None:
    """Smallest and largest value of all lines and their bands, with some margin; `None` without any value."""
    values = list(more)
    for line in lines:
        spreads = line.spread if line.spread is not None else [0.0] * len(line.values)
        for value, spread in zip(line.values, spreads, strict=True):
            reach = spread if math.isfinite(spread) else 0.0
            values += [value - reach, value + reach]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return low - margin, high + margin


def running_mean(values: Sequence[float], window: int) -> np.ndarray:
    """Centred mean over `window` entries, NaN left out; NaN where the entry itself is NaN."""
    data = pd.Series(values, dtype=float)
    return data.rolling(window, center=True, min_periods=1).mean().where(data.notna()).to_numpy()


def smoothing_window(step_count: int) -> int:
    """Steps under the running mean of a run of this length, an odd number."""
    return max(5, step_count // 40) // 2 * 2 + 1


def _style(ink: str, faint: str) -> dict[str, Any]:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "verl_ispo",
        "text.parse_math": False,  # a run's name may hold dollar signs
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.unicode_minus": False,
        "axes.edgecolor": ink,
        "axes.labelcolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "text.color": ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": faint,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
    }


def _draw_line(plot: matplotlib.axes.Axes, line: Line) -> None:
    values = np.asarray(line.values, dtype=float)
    known = np.isfinite(values)
    style = {"color": line.colour, "linestyle": DASHES[line.dash % len(DASHES)], "label": line.label}
    if line.spread is not None:
        spread = np.nan_to_num(np.asarray(line.spread, dtype=float))
        plot.fill_between(
            line.steps, values - spread, values + spread, where=known, color=line.colour, alpha=0.16, linewidth=0
        )
    window = line.window or (smoothing_window(len(values)) if len(values) > SMOOTHED_FROM_STEPS else None)
    smoothed = window is not None and known.sum() > len(values) / 2
    if smoothed:
        plot.plot(line.steps, values, color=line.colour, linewidth=0.6, alpha=0.3, zorder=1)
    plot.plot(line.steps, running_mean(values, window) if smoothed else values, zorder=3, **style)
    before, after = np.roll(known, 1), np.roll(known, -1)
    if len(known):
        before[0], after[-1] = False, False
    # A value between two gaps has no line to show it.
    marked = known if len(values) <= MARKED_UP_TO_STEPS and not smoothed else known & ~before & ~after
    plot.plot(
        np.asarray(line.steps)[marked],
        values[marked],
        color=line.colour,
        linestyle="none",
        marker=MARKERS[line.marker % len(MARKERS)],
        markersize=3.5,
    )


def _set_value_range(plot: matplotlib.axes.Axes, axes: Axes) -> None:
    if axes.value_range is not None:
        plot.set_ylim(*axes.value_range)
    elif axes.percent:
        # Shares start at 0, so that a small one looks small, with a margin above for a line at 100 %.
        plot.set_ylim(-0.02 * plot.get_ylim()[1], min(max(plot.get_ylim()[1], 0.02), 1.04))


def _inline(svg: str, name: str, description: str) -> Markup:
    """Cut an SVG file down to its element, prefix its ids, and replace its colours by the page's CSS variables."""
    svg = svg[svg.index("<svg") :]
    # Its style sheet would hold for the whole page; the page's own has the same rule for charts.
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    for stand_in, variable in COLOURS.items():
        svg = svg.replace(stand_in, variable)
    view_box = re.search(r'viewBox="[^"]*"', svg).group()
    label = Markup.escape(visible(description, 500))
    opening = f'<svg {view_box} role="img" aria-label="{label}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return Markup(re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1))
