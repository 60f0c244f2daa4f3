"""The command line of the report: its subcommand of ``verl-ispo``."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_report_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``verl-ispo report``."""
    report = commands.add_parser(
        "report",
        help="one HTML file of what runs did: training dynamics, rollouts token by token, config differences",
        description=(
            "Draws one self-contained HTML file from the folders of runs: training dynamics of all runs on shared "
            "axes, prompts that failed early and were solved later, a rollout view, the evaluation table, and what "
            "differs between the runs' configs. Where a run lacks something, the page says so and how to get it."
        ),
        epilog=(
            "a run folder holds: metrics*.jsonl (trainer.logger=[console,file], "
            "VERL_FILE_LOGGER_PATH=RUN/metrics.1.jsonl; one file per attempt, later ones win) or tensorboard event "
            "files; dump/ (trainer.v1.ispo.dump_dir=RUN/dump) for rollouts, prompts solved later, config, versions and "
            "seeds; .hydra/config.yaml (hydra.run.dir=RUN) for the config alone. "
            "example: verl-ispo report runs/grpo runs/ispo --out runs/report"
        ),
    )
    report.add_argument(
        "runs", nargs="+", metavar="RUN", help="folder of a run, or verl's metrics .jsonl; NAME=RUN gives it a name"
    )
    report.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for report.html")
    report.add_argument("--table", type=Path, metavar="FILE.csv", help="evaluation table from `verl-ispo table`")
    report.add_argument(
        "--steps",
        type=_step_list,
        metavar="N,N",
        help="dumped steps whose rollouts are shown (default: first, middle and last that the runs share)",
    )
    report.add_argument(
        "--max-tokens",
        type=_positive,
        default=300,
        metavar="N",
        help="most tokens shown per response: its start, around the answer, its end (default: %(default)s)",
    )
    report.add_argument(
        "--early-steps",
        type=_positive,
        metavar="N",
        help="a prompt failed early if its first group, up to step N, was all wrong (default: a quarter of the steps)",
    )


def run_report(options: argparse.Namespace) -> int:
    """Run ``verl-ispo report``; returns the exit status."""
    from verl_ispo.report import build

    return build.run(options.runs, options.out, options.table, options.steps, options.max_tokens, options.early_steps)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number; give 1 or more")
    return int(text)


def _step_list(text: str) -> list[int]:
    return [_positive(part.strip()) for part in text.split(",")]
