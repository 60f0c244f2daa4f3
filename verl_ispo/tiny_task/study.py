"""Results of a study of several methods and seeds, and the guard chosen by a rule that was fixed before the runs.

    python -m verl_ispo.tiny_task.study --runs runs/tiny_study/levels1-6-steps30 --methods grpo ispo ispo_off \\
        --seeds 1 2 3 --out study.md

``examples/tiny_study.sh`` makes the runs and calls this; docs/tiny_study.md has the question, the measures and the
rule. Runs are read from ``RUNS/seed<seed>/<method>``. A missing run is left out and named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from verl_ispo.atomic_file import write_text
from verl_ispo.command_line import run_command
from verl_ispo.example_runs.study_measures import (
    BASELINE,
    HAZARDS,
    RunMeasures,
    compare,
    comparison_lines,
    complete_runs,
    interval_text,
    mean_accuracy,
    measure_lines,
    missing_line,
    read_all,
)

GUARD_PREFIX = "ispo_"
TAIL_STEPS = 10

# The rule of docs/tiny_study.md. A guard is admissible if, in every seed, neither rate is above this limit, or above
# the baseline's rate of that seed plus the margin if that is more.
HAZARD_LIMIT = 0.10
HAZARD_MARGIN = 0.05


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
    return max(guards, key=lambda name: mean_accuracy(runs[name]), default=None)


def describe(runs: Mapping[str, Mapping[int, RunMeasures]], seeds: Sequence[int]) -> str:
    """The study as markdown.

    Args:
        runs (`Mapping[str, Mapping[int, RunMeasures]]`): by method and seed, in the order to show; incomplete ones too.
        seeds (`Sequence[int]`): all seeds of the study.
    """
    complete = complete_runs(runs, seeds)
    lines = [
        "# The tiny study",
        "",
        f"{len(complete)} methods, seeds {', '.join(map(str, seeds))}; question, measures, rule: docs/tiny_study.md.",
        *missing_line(runs, seeds),
        "",
        *measure_lines(complete),
        *comparison_lines(complete),
        *(_choice_lines(complete) if BASELINE in complete else []),
    ]
    return "\n".join([*lines, ""])


def _choice_lines(complete: Mapping[str, Sequence[RunMeasures]]) -> list[str]:
    guards = [name for name in complete if name.startswith(GUARD_PREFIX)]
    refused = [name for name in guards if not is_admissible(complete[name], complete[BASELINE])]
    chosen = choose_guard(complete)
    lines = ["", "## The guard by the rule", ""]
    if refused:
        lines.append(f"Not admissible (traces or answers lost in some seed): {', '.join(refused)}.")
    if chosen is None:
        return [*lines, "No guard is admissible; ispo_guarded stays as it is."]
    lines.append(f"Chosen: **{chosen}**, mean of samples {100 * mean_accuracy(complete[chosen]):.1f} %.")
    others = [name for name in guards if name != chosen and name not in refused]
    for name in others:
        difference = compare(complete[chosen], complete[name])
        interval = difference.over_problems
        lines.append(
            f"- against {name}: {100 * difference.mean:+.1f} points"
            + (f" {interval_text(interval.low, interval.high)} over problems" if interval else "")
        )
    lines.append("The chosen guard's accuracy is the best of several, and so a little too high.")
    return lines


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
        runs = read_all(options.runs, options.methods, options.seeds, TAIL_STEPS)
        text = describe(runs, options.seeds)
        write_text(options.out, text)
        print(text)

    return run_command(parser.prog, work)


if __name__ == "__main__":
    sys.exit(main())
