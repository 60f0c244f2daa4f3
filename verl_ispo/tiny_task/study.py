"""Results of a study of several methods and seeds, and the guard chosen by a rule that was fixed before the runs.

    python -m verl_ispo.tiny_task.study --runs runs/tiny_study/levels1-6-steps30 --methods grpo ispo ispo_off \\
        --seeds 1 2 3 --out study.md

``examples/tiny_study.sh`` makes the runs and calls this; docs/tiny_study.md has the question, the measures and the
rule. Runs are read from ``RUNS/seed<seed>/<method>``. A missing run is left out and named.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from verl_ispo.atomic_file import write_text
from verl_ispo.command_line import run_command
from verl_ispo.evaluation.results import EvaluationResult, load_result
from verl_ispo.evaluation.statistics import Interval, Scores, holm, macro_difference_interval, sign_flip_test
from verl_ispo.runs.metric_log import metric, read_metric_table
from verl_ispo.user_error import UserError

BASELINE = "grpo"
GUARD_PREFIX = "ispo_"
TAIL_STEPS = 10

# The rule of docs/tiny_study.md. A guard is admissible if, in every seed, neither rate is above this limit, or above
# the baseline's rate of that seed plus the margin if that is more.
HAZARD_LIMIT = 0.10
HAZARD_MARGIN = 0.05
HAZARDS = {"trace dropped": "ispo/trace_dropped_rate", "answer missing": "ispo/answer_missing_rate"}
ALL_WRONG_SHARE = "ispo/advantage_share/all_wrong"
FLAT_GROUPS = "ispo/zero_adv_rate/composite"


@dataclass(frozen=True)
class RunMeasures:
    """One trained and evaluated run.

    Attributes:
        greedy: for each level, one score per problem: whether the greedy response is correct.
        sampled: for each level, one score per problem: mean accuracy of the samples.
        hazards: by the names of `HAZARDS`, mean over the last `TAIL_STEPS` steps; NaN where never logged.
        all_wrong_share: share of the absolute advantage that lies in all-wrong groups, mean over the steps.
        flat_groups: share of groups without any advantage, mean over the steps.
    """

    greedy: tuple[Scores, ...]
    sampled: tuple[Scores, ...]
    hazards: Mapping[str, float]
    all_wrong_share: float
    flat_groups: float


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


def read_measures(run: Path) -> RunMeasures:
    """Measures of one run folder, its evaluation in ``result``.

    Raises:
        UserError: if the run has no log, or its evaluation is missing or broken.
    """
    result, log = load_result(run / "result"), read_metric_table(run)
    return RunMeasures(
        greedy=_scores(result, sampled=False),
        sampled=_scores(result, sampled=True),
        hazards={title: float(metric(log, name).tail(TAIL_STEPS).mean()) for title, name in HAZARDS.items()},
        all_wrong_share=float(metric(log, ALL_WRONG_SHARE).mean()),
        flat_groups=float(metric(log, FLAT_GROUPS).mean()),
    )


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


def is_admissible(guard: Sequence[RunMeasures], baseline: Sequence[RunMeasures]) -> bool:
    """Whether a guard keeps traces and answers in every seed; an unknown rate counts as lost."""
    return all(
        run.hazards[title] <= max(HAZARD_LIMIT, other.hazards[title] + HAZARD_MARGIN)
        for run, other in zip(guard, baseline, strict=True)
        for title in HAZARDS
    )


def choose_guard(runs: Mapping[str, Sequence[RunMeasures]]) -> str | None:
    """The admissible guard with the highest mean sampled accuracy; of equal ones, the first one given.

    Args:
        runs (`Mapping[str, Sequence[RunMeasures]]`): by method, seed by seed; the baseline and complete methods only.
    """
    guards = [name for name in runs if name.startswith(GUARD_PREFIX) and is_admissible(runs[name], runs[BASELINE])]
    return max(guards, key=lambda name: _mean_accuracy(runs[name]), default=None)


def describe(runs: Mapping[str, Mapping[int, RunMeasures]], seeds: Sequence[int]) -> str:
    """The study as markdown.

    Args:
        runs (`Mapping[str, Mapping[int, RunMeasures]]`): by method and seed, in the order to show; incomplete ones too.
        seeds (`Sequence[int]`): all seeds of the study.
    """
    complete = {name: [of[seed] for seed in seeds] for name, of in runs.items() if set(of) == set(seeds)}
    missing = [f"{name} seed {seed}" for name, of in runs.items() for seed in seeds if seed not in of]
    lines = [
        "# The tiny study",
        "",
        f"{len(complete)} methods, seeds {', '.join(map(str, seeds))}; question, measures, rule: docs/tiny_study.md.",
        *([f"Missing, and so left out: {', '.join(missing)}."] if missing else []),
        "",
        "## Measures, mean over seeds (each seed in brackets)",
        "",
        "| method | mean of samples, % | greedy, % | trace dropped, % | answer missing, % "
        "| advantage in all-wrong groups, % | groups without advantage, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of in complete.items():
        columns = [
            [accuracy(run.sampled) for run in of],
            [accuracy(run.greedy) for run in of],
            *([run.hazards[title] for run in of] for title in HAZARDS),
            [run.all_wrong_share for run in of],
            [run.flat_groups for run in of],
        ]
        lines.append(f"| {name} | " + " | ".join(_mean_and_each(column) for column in columns) + " |")
    if BASELINE not in complete:
        return "\n".join([*lines, "", f"No comparison: {BASELINE} is not complete.", ""])
    return "\n".join([*lines, *_comparison_lines(complete), *_choice_lines(complete), ""])


def _comparison_lines(complete: Mapping[str, Sequence[RunMeasures]]) -> list[str]:
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
            f"| {_interval(problems.low, problems.high) if problems else '-'} | {_interval(*seeds) if seeds else '-'} "
            f"| {', '.join(f'{100 * value:+.1f}' for value in difference.by_seed)} | {p_value:.3f} |"
        )
    return lines


def _choice_lines(complete: Mapping[str, Sequence[RunMeasures]]) -> list[str]:
    guards = [name for name in complete if name.startswith(GUARD_PREFIX)]
    refused = [name for name in guards if not is_admissible(complete[name], complete[BASELINE])]
    chosen = choose_guard(complete)
    lines = ["", "## The guard by the rule", ""]
    if refused:
        lines.append(f"Not admissible (traces or answers lost in some seed): {', '.join(refused)}.")
    if chosen is None:
        return [*lines, "No guard is admissible; ispo_guarded stays as it is."]
    lines.append(f"Chosen: **{chosen}**, mean of samples {100 * _mean_accuracy(complete[chosen]):.1f} %.")
    others = [name for name in guards if name != chosen and name not in refused]
    for name in others:
        difference = compare(complete[chosen], complete[name])
        interval = difference.over_problems
        lines.append(
            f"- against {name}: {100 * difference.mean:+.1f} points"
            + (f" {_interval(interval.low, interval.high)} over problems" if interval else "")
        )
    lines.append("The chosen guard's accuracy is the best of several, and so a little too high.")
    return lines


def _scores(result: EvaluationResult, sampled: bool) -> tuple[Scores, ...]:
    return tuple(
        np.array([np.mean(problem.sampled) if sampled else float(problem.greedy) for problem in benchmark.problems])
        for _, benchmark in sorted(result.benchmarks.items())
    )


def _mean_accuracy(runs: Sequence[RunMeasures]) -> float:
    return statistics.fmean(accuracy(run.sampled) for run in runs)


def _mean_and_each(values: Sequence[float]) -> str:
    return f"{100 * statistics.fmean(values):.1f} ({', '.join(f'{100 * value:.1f}' for value in values)})"


def _interval(low: float, high: float) -> str:
    return f"[{100 * low:+.1f}, {100 * high:+.1f}]"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m verl_ispo.tiny_task.study",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=Path, required=True, help="folder that holds seed<seed>/<method>")
    parser.add_argument("--methods", nargs="+", required=True, help="in the order to show")
    parser.add_argument("--seeds", nargs="+", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="markdown file to write")
    options = parser.parse_args(argv)

    def work() -> None:
        runs: dict[str, dict[int, RunMeasures]] = {name: {} for name in options.methods}
        for name in options.methods:
            for seed in options.seeds:
                run = options.runs / f"seed{seed}" / name
                if (run / "result" / "summary.json").exists():
                    runs[name][seed] = read_measures(run)
        if not any(runs.values()):
            raise UserError(
                f"--runs {options.runs}: no finished run in it; give the folder that holds seed<seed>/<method>"
            )
        text = describe(runs, options.seeds)
        write_text(options.out, text)
        print(text)

    return run_command(parser.prog, work)


if __name__ == "__main__":
    sys.exit(main())
