"""The command ``verl-ispo``: one subcommand a job, each in its own module, imported when it is asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of every subcommand."""
    parser = argparse.ArgumentParser(
        prog="verl-ispo", description="Tools around ISPO on verl. Training itself runs through verl's own main."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    doctor = commands.add_parser(
        "doctor",
        help="check that this installation can train: versions, registrations, devices, config",
        description=(
            "Checks versions, that verl has loaded ISPO on this process and inside a Ray worker, devices, and the "
            "composed config. Prints what is missing and what to do; exits with 1 if something would stop a training."
        ),
        epilog="example: verl-ispo doctor data.train_files=train.parquet actor_rollout_ref.model.path=/models/base",
    )
    doctor.add_argument("--config-name", default="ispo_trainer", help="config to compose (default: %(default)s)")
    doctor.add_argument("--no-ray", action="store_true", help="leave out the check inside a Ray worker")
    doctor.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides, as for python -m verl.trainer.main_ppo"
    )
    report = commands.add_parser(
        "report",
        help="one HTML file of what runs did: training dynamics, rollouts token by token, config differences",
        description=(
            "Draws one self-contained HTML file from the folders of runs: training dynamics of all runs on shared "
            "axes, prompts that failed early and were solved later, a rollout view, the evaluation table, and what "
            "differs between the runs' configs. What a run does not have becomes a gap that says what it takes."
        ),
        epilog=(
            "a run folder holds: metrics*.jsonl (trainer.logger=[console,file], "
            "VERL_FILE_LOGGER_PATH=RUN/metrics.1.jsonl; one file an attempt, later ones win) or tensorboard event "
            "files; dump/ (algorithm.ispo.dump_dir=RUN/dump) for rollouts, prompts solved later, config, versions and "
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
        help="most tokens shown of a response: its start, around the answer, its end (default: %(default)s)",
    )
    report.add_argument(
        "--early-steps",
        type=_positive,
        metavar="N",
        help="a prompt failed early if its first group, up to step N, was all wrong (default: a quarter of the steps)",
    )
    return parser


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _step_list(text: str) -> list[int]:
    return [_positive(part.strip()) for part in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = build_parser().parse_args(arguments)
    if options.command == "report":
        from verl_ispo.report import build

        return build.run(
            options.runs, options.out, options.table, options.steps, options.max_tokens, options.early_steps
        )
    from verl_ispo import doctor

    return doctor.run(options.config_name, options.overrides, check_ray=not options.no_ray)


if __name__ == "__main__":
    sys.exit(main())
