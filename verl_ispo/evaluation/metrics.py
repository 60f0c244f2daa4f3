"""The scores that a table can show, by the names of the paper's tables."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from verl_ispo.evaluation.equal_votes import vote_names
from verl_ispo.evaluation.estimators import avg_at_k, g_pass_at_k, maj_at_k, mg_pass_at_k, pass_at_k
from verl_ispo.evaluation.results import BenchmarkResult, ProblemResult
from verl_ispo.evaluation.statistics import Scores
from verl_ispo.grading.ground_truth_reading import asks_for_several
from verl_ispo.user_error import UserError

GREEDY = "pass@1_greedy"

CALIBRATION = {
    f"{measure}_{about}": title.format(about)
    for about in ("answer", "response")
    for measure, title in (
        ("auroc", "AUROC of the {}'s confidence against correctness, in percent (percentile bootstrap)"),
        ("ece", "calibration error of the {}'s confidence (ECE, 10 bins), in percent (percentile bootstrap)"),
        ("confident_half", "accuracy of the more confident half, by the {}'s confidence (percentile bootstrap)"),
    )
}
"""Kinds of metrics about confidence, and their titles; see `verl_ispo.evaluation.calibration`."""


@dataclass(frozen=True)
class Metric:
    """A score.

    Attributes:
        kind (`str`): ``greedy``, ``avg``, ``maj`` (equal answers vote together), ``maj_text`` (answers with the same
            text do), ``pass``, ``g_pass``, ``mg_pass``, or one of :data:`CALIBRATION`.
        k (`int`): number of samples; 1 for greedy, and 0 (all that were drawn) for calibration.
        threshold (`float`, *optional*, defaults to `0.0`): share of the ``k`` samples that has to be correct, for
            ``g_pass``.
    """

    kind: str
    k: int
    threshold: float = 0.0

    @property
    def is_calibration(self) -> bool:
        """Whether it is about confidence, so that problems have no score of their own."""
        return self.kind in CALIBRATION

    @property
    def name(self) -> str:
        """As written in a file and on the command line."""
        if self.is_calibration:
            return self.kind
        if self.kind == "greedy":
            return GREEDY
        return f"{self.kind}@{self.k}" + (f"_{self.threshold:g}" if self.kind == "g_pass" else "")

    @property
    def title(self) -> str:
        """As written in a heading."""
        return {
            "greedy": "pass@1, greedy",
            "avg": f"avg@{self.k} (mean accuracy of {self.k} samples)",
            "maj": f"maj@{self.k} (majority vote of {self.k} samples; equal answers count together)",
            "maj_text": f"maj_text@{self.k} (majority vote of {self.k} samples; answers compared as text)",
            "pass": f"pass@{self.k} (at least one of {self.k} samples is correct, unbiased)",
            "g_pass": f"G-Pass@{self.k}, tau = {self.threshold:g} (at least {100 * self.threshold:g} % of {self.k} "
            "samples are correct, unbiased)",
            "mg_pass": f"mG-Pass@{self.k} (mean of G-Pass@{self.k} over tau from 0.5 to 1)",
            **CALIBRATION,
        }[self.kind]


def parse_metric(text: str) -> Metric:
    """Read ``pass@1_greedy``, ``avg@16``, ``maj_text@16``, ``pass@8``, ``g_pass@8_0.75`` or ``auroc_answer``.

    Raises:
        UserError: for anything else.
    """
    if text == GREEDY:
        return Metric("greedy", 1)
    if text in CALIBRATION:
        return Metric(text, 0)
    match = re.fullmatch(r"(avg|maj|maj_text|pass|mg_pass)@([1-9]\d{0,5})", text)
    if match is None and (match := re.fullmatch(r"g_pass@([1-9]\d{0,5})_(0\.\d{1,6}|1(?:\.0+)?)", text)):
        if float(match[2]) > 0:
            return Metric("g_pass", int(match[1]), float(match[2]))
        match = None
    if match is None:
        raise UserError(
            f"--metrics {text!r}: give {GREEDY}, avg@K, maj@K, maj_text@K, pass@K or mg_pass@K, such as avg@16, "
            f"g_pass@K_TAU, such as g_pass@16_0.5 (TAU above 0 and up to 1), or one of: {', '.join(CALIBRATION)}"
        )
    return Metric(match[1], int(match[2]))


def problem_scores(benchmark: BenchmarkResult, metric: Metric) -> Scores | str:
    """Each problem's score in [0, 1], or in words why there is none; not for calibration.

    avg@k, maj@k and maj_text@k take the first k samples; pass@k and its kin are estimated from all of them.
    """
    if metric.kind == "greedy":
        return np.array([problem.greedy for problem in benchmark.problems], dtype=np.float64)
    drawn = len(benchmark.problems[0].sampled)
    if drawn < metric.k:
        return f"not run (n = {drawn})"
    if metric.kind in ("pass", "g_pass", "mg_pass"):
        of_count = {count: _estimate(metric, drawn, count) for count in {sum(p.sampled) for p in benchmark.problems}}
        return np.array([of_count[sum(problem.sampled)] for problem in benchmark.problems])
    if metric.kind == "avg":
        return np.array([avg_at_k(problem.sampled[: metric.k]) for problem in benchmark.problems])
    if any(prediction is None for problem in benchmark.problems for prediction in problem.predictions):
        return "no answers recorded"  # the reward function returns no `pred`
    return np.array([_vote(problem, metric) for problem in benchmark.problems])


def _estimate(metric: Metric, drawn: int, correct: int) -> float:
    if metric.kind == "g_pass":
        return g_pass_at_k(drawn, correct, metric.k, metric.threshold)
    return (mg_pass_at_k if metric.kind == "mg_pass" else pass_at_k)(drawn, correct, metric.k)


def _vote(problem: ProblemResult, metric: Metric) -> float:
    answers = [prediction or "" for prediction in problem.predictions[: metric.k]]
    if metric.kind == "maj":
        answers = vote_names(answers, several=asks_for_several(problem.ground_truth))
    return maj_at_k(answers, problem.sampled[: metric.k])
