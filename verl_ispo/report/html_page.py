"""Puts the prepared parts into one HTML file. Jinja2 escapes every string but our own SVG and CSS.

The page has no script at all: what can be switched is switched by radio buttons and CSS, and the content security
policy allows nothing but inline styles. So text that a model wrote can look ugly and do nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from verl_ispo.report.chart_panels import FigureBlock
from verl_ispo.report.config_diff import Difference
from verl_ispo.report.escaped_page import page_environment, page_style
from verl_ispo.report.key_numbers import KeyNumber
from verl_ispo.report.loaded_run import Run
from verl_ispo.report.method_payments import PaidGroup
from verl_ispo.report.number_format import signed
from verl_ispo.report.rollout_view import DRIFT_BINS, ENTROPY_BINS, ShownGroup
from verl_ispo.report.score_tables import score_tables
from verl_ispo.report.table_file import EvaluationTable


@dataclass(frozen=True)
class StepOfGroups:
    """The groups of one dumped step, all runs."""

    step: int
    groups: Sequence[ShownGroup]


@dataclass(frozen=True)
class ReportContent:
    """Everything that the page shows.

    Attributes:
        runs: in order.
        sentences: of the summary.
        key_numbers: of the summary.
        critical_fractions: rows after the paper's table 5.
        figures: in order.
        payments: some groups under every preset.
        steps: of the rollout view.
        rollout_gaps: why there is no rollout view, or what it lacks.
        table: evaluation table, `None` where none was given.
        differences: between the runs' configs.
        smoothing: running means that the charts show, by run; empty where all steps are drawn.
        made_at: date and time.
        version: of this package.
    """

    runs: Sequence[Run]
    sentences: Sequence[str]
    key_numbers: Sequence[KeyNumber]
    critical_fractions: Sequence[Sequence[str]]
    figures: Sequence[FigureBlock]
    payments: Sequence[PaidGroup]
    steps: Sequence[StepOfGroups]
    rollout_gaps: Sequence[str]
    table: EvaluationTable | None
    differences: Sequence[Difference]
    smoothing: Sequence[str]
    made_at: str
    version: str


def render(content: ReportContent) -> str:
    """The page as HTML text."""
    environment = page_environment("verl_ispo.report")
    environment.filters["signed"] = signed
    html = environment.get_template("report.html.j2").render(
        report=content,
        style=page_style(),
        entropy_bins=_bin_labels(ENTROPY_BINS),
        drift_bins=_bin_labels(DRIFT_BINS),
        is_number=_is_number,
        score_tables=score_tables,
    )
    # No lone surrogate may reach the encoder; visible() has replaced those of model text.
    return html.encode("utf-8", "replace").decode("utf-8")


def _bin_labels(edges: Sequence[float]) -> list[str]:
    between = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    return [f"< {edges[0]:g}", *between, f"≥ {edges[-1]:g}"]


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text[:2].lstrip("-+–<")[:1].isdigit()
