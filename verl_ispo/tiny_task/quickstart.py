"""GRPO, ISPO as in the paper, and ISPO with a guard, from one start, on verl's own trainer, on a CPU.

    python -m verl_ispo.tiny_task.quickstart --steps 25

Warms a tiny Qwen2 model up on worked arithmetic, trains each method from that start, evaluates all of them on held-out
problems, and prints what happened, a table with intervals, and the paths of a picture and a report. What is there
already is used again: a second start resumes, or only prints. examples/quickstart.sh makes the environment first.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from verl_ispo.example_runs.accuracy_lines import accuracy_lines
from verl_ispo.example_runs.command import add_methods, example_parser, run_example
from verl_ispo.example_runs.steps import chosen_baseline, make_report, make_table, run_module
from verl_ispo.tiny_task.example_steps import (
    TinyRun,
    evaluate_tiny,
    make_base,
    make_problems,
    tiny_environment,
    train_and_evaluate,
)

METHODS = ("grpo", "ispo", "ispo_guarded")


def quickstart(out: Path, methods: Sequence[str], steps: int, seed: int, levels: str) -> None:
    """Make the model and the problems, train and evaluate every method, print and write the results.

    Args:
        out (`Path`): folder for everything that is made.
        methods (`Sequence[str]`): presets.
        steps (`int`): training steps of each.
        seed (`int`): of data order and rollouts.
        levels (`str`): difficulty mix of the training problems.

    Raises:
        StepFailedError: a step failed.
    """
    started_s = time.monotonic()
    base, data = out / "base", out / f"data-levels{levels}"
    folder = out / f"levels{levels}-seed{seed}-steps{steps}"
    _say("1/5 the tiny model: a warm start on worked arithmetic")
    make_base(base)
    _say(f"2/5 the problems: {data}")
    make_problems(data, levels)
    _say("3/5 evaluation before training: 300 held-out problems, greedy and 4 samples each")
    evaluate_tiny(base, "Base", None, data, folder / "results/Base", out / "eval-base.log")
    _say(
        f"4/5 training and evaluation: {' '.join(methods)}, {steps} steps each (Ctrl-C is safe: the same command "
        "resumes from the last checkpoint)"
    )
    for method in methods:
        result = folder / "results" / method
        train_and_evaluate(TinyRun(method, seed, steps, base, data, folder / method, result))
    _say("5/5 what happened")
    runs = [folder / method for method in methods]
    run_module("verl_ispo.tiny_task.compare_runs", "--runs", *runs, "--out", folder)
    results = [folder / "results" / name for name in ("Base", *methods)]
    make_table(results, folder / "table", chosen_baseline(methods, "Base"))
    make_report(runs, folder / "table/scores.csv", folder / "report")
    print("\n".join(accuracy_lines(folder / "table")))
    print(f"\nTable:  {folder}/table/table.md (by level, with every comparison)")
    print(f"Report: {folder}/report/report.html (open it in a browser; it needs no network)")
    print(f"Took {(time.monotonic() - started_s) / 60:.0f} minutes after the installation")


def _say(text: str) -> None:
    print(f"== {text}", flush=True)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = example_parser("verl_ispo.tiny_task.quickstart", __doc__)
    parser.add_argument("--steps", type=int, default=25, help="training steps of each method (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of data order and rollouts (default: %(default)s)")
    add_methods(parser, METHODS)
    parser.add_argument(
        "--levels",
        default="1-6",
        help="difficulty mix of the training problems (default: %(default)s, many groups without a correct rollout; "
        "1-4: few)",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="(default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    given = build_parser().parse_args(argv)
    return run_example(
        "quickstart",
        given.methods,
        tiny_environment,
        lambda: quickstart(given.out, given.methods, given.steps, given.seed, given.levels),
    )


if __name__ == "__main__":
    sys.exit(main())
