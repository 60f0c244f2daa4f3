"""Each method against a baseline on the same problems: paired differences, intervals, p-values, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from verl_ispo.evaluation.metrics import Metric
from verl_ispo.evaluation.paper_results import canonical
from verl_ispo.evaluation.statistics import (
    Interval,
    PairedTest,
    Scores,
    difference_interval,
    holm,
    macro_difference_interval,
    mcnemar_exact,
    sign_flip_test,
)
from verl_ispo.evaluation.table import AVERAGE, Group, averaged_benchmarks, benchmark_title
from verl_ispo.user_error import UserError

COMPARED_KINDS = ("greedy", "avg")
"""Both estimate the accuracy of a single response. More metrics would only add tests of the same question."""
_DEFAULT_BASELINES = ("GRPO", "Base")


@dataclass(frozen=True)
class Comparison:
    """One method against the baseline on one benchmark.

    Attributes:
        difference: mean over problems of method minus baseline, in [-1, 1]; seeds averaged problem by problem.
        interval: paired bootstrap over problems; `None` where it is undefined.
        test: exact McNemar where both are one greedy answer per problem, else the sign-flip test. ``only_first`` counts
            the problems that only the method solves.
        p_holm: adjusted for all comparisons of the table.
        seeds: training seeds of method and baseline.
    """

    base_model: str
    method: str
    baseline: str
    benchmark: str
    metric: Metric
    problems: int
    difference: float
    interval: Interval | None
    test: PairedTest
    p_holm: float
    seeds: tuple[int, int]


def choose_baseline(groups: Sequence[Group], asked: str | None) -> str | None:
    """The method to compare with: the one given, else GRPO, else Base, else none.

    Raises:
        UserError: if the one given is not among the results.
    """
    methods = list(dict.fromkeys(group.method for group in groups if group.results))
    wanted = (asked,) if asked is not None else _DEFAULT_BASELINES
    for name in wanted:
        for method in methods:
            if canonical(method) == canonical(name):
                return method
    if asked is not None:
        raise UserError(f"--baseline {asked}: not among the methods of these results ({', '.join(methods)})")
    return None


def compare(
    groups: Sequence[Group], benchmarks: Sequence[str], metrics: Sequence[Metric], baseline: str
) -> list[Comparison]:
    """All comparisons with the baseline of the same base model, p-values adjusted over all of them."""
    baselines = {group.base_model: group for group in groups if group.method == baseline}
    found: list[Comparison] = []
    for metric in metrics:
        if metric.kind not in COMPARED_KINDS:
            continue
        for group in groups:
            other = baselines.get(group.base_model)
            if other is None or other is group or not group.results:
                continue
            pairs = {
                benchmark: (ours, theirs)
                for benchmark in benchmarks
                if (ours := group.mean_scores(benchmark, metric)) is not None
                and (theirs := other.mean_scores(benchmark, metric)) is not None
            }
            seeds = (len(group.results), len(other.results))
            single = metric.kind == "greedy" and seeds == (1, 1)
            for benchmark, (ours, theirs) in pairs.items():
                test = mcnemar_exact(ours, theirs) if single else sign_flip_test([(ours, theirs)])
                interval = difference_interval(ours, theirs)
                found.append(_comparison(group, baseline, benchmark, metric, [(ours, theirs)], interval, test, seeds))
            averaged = averaged_benchmarks(benchmarks)
            if len(benchmarks) > 1 and all(benchmark in pairs for benchmark in averaged):
                all_pairs = [pairs[benchmark] for benchmark in averaged]
                interval, test = macro_difference_interval(all_pairs), sign_flip_test(all_pairs)
                found.append(_comparison(group, baseline, AVERAGE, metric, all_pairs, interval, test, seeds))
    adjusted = holm([comparison.test.p_value for comparison in found])
    return [replace(comparison, p_holm=p_holm) for comparison, p_holm in zip(found, adjusted, strict=True)]


def _comparison(
    group: Group,
    baseline: str,
    benchmark: str,
    metric: Metric,
    pairs: Sequence[tuple[Scores, Scores]],
    interval: Interval | None,
    test: PairedTest,
    seeds: tuple[int, int],
) -> Comparison:
    return Comparison(
        base_model=group.base_model,
        method=group.method,
        baseline=baseline,
        benchmark=benchmark if benchmark == AVERAGE else benchmark_title(benchmark),
        metric=metric,
        problems=sum(ours.size for ours, _ in pairs),
        difference=float(np.mean([(ours - theirs).mean() for ours, theirs in pairs])),
        interval=interval,
        test=test,
        p_holm=test.p_value,  # until all comparisons are known
        seeds=seeds,
    )
