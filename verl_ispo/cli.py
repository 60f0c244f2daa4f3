"""The command ``verl-ispo``: one subcommand per job, each in its own module, imported when it is used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from verl_ispo.evaluation.contamination_arguments import add_contamination_parser, run_contamination
from verl_ispo.evaluation.evaluation_arguments import add_eval_parser, add_table_parser, run_eval, run_table
from verl_ispo.launch.launch_arguments import COMMANDS as LAUNCH_COMMANDS
from verl_ispo.launch.launch_arguments import add_launch_parsers, run_launch
from verl_ispo.method_presets import add_methods_parser, run_methods
from verl_ispo.probe.probe_arguments import add_probe_parser, run_probe
from verl_ispo.report.report_arguments import add_report_parser, run_report


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of every subcommand."""
    parser = argparse.ArgumentParser(
        prog="verl-ispo",
        description="ISPO on verl: trainings, which run through verl's own main, and the tools around them.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_launch_parsers(commands)
    doctor = commands.add_parser(
        "doctor",
        help="check a job before it is submitted: installation, data, scorer, sizes, memory, disk",
        description=(
            "Checks versions, that verl has loaded ISPO in this process and inside a Ray worker, devices, and the "
            "composed config: data, scorer, context, batch and parallel sizes, token budgets, an estimate of "
            "memory and "
            "disk, and what differs from the paper. Nothing is trained and no weights are loaded. Prints what is wrong "
            "and what to set instead; exits with 1 if something would stop a training or change its meaning."
        ),
        epilog="example: verl-ispo doctor --dry-run data.train_files=train.parquet data.val_files=test.parquet "
        "actor_rollout_ref.model.path=Qwen/Qwen2.5-7B",
    )
    doctor.add_argument("--config-name", default="ispo_trainer", help="config to compose (default: %(default)s)")
    doctor.add_argument("--no-ray", action="store_true", help="leave out the check inside a Ray worker")
    doctor.add_argument(
        "--dry-run",
        action="store_true",
        help="the job will run on another machine: no Ray, what is wrong with this machine is a note, and the training "
        "command is printed at the end",
    )
    doctor.add_argument(
        "--gpu-memory-gib",
        type=float,
        default=80.0,
        metavar="GIB",
        help="memory of one GPU, for the estimates (default: %(default)g)",
    )
    doctor.add_argument(
        "--context-positions",
        type=int,
        metavar="N",
        help="positions of the copy of the model that `verl-ispo train` will make (default: the model's own)",
    )
    doctor.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides, as for python -m verl.trainer.main_ppo"
    )
    add_methods_parser(commands)
    add_eval_parser(commands)
    add_table_parser(commands)
    add_contamination_parser(commands)
    add_report_parser(commands)
    add_probe_parser(commands)
    return parser


OVERRIDES_OF = {"doctor": "overrides", "train": "arguments", "reproduce-table": "arguments", "probe": "overrides"}
"""The commands that take Hydra overrides, and the option that holds them."""


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line, in which Hydra overrides and options come in any order.

    argparse takes the first run of overrides alone, and leaves those after a later option over.
    """
    parser = build_parser()
    options, left = parser.parse_known_args(arguments)
    left = [word for word in left if word != "--"]
    name = OVERRIDES_OF.get(options.command)
    unknown = [word for word in left if name is None or word.startswith("-")]
    if unknown:
        overrides = [word for word in unknown if name is not None and "=" in word and "." in word.split("=")[0]]
        hint = f"; Hydra overrides have no dashes: {overrides[0].lstrip('-')}" if overrides else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if name is not None:
        setattr(options, name, [*getattr(options, name, []), *left])
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parsed(arguments)
    if options.command in LAUNCH_COMMANDS:
        return run_launch(options)
    if options.command == "methods":
        return run_methods(options)
    if options.command == "contamination":
        return run_contamination(options)
    if options.command == "eval":
        return run_eval(options)
    if options.command == "table":
        return run_table(options)
    if options.command == "report":
        return run_report(options)
    if options.command == "probe":
        return run_probe(options)
    from verl_ispo import doctor

    return doctor.run(
        options.config_name,
        options.overrides,
        check_ray=not options.no_ray,
        dry_run=options.dry_run,
        gpu_memory_gib=options.gpu_memory_gib,
        context_positions=options.context_positions,
    )


if __name__ == "__main__":
    sys.exit(main())
