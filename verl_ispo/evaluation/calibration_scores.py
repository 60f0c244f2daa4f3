"""Calibration of evaluated checkpoints: which responses count, and what is said where there is nothing to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verl_ispo.evaluation.calibration import MEASURES, Responses, estimate
from verl_ispo.evaluation.metrics import Metric
from verl_ispo.evaluation.results import BenchmarkResult
from verl_ispo.evaluation.statistics import Interval

NO_LOG_PROBS = "no log-probs recorded"


@dataclass(frozen=True)
class CalibrationScore:
    """One measure over one or several benchmarks.

    Attributes:
        seeds: the measure of each training seed, averaged over the benchmarks.
        interval: of their mean, over problems; `None` where there is none.
        problems: number of problems.
        notes: how many responses are left out.
    """

    seeds: tuple[float, ...]
    interval: Interval | None
    problems: int
    notes: tuple[str, ...]


def calibration_score(benchmarks: Sequence[Sequence[BenchmarkResult]], metric: Metric) -> CalibrationScore | str:
    """Measure the calibration, or say in words why there is nothing to measure.

    Args:
        benchmarks (`Sequence[Sequence[BenchmarkResult]]`): for each benchmark the results of each training seed.
        metric (`Metric`): of a kind that `Metric.is_calibration` names.
    """
    measure, about = metric.kind.rsplit("_", 1)
    found = [[_responses(result, about) for result in seeds] for seeds in benchmarks]
    if any(isinstance(one, str) for seeds in found for one in seeds):
        return NO_LOG_PROBS
    groups = [[responses for responses, _ in seeds] for seeds in found]
    values, interval = estimate(groups, MEASURES[measure])
    per_seed = np.mean(values, axis=0)
    if np.isnan(per_seed).any():
        return "undefined (all alike)"  # every response is correct, or none is
    left_out, drawn = (sum(count[index] for seeds in found for _, count in seeds) for index in (0, 1))
    note = f"{left_out} of {drawn} responses have no {'answer' if about == 'answer' else 'log-prob'} and are left out."
    problems = sum(seeds[0].problems for seeds in groups)
    return CalibrationScore(tuple(map(float, per_seed)), interval, problems, (note,) if left_out else ())


def has_log_probs(benchmark: BenchmarkResult) -> bool:
    """Whether any response of a benchmark has one."""
    return not isinstance(_responses(benchmark, "response"), str)


def _responses(benchmark: BenchmarkResult, about: str) -> tuple[Responses, tuple[int, int]] | str:
    """Responses with a confidence, how many have none, and how many there are: the sampled ones if there are any."""
    rows = [
        (index, log_prob.response if about == "response" else log_prob.answer, correct)
        for index, problem in enumerate(benchmark.problems)
        for log_prob, correct in (
            zip(problem.log_probs, problem.sampled, strict=True)
            if problem.sampled
            else [(problem.greedy_log_probs, problem.greedy)]
        )
    ]
    kept = [row for row in rows if row[1] is not None]
    if not kept:
        return NO_LOG_PROBS
    problem, log_prob, correct = zip(*kept, strict=True)
    responses = Responses(
        np.array(problem, dtype=np.int64),
        np.exp(np.array(log_prob, dtype=np.float64)),
        np.array(correct, dtype=np.bool_),
        len(benchmark.problems),
    )
    return responses, (len(rows) - len(kept), len(rows))
