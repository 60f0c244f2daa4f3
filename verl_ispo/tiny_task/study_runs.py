"""Several methods x several seeds on the tiny task, from one start, with paired intervals: docs/tiny_study.md.

    python -m verl_ispo.tiny_task.study_runs --seeds 1 2 3

Makes the tiny model and its problems as the quickstart does, trains and evaluates every run, and ends with a table, a
report and the choice of the guard (`verl_ispo.tiny_task.study`). What is there already is used again: a second start
resumes. A run that fails does not stop the others; a second start tries it again. examples/tiny_study.sh makes
the environment first.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from verl_ispo.example_runs.command import add_methods, example_parser, run_example
from verl_ispo.example_runs.several import run_some_at_a_time
from verl_ispo.example_runs.steps import StepFailedError, chosen_baseline, make_report, make_table, run_module
from verl_ispo.tiny_task.example_steps import make_base, make_problems, tiny_environment

METHODS = (
    *("grpo", "ispo"),
    *("ispo_off", "ispo_informative", "ispo_reference_std", "ispo_capped_ifd", "ispo_informative_capped"),
)
# only the evaluation after the last step is used; verl's validations before it would cost a fifth of the time
OVERRIDES = ("trainer.test_freq=-1", "trainer.val_before_train=false")


def study(options: argparse.Namespace) -> None:
    """Make the model and the problems, train and evaluate every run, and write the study.

    Raises:
        StepFailedError: a step or a run failed.
    """
    started_s = time.monotonic()
    out, methods, seeds = options.out, options.methods, options.seeds
    base, data = out / "base", out / f"data-levels{options.levels}"
    runs = out / f"levels{options.levels}-steps{options.steps}"
    _say(f"1/4 the tiny model and its problems: {out}")
    make_base(base)
    make_problems(data, options.levels)
    cells = [(runs / f"seed{seed}" / method, method, seed) for seed, method in product(seeds, methods)]
    _say(
        f"2/4 training and evaluation: {len(cells)} runs of {options.steps} steps, {options.jobs} at a time (Ctrl-C is "
        "safe)"
    )
    shared = ["--steps", str(options.steps), "--base", str(base), "--data", str(data)]
    commands = [
        [*("--method", method, "--seed", str(seed), "--run", str(folder)), *shared, "--", *OVERRIDES]
        for folder, method, seed in cells
    ]
    module = [sys.executable, "-m", "verl_ispo.tiny_task.tiny_run"]
    failed = run_some_at_a_time([[*module, *command] for command in commands], options.jobs)
    results = [folder / "result" for folder, _, _ in cells if (folder / "result/summary.json").exists()]
    if not results:
        raise StepFailedError("no run succeeded; see above")
    _say("3/4 the table and the report")
    make_table(results, runs / "table", chosen_baseline(methods, methods[0]))
    of_first_seed = [runs / f"seed{seeds[0]}" / method for method in methods]
    ended = [folder for folder in of_first_seed if (folder / "done").exists()]
    if ended:
        make_report(ended, runs / "table/scores.csv", runs / "report")
    _say("4/4 the results of the study")
    chosen = ("--runs", runs, "--methods", *methods, "--seeds", *seeds, "--out", runs / "study.md")
    run_module("verl_ispo.tiny_task.study", *chosen)
    print(f"\nStudy:  {runs}/study.md (measures, intervals, the guard by the rule of docs/tiny_study.md)")
    print(f"Table:  {runs}/table/table.md (by level, with every comparison)")
    print(f"Report: {runs}/report/report.html (seed {seeds[0]}; open it in a browser, it needs no network)")
    print(f"Took {(time.monotonic() - started_s) / 60:.0f} minutes after the installation")
    if failed:
        raise StepFailedError("some runs failed, see above; the same command tries them again")


def _say(text: str) -> None:
    print(f"== {text}", flush=True)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = example_parser("verl_ispo.tiny_task.study_runs", __doc__)
    add_methods(parser, METHODS, "GRPO, ISPO and five guards; all in docs/tiny_study.md")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(default: 1 2 3)")
    parser.add_argument("--steps", type=int, default=20, help="training steps of each run (default: %(default)s)")
    parser.add_argument("--levels", default="1-6", help="difficulty mix to train on (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=2, help="runs at a time: one core and 5 GiB of memory each (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/tiny_study"), help="(default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    given = build_parser().parse_args(argv)
    return run_example("tiny_study", given.methods, tiny_environment, lambda: study(given))


if __name__ == "__main__":
    sys.exit(main())
