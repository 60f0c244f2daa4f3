"""The figure of a set of runs: small multiples over the training steps, one colour a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from verl_ispo.atomic_file import atomic_file
from verl_ispo.runs.metric_log import metric
from verl_ispo.tiny_task.accuracy import accuracy_series

PANELS = (
    ("Training accuracy of the rollouts", "critic/score/mean", "rate"),
    ("Groups with zero spread: outcome", "ispo/zero_adv_rate/outcome", "rate"),
    ("Groups with zero spread: composite", "ispo/zero_adv_rate/composite", "rate"),
    ("Answers without a trace", "ispo/trace_dropped_rate", "rate"),
    ("Responses without an answer", "ispo/answer_missing_rate", "rate"),
    ("Length of the trace (tokens)", "ispo/trace_length", "positive"),
    ("Entropy on critical tokens of wrong\nrollouts (nats)", "ispo/critical_entropy/wrong", "positive"),
    ("Share of the absolute advantage\nin all-wrong groups", "ispo/advantage_share/all_wrong", "rate"),
)
SMOOTHING_STEPS = 9
# Okabe and Ito's palette, told apart with any colour vision
COLOURS = ("#555555", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00")
DASHES = ("-", (0, (4, 1.2)), (0, (1.2, 1)))  # so that a curve that lies on another one shows through
DPI = 120  # 12 inches wide, and still clear when scaled to 1200 pixels


def styles(count: int) -> list[tuple[str, Any]]:
    """Colour and dashes of each run, repeating when there are more runs than colours."""
    return [(COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]) for index in range(count)]


def draw_accuracy(axes: Axes, runs: Mapping[str, pd.DataFrame], problems_per_level: int) -> None:
    """Held-out accuracy with a band of one standard error."""
    axes.set_title("Held-out accuracy, mean over levels\n(band: one standard error)", loc="left")
    for (colour, dashes), (label, run) in zip(styles(len(runs)), runs.items(), strict=True):
        mean, error = accuracy_series(run, problems_per_level)
        axes.plot(mean.index, mean, color=colour, ls=dashes, marker="o", markersize=3.5, linewidth=2, label=label)
        axes.fill_between(mean.index, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
    axes.set_ylim(0, 1)


def draw_metric(axes: Axes, runs: Mapping[str, pd.DataFrame], title: str, name: str, kind: str) -> None:
    """One metric: each step faint, and a centred running mean on top. A step without a value is a gap."""
    axes.set_title(title, loc="left")
    drawn = False
    for (colour, dashes), run in zip(styles(len(runs)), runs.values(), strict=True):
        if metric(run, name).empty:
            continue
        drawn = True
        values = run[name].reindex(range(int(run.index.min()), int(run.index.max()) + 1))
        smooth = values.rolling(SMOOTHING_STEPS, center=True, min_periods=3).mean().where(values.notna())
        axes.plot(values.index, values, color=colour, alpha=0.25, linewidth=0.8, marker=".", markersize=2)
        axes.plot(smooth.index, smooth, color=colour, ls=dashes, linewidth=2)
    if not drawn:
        axes.text(0.5, 0.5, "not logged", transform=axes.transAxes, ha="center", va="center", color="#777777")
        axes.set_yticks([])
    elif kind == "rate":
        axes.set_ylim(-0.02, 1.02)
    else:
        axes.set_ylim(bottom=0)


def draw_curves(runs: Mapping[str, pd.DataFrame], problems_per_level: int, path: Path) -> None:
    """Draw all panels into a PNG, which appears under its name when it is complete.

    Args:
        runs (`Mapping[str, pd.DataFrame]`): logs by label, in the order of the legend.
        problems_per_level (`int`): held-out problems of each level.
        path (`Path`): of the PNG.
    """
    with matplotlib.rc_context({"font.size": 10, "axes.titlesize": 10.5, "axes.spines.top": False}):
        figure = Figure(figsize=(12, 9.6), layout="constrained")  # no pyplot: no display is looked for
        grid = figure.subplots(3, 3, sharex=True)
        draw_accuracy(grid.flat[0], runs, problems_per_level)
        for axes, (title, name, kind) in zip(grid.flat[1:], PANELS, strict=True):
            draw_metric(axes, runs, title, name, kind)
        for axes in grid.flat:
            axes.grid(color="#dddddd", linewidth=0.6)
            axes.spines["right"].set_visible(False)
        figure.supxlabel(
            f"training step (faint: single steps; bold: running mean over {SMOOTHING_STEPS} steps)", fontsize=10
        )
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=12)
        with atomic_file(path) as file:
            figure.savefig(file, format="png", dpi=DPI)
