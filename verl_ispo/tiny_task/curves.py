"""The quickstart's picture of a set of runs: which metrics it shows, and how each run looks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from verl_ispo.report.line_chart import Axes, Line, save_grid, shared_value_range
from verl_ispo.runs.metric_log import metric
from verl_ispo.tiny_task.accuracy import accuracy_series

PANELS = (
    ("Training accuracy of the rollouts", "critic/score/mean", "rate"),
    ("Groups with zero spread: outcome", "ispo/zero_adv_rate/outcome", "rate"),
    ("Groups with zero spread: composite", "ispo/zero_adv_rate/composite", "rate"),
    ("Answers without a trace", "ispo/trace_dropped_rate", "rate"),
    ("Responses without an answer", "ispo/answer_missing_rate", "rate"),
    ("Length of the trace (tokens)", "ispo/trace_length", "positive"),
    ("Entropy on critical tokens of\nincorrect rollouts (nats)", "ispo/critical_entropy/wrong", "positive"),
    ("Share of the absolute advantage\nin all-wrong groups", "ispo/advantage_share/all_wrong", "rate"),
)
SMOOTHING_STEPS = 9
# Okabe and Ito's palette, distinguishable with any colour vision
COLOURS = ("#555555", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00")


def accuracy_lines(runs: Mapping[str, pd.DataFrame], problems_per_level: int) -> list[Line]:
    """Held-out accuracy with a band of one standard error."""
    lines = []
    for at, (label, run) in enumerate(runs.items()):
        mean, error = accuracy_series(run, problems_per_level)
        lines.append(Line(label, mean.index, mean, COLOURS[at % len(COLOURS)], dash=at, spread=error))
    return lines


def metric_lines(runs: Mapping[str, pd.DataFrame], name: str) -> list[Line]:
    """One metric: each step thin, and a centred running mean on top. A step without a value is a gap."""
    lines = []
    for at, (label, run) in enumerate(runs.items()):
        if not metric(run, name).empty:
            values = run[name].reindex(range(int(run.index.min()), int(run.index.max()) + 1))
            colour = COLOURS[at % len(COLOURS)]
            lines.append(Line(label, values.index, values, colour, dash=at, window=SMOOTHING_STEPS))
    return lines


def draw_curves(runs: Mapping[str, pd.DataFrame], problems_per_level: int, path: Path) -> None:
    """Draw all panels into a PNG, which appears under its name when it is complete.

    Args:
        runs (`Mapping[str, pd.DataFrame]`): logs by label, in the order of the legend.
        problems_per_level (`int`): held-out problems of each level.
        path (`Path`): of the PNG.
    """
    step_range = (min(run.index.min() for run in runs.values()), max(run.index.max() for run in runs.values()))
    title = "Held-out accuracy, mean over levels\n(band: one standard error)"
    charts = [(title, accuracy_lines(runs, problems_per_level), Axes("", step_range, (0, 1)))]
    for title, name, kind in PANELS:
        lines = metric_lines(runs, name)
        _, top = shared_value_range(lines) or (0, 1)
        charts.append((title, lines, Axes("", step_range, (-0.02, 1.02) if kind == "rate" else (0, top))))
    x_label = f"training step (thin: single steps; bold: running mean over {SMOOTHING_STEPS} steps)"
    save_grid(charts, 3, x_label, path)
