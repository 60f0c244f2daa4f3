"""The study on a real model: several methods and seeds from one start, told without a ranking of accuracies.

    python -m verl_ispo.real_model.study --seeds 1

docs/real_study.md has the question, the measures and the rule, fixed before the runs. Makes the start as the example
does, trains and evaluates every run, and ends with the measures, a table and a report. What is there already is used
again: a second start resumes. A run that fails does not stop the others; a second start tries it again.
examples/real_study.sh makes the environment first.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from verl_ispo.atomic_file import write_text
from verl_ispo.example_runs.command import add_methods, example_parser, run_example
from verl_ispo.example_runs.several import run_some_at_a_time
from verl_ispo.example_runs.steps import (
    Evaluation,
    StepFailedError,
    chosen_baseline,
    evaluation_command,
    make_report,
    make_table,
)
from verl_ispo.example_runs.study_measures import (
    RunMeasures,
    comparison_lines,
    complete_runs,
    measure_lines,
    missing_line,
    read_all,
)
from verl_ispo.launch.data_choice import choose_data
from verl_ispo.launch.option_checks import given
from verl_ispo.real_model.start_model import add_start, make_start, say
from verl_ispo.real_model.training_run import add_sizes, real_environment
from verl_ispo.user_error import UserError

METHODS = ("grpo", "sign", "ispo", "ispo_guarded", "ispo_right_answer")


def describe(runs: Mapping[str, Mapping[int, RunMeasures]], seeds: Sequence[int], tail_steps: int) -> str:
    """The study as markdown.

    Args:
        runs (`Mapping[str, Mapping[int, RunMeasures]]`): by method and seed, in the order to show; incomplete ones too.
        seeds (`Sequence[int]`): all seeds of the study.
        tail_steps (`int`): over how many last steps dropped traces and missing answers are averaged.
    """
    complete = complete_runs(runs, seeds)
    lines = [
        "# The study on a real model",
        "",
        f"{len(complete)} methods, seeds {', '.join(map(str, seeds))}; question, measures, rule: docs/real_study.md. "
        f"Dropped traces and missing answers are those of the last {tail_steps} steps.",
        *missing_line(runs, seeds),
        "",
        *measure_lines(complete),
        *comparison_lines(complete),
    ]
    return "\n".join([*lines, ""])


def study(options: argparse.Namespace) -> None:
    """Make the start, train and evaluate every run, and write the study.

    Raises:
        StepFailedError: a step or a run failed.
        UserError: several runs at a time on an engine that cannot be shared so.
    """
    if options.jobs > 1 and options.rollout != "cpu":
        raise UserError(
            f"{given('JOBS', options.jobs)} with {given('ROLLOUT', options.rollout)}: trainings with own Ray clusters "
            "would get one another's weights; set JOBS=1"
        )
    began = time.monotonic()
    out, methods, seeds = options.out, options.methods, options.seeds
    start = make_start(out, options.model, options.sft_steps, options.data)
    runs = out / f"steps{options.steps}-{options.prompts}x{options.rollouts}"
    cells = [(runs / f"seed{seed}" / method, method, seed) for seed, method in product(seeds, methods)]
    say(
        f"4 evaluation of the start, and {len(cells)} runs of {options.steps} steps, {options.jobs} at a time "
        "(Ctrl-C is safe)"
    )
    base = out / "results/Base"
    evaluation = Evaluation(
        start.name, choose_data(start.data).validation, options.max_new_tokens, vllm_args=tuple(options.vllm_args)
    )
    first = [sys.executable, *evaluation_command(start.model, "Base", None, evaluation, base)]
    shared = ["--steps", options.steps, "--start", start.model, "--data", start.data, "--base-model", start.name]
    shared += ["--rollout", options.rollout, "--prompts", options.prompts, "--rollouts", options.rollouts]
    shared += ["--max-new-tokens", options.max_new_tokens]
    shared += ["--vllm-args", *options.vllm_args] if options.vllm_args else []
    module = [sys.executable, "-m", "verl_ispo.real_model.training_run"]
    commands = [
        [*module, "--method", method, "--seed", seed, "--run", folder, *shared, "--", *options.overrides]
        for folder, method, seed in cells
    ]
    failed = run_some_at_a_time([list(map(str, command)) for command in [first, *commands]], options.jobs)
    results = [base, *(folder / "result" for folder, _, _ in cells)]
    results = [result for result in results if (result / "summary.json").exists()]
    if not results:
        raise StepFailedError("no run succeeded; see above")
    say("5 the results of the study")
    make_table(results, runs / "table", chosen_baseline(methods, methods[0]))
    ended = [runs / f"seed{seeds[0]}" / method for method in methods]
    ended = [folder for folder in ended if (folder / "done").exists()]
    if ended:
        make_report(ended, runs / "table/scores.csv", runs / "report")
    tail_steps = max(1, options.steps // 2)
    text = describe(read_all(runs, methods, seeds, tail_steps), seeds, tail_steps)
    write_text(runs / "study.md", text)
    print(text)
    print(f"\nStudy:  {runs}/study.md (question, measures and rule are in docs/real_study.md)")
    print(f"Table:  {runs}/table/table.md (by kind of problem, with every comparison)")
    print(f"Report: {runs}/report/report.html (seed {seeds[0]}; open it in a browser, it needs no network)")
    print(f"Took {(time.monotonic() - began) / 60:.0f} minutes after the installation")
    if failed:
        raise StepFailedError("some runs failed, see above; the same command tries them again")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = example_parser("verl_ispo.real_model.study", __doc__)
    add_start(parser)
    add_methods(parser, METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="(default: 1)")
    add_sizes(parser)
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at a time, with ROLLOUT=cpu; 12 GiB each (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/real_study"), help="(default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="more Hydra overrides of every training")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = build_parser().parse_args(argv)
    return run_example("real_study", options.methods, lambda: real_environment(options.rollout), lambda: study(options))


if __name__ == "__main__":
    sys.exit(main())
