#!/usr/bin/env python3
"""Where a training step's time goes, from the metrics that scripts/train.sh writes: medians and shares of each part.

    python scripts/step_timing_table.py GRPO=runs/a ISPO=runs/b --skip 2 --csv parts.csv

NAME=RUN is a column: a run's folder, or one of verl's metrics .jsonl files. Every part that verl or ISPO times is a
row; parts inside another are indented and not added again, and "rest of the step" is what no timer covers. Below are
the peak memory that verl logs for the actor's process and the lengths that the times belong to.

Medians are over the steps after the first --skip ones, which start engines and compile. Exit status 2: a run without
such steps.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from verl_ispo.command_line import run_command
from verl_ispo.runs.metric_log import read_metric_log
from verl_ispo.user_error import UserError

TIMING = "timing_s/"
STEP = f"{TIMING}step"
# Timed inside another part: verl's hooks, in which ISPO does its own work.
INSIDE = {
    "ispo_answer_span": "old_log_prob",
    "ispo_ablated_log_prob": "old_log_prob",
    "ispo_reward": "adv",
    "ispo_dump": "adv",
}
# In the order of a step; other parts follow, sorted by name.
ORDER = ("gen", "reward", "old_log_prob", "ref", "values", "adv", "update_critic", "update_actor", "update_weights")
# Timed after the step's own clock has stopped.
OUTSIDE = ("testing", "dump_rollout_generations", "step")
REST = "rest of the step"
# Printed without a share: the maximum of these, the median of the next ones.
PEAKS = {
    "actor/perf/max_memory_allocated_gb": "peak memory allocated, GiB",
    "actor/perf/max_memory_reserved_gb": "peak memory reserved, GiB",
}
SIZES = {
    "perf/total_num_tokens": "tokens per step",
    "prompt_length/mean": "prompt tokens",
    "response_length/mean": "new tokens",
    "ispo/tokens/ablated": "ablated tokens per step",
    "ispo/answer_missing_rate": "rollouts without an answer",
}


@dataclass(frozen=True)
class RunTimes:
    """One run in numbers.

    Attributes:
        name: of the column.
        steps: how many the medians are over.
        step_s: median of the whole step, seconds.
        parts_s: median of each part, seconds, the rest of the step included.
        others: the lines below, by metric.
    """

    name: str
    steps: int
    step_s: float
    parts_s: Mapping[str, float]
    others: Mapping[str, float]


def read_run(name: str, path: Path, skip: int) -> RunTimes:
    """Medians of one run.

    Args:
        name (`str`): of the column.
        path (`Path`): folder of a run, or a metrics file.
        skip (`int`): first steps that are left out.

    Raises:
        UserError: nothing to read, or too few steps.
    """
    timed = [metrics for _, metrics in sorted(read_metric_log(path).steps.items()) if STEP in metrics]
    if len(timed) <= skip:
        raise UserError(
            f"{name}: {path} has {len(timed)} timed step(s), and the first {skip} are left out; train more steps, or "
            "lower --skip"
        )
    steps = timed[skip:]
    names = {key.removeprefix(TIMING) for metrics in steps for key in metrics if key.startswith(TIMING)}
    parts = {part: statistics.median(step.get(TIMING + part, 0.0) for step in steps) for part in names - set(OUTSIDE)}
    outer = [part for part in parts if part not in INSIDE]
    parts[REST] = statistics.median(step[STEP] - sum(step.get(TIMING + part, 0.0) for part in outer) for step in steps)
    others = {
        key: choose(step[key] for step in steps if key in step)
        for keys, choose in ((PEAKS, max), (SIZES, statistics.median))
        for key in keys
        if any(key in step for step in steps)
    }
    return RunTimes(name, len(steps), statistics.median(step[STEP] for step in steps), parts, others)


def ordered_parts(runs: Sequence[RunTimes]) -> list[str]:
    """Parts of all runs in the order of a step, each followed by those inside it; the rest of the step last."""
    found = {part for run in runs for part in run.parts_s} - {REST}
    outer = [part for part in ORDER if part in found]
    outer += sorted(found - set(outer) - set(INSIDE))
    ordered = []
    for part in outer:
        ordered += [part, *(inner for inner, where in INSIDE.items() if where == part and inner in found)]
    return [*ordered, REST]


def markdown(runs: Sequence[RunTimes]) -> str:
    """The table for people: seconds, and the share of the run's own step."""
    lines = [
        f"| seconds, median of | {' | '.join(f'{run.name}: {run.steps} step(s)' for run in runs)} |",
        f"|---|{'---:|' * len(runs)}",
    ]
    for part in ordered_parts(runs):
        cells = [
            f"{run.parts_s[part]:.2f} ({run.parts_s[part] / run.step_s:.1%})" if part in run.parts_s else ""
            for run in runs
        ]
        name = f"&nbsp;&nbsp;in it: {part}" if part in INSIDE else part
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append(f"| **step** | {' | '.join(f'**{run.step_s:.2f}**' for run in runs)} |")
    for key, label in {**PEAKS, **SIZES}.items():
        if any(key in run.others for run in runs):
            cells = [f"{run.others[key]:.4g}" if key in run.others else "" for run in runs]
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_csv(runs: Sequence[RunTimes], path: Path) -> None:
    """The same for programs: one line per run and part, seconds and share; the lines below it without a share."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "steps", "what", "inside", "value", "share_of_step"])
        for run in runs:
            for part in ordered_parts([run]):
                seconds = run.parts_s[part]
                writer.writerow([run.name, run.steps, part, INSIDE.get(part, ""), seconds, seconds / run.step_s])
            writer.writerow([run.name, run.steps, "step", "", run.step_s, 1.0])
            for key, value in run.others.items():
                writer.writerow([run.name, run.steps, key, "", value, ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", nargs="+", metavar="NAME=RUN", help="a column's name, and a run's folder or metrics file"
    )
    parser.add_argument("--skip", type=int, default=2, help="first steps that are left out (default: %(default)s)")
    parser.add_argument("--csv", type=Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)

    def work() -> None:
        runs = []
        for given in options.runs:
            name, sign, path = given.partition("=")
            if not sign:
                raise UserError(f"{given}: give NAME=RUN, such as ISPO=runs/ispo")
            runs.append(read_run(name, Path(path), options.skip))
        print(markdown(runs))
        if options.csv:
            write_csv(runs, options.csv)

    return run_command(parser.prog, work)


if __name__ == "__main__":
    sys.exit(main())
