"""What a study measures of its runs: accuracy with paired intervals, lost traces and answers, and the advantage."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from verl_ispo.evaluation.calibration_scores import benchmark_calibration
from verl_ispo.evaluation.metrics import parse_metric
from verl_ispo.evaluation.results import EvaluationResult, load_result
from verl_ispo.evaluation.statistics import Interval, Scores, holm, macro_difference_interval, sign_flip_test
from verl_ispo.runs.metric_log import metric, read_metric_table
from verl_ispo.user_error import UserError

BASELINE = "grpo"
HAZARDS = {"trace dropped": "ispo/trace_dropped_rate", "answer missing": "ispo/answer_missing_rate"}
ALL_WRONG_SHARE = "ispo/advantage_share/all_wrong"
ALL_WRONG_ADVANTAGE = "ispo/all_wrong_advantage"
FLAT_GROUPS = "ispo/zero_adv_rate/composite"
CONFIDENCE = parse_metric("auroc_answer")


@dataclass(frozen=True)
class RunMeasures:
    """One trained and evaluated run.

    Attributes:
        greedy: for each level, one score per problem: whether the greedy response is correct.
        sampled: for each level, one score per problem: mean accuracy of the samples.
        hazards: by the names of `HAZARDS`, mean over the last steps; NaN where never logged.
        all_wrong_share: share of the absolute advantage that lies in all-wrong groups, mean over the steps.
        flat_groups: share of groups without any advantage, mean over the steps.
        confidence_auroc: AUROC of the answer's confidence against correctness, mean over levels; NaN if undefined.
        paid_for_no_answer: advantage of a missing answer less that of an incorrect one in all-wrong groups, mean over
            the steps that have both; NaN if none has.
    """

    greedy: tuple[Scores, ...]
    sampled: tuple[Scores, ...]
    hazards: Mapping[str, float]
    all_wrong_share: float
    flat_groups: float
    confidence_auroc: float = math.nan
    paid_for_no_answer: float = math.nan


@dataclass(frozen=True)
class Difference:
    """A method minus the baseline on the sampled accuracy, in [-1, 1].

    Attributes:
        mean: over seeds and problems.
        over_problems: paired bootstrap over problems, seeds averaged: about these trainings only.
        over_seeds: t interval of the seeds' differences: about trainings in general; `None` with one seed.
        by_seed: the difference of each seed.
        p_value: sign-flip test over problems.
    """

    mean: float
    over_problems: Interval | None
    over_seeds: tuple[float, float] | None
    by_seed: tuple[float, ...]
    p_value: float


def read_measures(run: Path, tail_steps: int) -> RunMeasures:
    """Measures of one run folder, its evaluation in ``result``.

    Args:
        run (`Path`): folder.
        tail_steps (`int`): over how many last steps the hazards are averaged.

    Raises:
        UserError: if the run has no log, or its evaluation is missing or broken.
    """
    result, log = load_result(run / "result"), read_metric_table(run)
    return RunMeasures(
        greedy=_scores(result, sampled=False),
        sampled=_scores(result, sampled=True),
        hazards={title: float(metric(log, name).tail(tail_steps).mean()) for title, name in HAZARDS.items()},
        all_wrong_share=float(metric(log, ALL_WRONG_SHARE).mean()),
        flat_groups=float(metric(log, FLAT_GROUPS).mean()),
        confidence_auroc=_confidence_auroc(result),
        paid_for_no_answer=float(
            (metric(log, f"{ALL_WRONG_ADVANTAGE}/missing") - metric(log, f"{ALL_WRONG_ADVANTAGE}/answered")).mean()
        ),
    )


def read_all(
    runs: Path, methods: Sequence[str], seeds: Sequence[int], tail_steps: int
) -> dict[str, dict[int, RunMeasures]]:
    """The finished runs in ``RUNS/seed<seed>/<method>``, by method and seed; a missing one is left out.

    Raises:
        UserError: there is none.
    """
    found: dict[str, dict[int, RunMeasures]] = {name: {} for name in methods}
    for name in methods:
        for seed in seeds:
            run = runs / f"seed{seed}" / name
            if (run / "result" / "summary.json").exists():
                found[name][seed] = read_measures(run, tail_steps)
    if not any(found.values()):
        raise UserError(f"--runs {runs}: no finished run in it; give the folder that holds seed<seed>/<method>")
    return found


def complete_runs(runs: Mapping[str, Mapping[int, RunMeasures]], seeds: Sequence[int]) -> dict[str, list[RunMeasures]]:
    """The methods of which every seed is there, seed by seed."""
    return {name: [of[seed] for seed in seeds] for name, of in runs.items() if set(of) == set(seeds)}


def missing_line(runs: Mapping[str, Mapping[int, RunMeasures]], seeds: Sequence[int]) -> list[str]:
    """Which runs are missing, as a line of markdown; nothing if none is."""
    missing = [f"{name} seed {seed}" for name, of in runs.items() for seed in seeds if seed not in of]
    return [f"Missing, and so left out: {', '.join(missing)}."] if missing else []


def accuracy(scores: Sequence[Scores]) -> float:
    """Mean over levels of the mean over problems."""
    return float(np.mean([level.mean() for level in scores]))


def compare(ours: Sequence[RunMeasures], theirs: Sequence[RunMeasures]) -> Difference:
    """A method against the baseline, both given seed by seed in the same order."""
    levels = range(len(ours[0].sampled))
    pairs = [
        (np.mean([run.sampled[level] for run in ours], axis=0), np.mean([run.sampled[level] for run in theirs], axis=0))
        for level in levels
    ]
    by_seed = tuple(accuracy(one.sampled) - accuracy(other.sampled) for one, other in zip(ours, theirs, strict=True))
    over_seeds = None
    if len(by_seed) > 1:
        half = stats.t.ppf(0.975, len(by_seed) - 1) * statistics.stdev(by_seed) / math.sqrt(len(by_seed))
        over_seeds = (statistics.fmean(by_seed) - half, statistics.fmean(by_seed) + half)
    return Difference(
        mean=statistics.fmean(by_seed),
        over_problems=macro_difference_interval(pairs),
        over_seeds=over_seeds,
        by_seed=by_seed,
        p_value=sign_flip_test(pairs).p_value,
    )


COLUMNS: dict[str, Callable[[RunMeasures], float]] = {
    "mean of samples, %": lambda run: accuracy(run.sampled),
    "greedy, %": lambda run: accuracy(run.greedy),
    **{f"{title}, %": lambda run, title=title: run.hazards[title] for title in HAZARDS},
    "advantage in all-wrong groups, %": lambda run: run.all_wrong_share,
    "groups without advantage, %": lambda run: run.flat_groups,
    "AUROC of the answer's confidence, %": lambda run: run.confidence_auroc,
    "advantage of no answer over an incorrect one in all-wrong groups, x 100": lambda run: run.paid_for_no_answer,
}
"""The measures by the titles of their columns."""


def measure_lines(complete: Mapping[str, Sequence[RunMeasures]]) -> list[str]:
    """Every measure of every method as a table of markdown: mean over seeds, and each seed."""
    lines = [
        "## Measures, mean over seeds (each seed in brackets)",
        "",
        f"| method | {' | '.join(COLUMNS)} |",
        f"|---|{'---|' * len(COLUMNS)}",
    ]
    for name, runs in complete.items():
        shown = [_mean_and_each([measure(run) for run in runs]) for measure in COLUMNS.values()]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return lines


def comparison_lines(complete: Mapping[str, Sequence[RunMeasures]]) -> list[str]:
    """Every method against the baseline as markdown.

    Args:
        complete (`Mapping[str, Sequence[RunMeasures]]`): by method, the baseline among them, seed by seed.
    """
    if BASELINE not in complete:
        return ["", f"No comparison: {BASELINE} is not complete."]
    found = {name: compare(of, complete[BASELINE]) for name, of in complete.items() if name != BASELINE}
    adjusted = holm([difference.p_value for difference in found.values()])
    lines = [
        "",
        f"## Mean of samples against {BASELINE}, in points",
        "",
        "The first interval is about these trainings (paired bootstrap over problems, seeds averaged), the second "
        "about trainings in general (t over seeds). p is that of the sign-flip test over problems, after Holm's "
        "correction.",
        "",
        "| method | difference | 95 % over problems | 95 % over seeds | each seed | p |",
        "|---|---|---|---|---|---|",
    ]
    for (name, difference), p_value in zip(found.items(), adjusted, strict=True):
        problems, seeds = difference.over_problems, difference.over_seeds
        lines.append(
            f"| {name} | {100 * difference.mean:+.1f} "
            f"| {interval_text(problems.low, problems.high) if problems else '-'} "
            f"| {interval_text(*seeds) if seeds else '-'} "
            f"| {', '.join(f'{100 * value:+.1f}' for value in difference.by_seed)} | {p_value:.3f} |"
        )
    return lines


def _scores(result: EvaluationResult, sampled: bool) -> tuple[Scores, ...]:
    return tuple(
        np.array([np.mean(problem.sampled) if sampled else float(problem.greedy) for problem in benchmark.problems])
        for _, benchmark in sorted(result.benchmarks.items())
    )


def _confidence_auroc(result: EvaluationResult) -> float:
    found = [benchmark_calibration([benchmark], CONFIDENCE) for benchmark in result.benchmarks.values()]
    return statistics.fmean([math.nan if isinstance(one, str) else float(one.measured.values[0]) for one in found])


def mean_accuracy(runs: Sequence[RunMeasures]) -> float:
    """Mean accuracy of the samples over seeds."""
    return statistics.fmean(accuracy(run.sampled) for run in runs)


def _mean_and_each(values: Sequence[float]) -> str:
    """A mean and its parts in percent; a dash where one is not known."""
    if any(map(math.isnan, values)):
        return "-"
    return f"{100 * statistics.fmean(values):.1f} ({', '.join(f'{100 * value:.1f}' for value in values)})"


def interval_text(low: float, high: float) -> str:
    """An interval of shares, in points."""
    return f"[{100 * low:+.1f}, {100 * high:+.1f}]"
