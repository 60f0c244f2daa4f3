"""Accuracies of a run with their uncertainty, from counts of solved held-out problems, by level and over the levels."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from verl_ispo.runs.metric_log import metric_names

ACCURACY_METRIC = re.compile(r"val-core/(?P<source>.+)/acc/mean@1")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Accuracy:
    """Solved held-out problems of one validation. ``solved`` has one entry for each level, of ``problems`` each."""

    step: int
    solved: dict[str, int]
    problems: int

    @property
    def by_level(self) -> dict[str, float]:
        return {level: count / self.problems for level, count in self.solved.items()}

    @property
    def mean(self) -> float:
        """Mean over the levels; with as many problems in each, also the share of all problems."""
        return sum(self.solved.values()) / self.total_problems

    @property
    def total_problems(self) -> int:
        return self.problems * len(self.solved)

    @property
    def standard_error(self) -> float:
        """Binomial standard error of the mean over the levels, the levels taken as strata."""
        return math.sqrt(sum(p * (1 - p) / self.problems for p in self.by_level.values())) / len(self.solved)

    def interval(self, level: str) -> tuple[float, float]:
        """Wilson interval of one level's accuracy; unlike the standard error it is not empty at 0 and at 1."""
        found = stats.binomtest(self.solved[level], self.problems).proportion_ci(CONFIDENCE, method="wilson")
        return float(found.low), float(found.high)


@dataclass(frozen=True)
class Difference:
    """Difference of two accuracies. Both are measured on the same problems, and the standard error takes them as
    independent, which usually overstates it."""

    value: float
    standard_error: float

    @property
    def beyond_noise(self) -> bool:
        """Whether the confidence interval leaves out 0."""
        return abs(self.value) > stats.norm.ppf(0.5 + CONFIDENCE / 2) * self.standard_error


def difference(first: Accuracy, second: Accuracy) -> Difference:
    """The first accuracy minus the second."""
    return Difference(first.mean - second.mean, math.hypot(first.standard_error, second.standard_error))


def read_accuracies(run: pd.DataFrame, problems_per_level: int) -> list[Accuracy]:
    """Read all validations of a run, in the order of the steps. A step at which a level is missing is left out.

    Args:
        run (`pd.DataFrame`): from `metric_log.read_metric_table`.
        problems_per_level (`int`): held-out problems of each level.
    """
    names = metric_names([run], ACCURACY_METRIC)
    if not names:
        return []
    table = run[names].dropna()
    counts = table * problems_per_level
    if ((counts - counts.round()).abs() > 1e-3).any(axis=None):
        warnings.warn(
            f"the accuracies are not multiples of 1/{problems_per_level}, so a level does not have that many held-out "
            "problems and the standard errors are wrong. Give the --held-out-per-level that make_data was given",
            stacklevel=2,
        )
    levels = [ACCURACY_METRIC.fullmatch(name)["source"].rpartition("level")[2] for name in names]
    return [
        Accuracy(int(step), dict(zip(levels, row.round().astype(int), strict=True)), problems_per_level)
        for step, row in counts.iterrows()
    ]


def accuracy_series(run: pd.DataFrame, problems_per_level: int) -> tuple[pd.Series, pd.Series]:
    """Mean accuracy over the levels, and its standard error, by step."""
    found = read_accuracies(run, problems_per_level)
    steps = pd.Index([accuracy.step for accuracy in found], dtype="int64")
    return (
        pd.Series([accuracy.mean for accuracy in found], steps, dtype="float64"),
        pd.Series([accuracy.standard_error for accuracy in found], steps, dtype="float64"),
    )
