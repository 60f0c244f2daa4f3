"""Whether a model is surer of what is correct: AUROC, calibration error, accuracy of the more confident half.

Confidence is exp(mean log-prob), of a response or of the answer in it (`verl_ispo.evaluation.confidence`): the
geometric mean of its tokens' probabilities. The choice is ours: ISPO's claim is about false confidence, and the paper
has no such table.

- **AUROC**: probability that a correct response has a higher confidence than an incorrect one, ties counted as half
  (Mann-Whitney's U over the number of pairs). 0.5: confidence says nothing. Responses of different problems are
  compared too, so it rewards knowing which problems are hard.
- **ECE**: responses in 10 bins of equal size by confidence; the mean, weighted by size, of |mean confidence - share
  correct|. With few responses it is too high even for a perfect model, by about the noise of a bin's mean.
- **Confident half**: accuracy of the half of the responses with the highest confidence. A level of confidence that the
  middle cuts counts with the share of its responses that is needed: the expected value over orders of equal ones.

Intervals resample problems, with all their responses, as those of the other scores do (percentile bootstrap: all of a
problem's responses get its weight).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verl_ispo.evaluation.statistics import CONFIDENCE_LEVEL, Interval, is_flat

BINS = 10
RESAMPLES = 1000
LEAST_DEFINED = 0.95
"""There is no interval where the measure is undefined (all correct, none correct) in more of the resamples."""

_SEED = 20260608
_ENTRIES_AT_ONCE = 1 << 18  # what is made of them stays in the processor's cache

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Responses:
    """Responses with a confidence, one entry each.

    Attributes:
        problem: index of the problem, from 0 to `problems` - 1, int64.
        confidence: in [0, 1].
        correct: bool.
        problems: number of problems, those without such a response too.
    """

    problem: NDArray[np.int64]
    confidence: Floats
    correct: NDArray[np.bool_]
    problems: int


Measure = Callable[[Responses, Floats], Floats]
"""From responses and weights of the problems, of shape `(resamples, problems)`, to one value for each resample; NaN
where it is undefined."""


def auroc(responses: Responses, weights: Floats) -> Floats:
    """Area under the ROC curve."""
    values = np.empty(len(weights))
    for rows, size, correct in _by_level(responses, weights, descending=False):
        negative = size - correct
        below = np.cumsum(negative, axis=1) - negative
        pairs = correct.sum(axis=1) * negative.sum(axis=1)
        values[rows] = _ratio((correct * (below + negative / 2)).sum(axis=1), pairs)
    return values


def calibration_error(responses: Responses, weights: Floats) -> Floats:
    """Expected calibration error with bins of equal size, made once from all responses."""
    order = np.argsort(responses.confidence, kind="stable")
    gap = np.zeros((BINS, responses.problems))
    size = np.zeros(responses.problems)
    for index, members in enumerate(np.array_split(order, BINS)):
        np.add.at(gap[index], responses.problem[members], responses.confidence[members] - responses.correct[members])
    np.add.at(size, responses.problem, 1.0)
    return _ratio(np.abs(weights @ gap.T).sum(axis=1), weights @ size)


def confident_half(responses: Responses, weights: Floats) -> Floats:
    """Accuracy of the more confident half of the responses."""
    values = np.empty(len(weights))
    for rows, size, correct in _by_level(responses, weights, descending=True):
        half = size.sum(axis=1, keepdims=True) / 2
        taken = np.clip(half - (np.cumsum(size, axis=1) - size), 0, size)
        share = np.divide(taken, size, out=np.zeros_like(size), where=size > 0)
        values[rows] = _ratio((share * correct).sum(axis=1), half[:, 0])
    return values


MEASURES: dict[str, Measure] = {"auroc": auroc, "ece": calibration_error, "confident_half": confident_half}


@dataclass(frozen=True)
class Measured:
    """A measure on one benchmark.

    Attributes:
        values: of each training seed; NaN where it is undefined.
        replicates: their mean in each resample of the problems, of shape `(RESAMPLES,)`.
    """

    values: tuple[float, ...]
    replicates: Floats


def measured(seeds: Sequence[Responses], measure: Measure, stream: int = 0) -> Measured:
    """A measure of each training seed, and resampled.

    Args:
        seeds (`Sequence[Responses]`): the responses of each training seed, all of them to the same problems.
        measure (`Measure`): one of :data:`MEASURES`.
        stream (`int`, *optional*, defaults to `0`): the random stream, another one for each benchmark.
    """
    problems = seeds[0].problems
    rng = np.random.default_rng([_SEED, stream])
    drawn = rng.multinomial(problems, np.full(problems, 1 / problems), size=RESAMPLES).astype(np.float64)
    weights = np.concatenate([np.ones((1, problems)), drawn])
    found = np.stack([measure(responses, weights) for responses in seeds])
    return Measured(tuple(found[:, 0].tolist()), found[:, 1:].mean(axis=0))


def interval(benchmarks: Sequence[Measured]) -> Interval | None:
    """Interval of the plain mean over benchmarks and training seeds.

    `None` where a value is undefined, or too many resamples are, or all of them agree (an interval of no width would be
    false).
    """
    mean = np.mean([one.replicates for one in benchmarks], axis=0)
    defined = mean[~np.isnan(mean)]
    undefined = np.isnan([one.values for one in benchmarks]).any()
    if undefined or defined.size < LEAST_DEFINED * mean.size or is_flat(defined):
        return None
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high), "bootstrap_percentile")


def _by_level(responses: Responses, weights: Floats, descending: bool) -> Iterator[tuple[slice, Floats, Floats]]:
    """Some resamples at a time: which, and for each level of confidence the weight of its responses and of its correct
    ones, both of shape `(resamples, levels)`.
    """
    confidence = -responses.confidence if descending else responses.confidence
    levels = np.unique(confidence, return_inverse=True)[1]
    order = np.argsort(levels, kind="stable")
    first_of_level = np.flatnonzero(np.diff(levels[order], prepend=-1))
    at_once = max(1, _ENTRIES_AT_ONCE // order.size)
    for start in range(0, len(weights), at_once):
        rows = slice(start, start + at_once)
        weight = weights[rows][:, responses.problem[order]]
        yield (
            rows,
            np.add.reduceat(weight, first_of_level, axis=1),
            np.add.reduceat(weight * responses.correct[order], first_of_level, axis=1),
        )


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
