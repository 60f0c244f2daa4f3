r"""GRPO, ISPO as in the paper, and ISPO with a guard, from one pretrained model, on verl's own trainer.

    python -m verl_ispo.real_model.example --steps 12

Takes a pretrained model (SmolLM2-135M-Instruct by default), teaches it in a few supervised steps to answer in a
``\boxed{}``, probes what ISPO would do on it, times a step and says how long the rest will take, trains each method,
evaluates all of them on held-out problems, and prints a table with intervals and the paths of the pages. What is there
already is used again: a second start resumes, or only prints. examples/real_model.sh makes the environment first.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from verl_ispo.example_runs.accuracy_lines import accuracy_lines
from verl_ispo.example_runs.command import add_methods, example_parser, run_example
from verl_ispo.example_runs.steps import chosen_baseline, evaluate, make_report, make_table, run_module
from verl_ispo.example_runs.study_measures import measure_lines, read_measures
from verl_ispo.launch.data_choice import choose_data
from verl_ispo.real_model.start_model import add_start, make_start, say
from verl_ispo.real_model.timed_step import in_words, time_a_step, timed_once
from verl_ispo.real_model.training_run import RealRun, add_sizes, real_environment, train_and_evaluate

METHODS = ("grpo", "ispo", "ispo_guarded")


def example(options: argparse.Namespace) -> None:
    """Make the start, train and evaluate every method, print and write the results.

    Raises:
        StepFailedError: a step failed.
    """
    began = time.monotonic()
    out, methods = options.out, options.methods
    start = make_start(out, options.model, options.sft_steps, options.data)
    folder = out / f"seed{options.seed}-steps{options.steps}"
    first = RealRun(
        method=methods[0],
        seed=options.seed,
        steps=options.steps,
        start=start.model,
        data=start.data,
        folder=folder / methods[0],
        result=folder / methods[0] / "result",
        rollout=options.rollout,
        prompts=options.prompts,
        rollouts=options.rollouts,
        max_new_tokens=options.max_new_tokens,
        base_model=start.name,
        vllm_args=tuple(options.vllm_args),
        overrides=tuple(options.overrides),
    )
    runs = [replace(first, method=name, folder=folder / name, result=folder / name / "result") for name in methods]
    say("4 the probe: what ISPO and its guards would reward on this start")
    training_file = choose_data(start.data).train[0]
    sampling = ("--rollouts", options.rollouts, "--max-new-tokens", options.max_new_tokens)
    run_module("verl_ispo.cli", "probe", start.model, training_file, *sampling, "--out", out / "probe")
    say("5 evaluation before training, greedy and 4 samples per held-out problem")
    base = out / "results/Base"
    evaluation_s = timed_once(
        out / "eval-base.json",
        lambda: evaluate(start.model, "Base", None, first.evaluation, base, out / "eval-base.log"),
    )
    left = [run for run in runs if not (run.result / "summary.json").is_file()]
    if left:
        longest = next((run for run in left if run.method.startswith("ispo")), left[0])
        print(f"   one step of {longest.method} on this machine, to say how long the rest takes", flush=True)
        timing = time_a_step(longest, out / f"timed_step-{options.prompts}x{options.rollouts}x{options.max_new_tokens}")
        total_s = len(left) * (timing.total_s(options.steps) + evaluation_s)
        print(
            f"   a step takes {timing.step_s:.0f} s here and a start {timing.start_s:.0f} s: {len(left)} method(s) of "
            f"{options.steps} steps and their evaluations will take {in_words(total_s)}"
        )
    say(f"6 training and evaluation: {' '.join(methods)} (Ctrl-C is safe: the same command resumes)")
    for run in left:
        train_and_evaluate(run)
    say("7 what happened")
    results = [base, *(run.result for run in runs)]
    make_table(results, folder / "table", chosen_baseline(methods, "Base"))
    make_report([run.folder for run in runs], folder / "table/scores.csv", folder / "report")
    tail_steps = max(1, options.steps // 2)
    print("\n".join(measure_lines({run.method: [read_measures(run.folder, tail_steps)] for run in runs})[2:]))
    print("\n".join(accuracy_lines(folder / "table")))
    print(f"\nProbe:  {out}/probe/probe.html (of the start, before any training)")
    print(f"Table:  {folder}/table/table.md (by kind of problem, with every comparison)")
    print(f"Report: {folder}/report/report.html (open it in a browser; it needs no network)")
    print(f"Took {(time.monotonic() - began) / 60:.0f} minutes after the installation")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = example_parser("verl_ispo.real_model.example", __doc__)
    add_start(parser)
    add_methods(parser, METHODS)
    parser.add_argument("--seed", type=int, default=1, help="of data order and rollouts (default: %(default)s)")
    add_sizes(parser)
    parser.add_argument("--out", type=Path, default=Path("runs/real_model"), help="(default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="more Hydra overrides of every training")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    given = build_parser().parse_args(argv)
    return run_example("real_model", given.methods, lambda: real_environment(given.rollout), lambda: example(given))


if __name__ == "__main__":
    sys.exit(main())
