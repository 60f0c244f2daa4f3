"""Tables of ``verl-ispo table --curves``: pass@k for k = 1, 2, 4, ..., G-Pass@k by threshold, and single passes.

pass@k says what a method could reach with k tries, G-Pass@k how often it gets there again (arXiv 2412.13147). A method
that gains at k = 1 and loses at a large k has narrowed what the base model could do already.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from tqdm import tqdm

from verl_ispo.evaluation.document_part import Chart, Curve, DocumentPart
from verl_ispo.evaluation.layout_text import interval_text, percent
from verl_ispo.evaluation.metrics import Metric
from verl_ispo.evaluation.results import EvaluationResult
from verl_ispo.evaluation.table import (
    AVERAGE,
    Cell,
    Group,
    averaged_benchmarks,
    build_metric_table,
    curve_label,
    table_columns,
)
from verl_ispo.user_error import UserError

THRESHOLDS = (0.25, 0.5, 0.75, 1.0)
"""tau of arXiv 2412.13147's tables."""

LEAST_K = 4
"""Smallest k of G-Pass@k: below it two of `THRESHOLDS` ask for the same number of correct samples."""

_BAR_AFTER_S = 3.0

PASS_READING = (
    "pass@k: probability that at least one of k samples is correct, by the unbiased estimator from all n samples; in "
    "brackets the 95 % interval over problems. Near k = n the estimate itself varies more from one sampling to the "
    "next, which the interval does not contain. Single passes: the n samples of each problem are n passes over the "
    "set, each from its own seeds; the standard deviation of their accuracies, and the lowest and the highest, say "
    "what a table with one sample per problem could have shown."
)
G_PASS_READING = (
    "G-Pass@k with threshold tau: probability that at least tau * k of k samples are correct (arXiv 2412.13147), "
    "unbiased from all n samples; mG-Pass@k is its mean over tau from 0.5 to 1. The authors draw n = 3 k samples."
)


def doubling_up_to(n: int) -> list[int]:
    """1, 2, 4, ... below ``n``, and ``n``, which is at least 1."""
    return [*(2**exponent for exponent in range(n.bit_length()) if 2**exponent < n), n]


def curve_parts(
    groups: Sequence[Group], benchmarks: Sequence[str], thresholds: Sequence[float] = THRESHOLDS
) -> list[DocumentPart]:
    """The two tables; rows that nobody ran are left out.

    Args:
        groups (`Sequence[Group]`): one for each base model and method.
        benchmarks (`Sequence[str]`): names.
        thresholds (`Sequence[float]`, *optional*): tau of G-Pass@k, each above 0 and up to 1.

    Raises:
        UserError: if no result has sampled responses.
    """
    groups = [group for group in groups if group.results]
    most = max(int(result.manifest["options"]["n"]) for group in groups for result in group.results)
    if most == 0:
        raise UserError("--curves: these results have greedy responses alone; evaluate with --n 16, say")
    ks = doubling_up_to(most)
    columns = table_columns(benchmarks)
    wanted = [Metric("pass", k) for k in ks]
    stable = [k for k in ks if k >= LEAST_K]
    wanted += [one for k in stable for one in _g_pass(k, thresholds)]

    # slow on many results: each cell has its own bootstrap
    bar = tqdm(wanted, desc="Curves", unit="metric", delay=_BAR_AFTER_S)
    tables = {metric: build_metric_table(groups, benchmarks, metric) for metric in bar}

    @cache
    def cell(metric: Metric, row: int, column: int) -> Cell:
        return tables[metric].rows[row].cells[column]

    pass_rows, pass_csv, g_rows, g_csv = [], [], [], []
    charts = []
    for at, column in enumerate(columns):
        curves = []
        for row, group in enumerate(groups):
            cells = [cell(Metric("pass", k), row, at) for k in ks]
            known = [(k, one.score) for k, one in zip(ks, cells, strict=True) if one.score is not None]
            if not known:
                continue
            names = (column, group.base_model, group.method)
            passes = single_passes(
                group.results, averaged_benchmarks(benchmarks) if column == AVERAGE else [benchmarks[at]]
            )
            pass_rows.append([*names, *(_text(one) for one in cells), _passes_text(passes)])
            pass_csv += [[*names, f"pass@{k}", k, None, *_numbers(one)] for k, one in zip(ks, cells, strict=True)]
            curves.append(
                Curve(curve_label(group, groups), *zip(*((k, score.value) for k, score in known), strict=True))
            )
            for k in stable:
                g_cells = [(metric, cell(metric, row, at)) for metric in _g_pass(k, thresholds)]
                if g_cells[0][1].score is None:
                    continue
                g_rows.append([*names, str(k), *(_text(one) for _, one in g_cells)])
                g_csv += [[*names, m.name, k, m.threshold or None, *_numbers(one)] for m, one in g_cells]
        charts.append(Chart(column, "k samples", "pass@k", True, tuple(curves)))
    heads = ("benchmark", "base model", "method")
    csv_heads = ("benchmark", "base_model", "method", "metric", "k", "tau", "score", "low", "high", "problems")
    parts = [
        DocumentPart(
            "pass_at_k",
            "pass@k by k",
            PASS_READING,
            (*heads, *(f"pass@{k}" for k in ks), "single passes: sd, lowest to highest"),
            pass_rows,
            csv_heads,
            pass_csv,
            charts,
        )
    ]
    if g_rows:
        named = (*(f"tau = {tau:g}" for tau in thresholds), "mG-Pass@k")
        parts.append(
            DocumentPart(
                "g_pass_at_k", "G-Pass@k by tau", G_PASS_READING, (*heads, "k", *named), g_rows, csv_heads, g_csv
            )
        )
    return parts


def single_passes(results: Sequence[EvaluationResult], benchmarks: Sequence[str]) -> list[list[float]]:
    """Accuracy of each pass over the problems, for each training seed; the plain mean over the benchmarks."""
    return [
        np.mean(
            [
                np.mean([problem.sampled for problem in result.benchmarks[name].problems], axis=0, dtype=np.float64)
                for name in benchmarks
            ],
            axis=0,
        ).tolist()
        for result in results
    ]


def _g_pass(k: int, thresholds: Sequence[float]) -> list[Metric]:
    return [*(Metric("g_pass", k, tau) for tau in thresholds), Metric("mg_pass", k)]


def _passes_text(seeds: Sequence[Sequence[float]]) -> str:
    """Standard deviation within a training seed, and the range over all passes."""
    if any(len(passes) < 2 for passes in seeds):
        return "one pass"
    deviation = float(np.sqrt(np.mean([np.var(passes, ddof=1) for passes in seeds])))
    every = [accuracy for passes in seeds for accuracy in passes]
    return f"{percent(deviation)}, {percent(min(every))} to {percent(max(every))} ({len(every)} passes)"


def _text(cell: Cell) -> str:
    if cell.score is None:
        return cell.missing
    return f"{percent(cell.score.value)} {interval_text(cell.score.interval)}"


def _numbers(cell: Cell) -> list[float | int | None]:
    score = cell.score
    if score is None:
        return [None] * 4
    between = score.interval
    return [score.value, between and between.low, between and between.high, score.problems]
