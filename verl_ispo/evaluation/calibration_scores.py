"""Calibration of evaluated checkpoints: which responses count, and what is said where there is nothing to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verl_ispo.evaluation.calibration import MEASURES, Measured, Responses, measured
from verl_ispo.evaluation.metrics import Metric
from verl_ispo.evaluation.results import BenchmarkResult

NO_LOG_PROBS = "no log-probs recorded"
UNDEFINED = "undefined (none or all correct)"
LEFT_OUT = {
    "answer": "Responses without an answer have no confidence in it and are left out here.",
    "response": "Responses without log-probs, such as those to a prompt that fills the context, are left out here.",
}


@dataclass(frozen=True)
class BenchmarkCalibration:
    """One measure on one benchmark.

    Attributes:
        measured: of each training seed, with resamples.
        problems: number of problems.
        notes: whether responses are left out.
    """

    measured: Measured
    problems: int
    notes: tuple[str, ...]


def benchmark_calibration(
    seeds: Sequence[BenchmarkResult], metric: Metric, stream: int = 0
) -> BenchmarkCalibration | str:
    """Measure the calibration on one benchmark, or say in words why there is nothing to measure.

    Args:
        seeds (`Sequence[BenchmarkResult]`): the results of each training seed.
        metric (`Metric`): of a kind that `Metric.is_calibration` names.
        stream (`int`, *optional*, defaults to `0`): see `verl_ispo.evaluation.calibration.measured`.
    """
    measure, about = metric.kind.rsplit("_", 1)
    found = [_responses(result, about) for result in seeds]
    told = [one for one in found if not isinstance(one, str)]
    if len(told) < len(found):
        return NO_LOG_PROBS
    result = measured([responses for responses, _ in told], MEASURES[measure], stream)
    if np.isnan(result.values).any():
        return UNDEFINED
    notes = (LEFT_OUT[about],) if any(left_out for _, left_out in told) else ()
    return BenchmarkCalibration(result, told[0][0].problems, notes)


def has_log_probs(benchmark: BenchmarkResult) -> bool:
    """Whether any response of a benchmark has one."""
    return not isinstance(_responses(benchmark, "response"), str)


def _responses(benchmark: BenchmarkResult, about: str) -> tuple[Responses, int] | str:
    """Responses with a confidence, and how many have none; of the sampled ones if there are any."""
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
    return responses, len(rows) - len(kept)
