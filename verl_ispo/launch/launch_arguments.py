"""The command lines of ``verl-ispo train``, ``evaluate-run``, ``reproduce-table``. Help imports nothing slow.

An option that is not given is not passed to its dataclass, whose default then applies: defaults are defined once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from verl_ispo.command_line import run_command
from verl_ispo.launch.option_checks import whole_number
from verl_ispo.secret_values import taken_out
from verl_ispo.user_error import UserError

TRAIN_EPILOG = """\
examples:
  # a preset of the paper on 8 GPUs; first the preflight, then the training
  verl-ispo train --model qwen2_5_math_1_5b --method ispo_guarded --data ~/data/math --dry-run
  verl-ispo train --model qwen2_5_math_1_5b --method ispo_guarded --data ~/data/math

  # another preset with its weights on a disk, and another batch size
  verl-ispo train --model /disk/Qwen2.5-Math-7B --method dapo --seed 2 --data ~/data/math data.train_batch_size=256

  # on a CPU, after examples/quickstart.sh
  verl-ispo train --model runs/quickstart/base --data runs/quickstart/data-levels1-6 --rollout cpu --steps 3 \\
      --reward pkg://verl_ispo.tiny_task.reward data.train_batch_size=16 data.max_prompt_length=32 \\
      data.max_response_length=96 actor_rollout_ref.actor.ppo_mini_batch_size=8

The same command resumes from the last checkpoint; when its steps are done it says so and returns. scripts/train.sh
takes these options as environment variables: --gpus-per-node is GPUS_PER_NODE.

Exit status: 0 the steps are done, or a dry run found no problem; 1 the training stopped (the last lines say why and
from which step it resumes), a dry run found a problem, or another process uses the folder; 2 a fault in options or
files (one sentence says which); 130 and 143 ended by Ctrl-C and SIGTERM.
"""

EVALUATE_EPILOG = """\
examples:
  # the last checkpoint of a run, under its own names and with the length that it was trained with
  verl-ispo evaluate-run --run runs/train/qwen2_5_math_1_5b/ispo-seed1 --benchmarks ~/data/math

  # the model that those runs start from
  verl-ispo evaluate-run --model qwen2_5_math_1_5b --benchmarks ~/data/math

  # more options of verl-ispo eval after --
  verl-ispo evaluate-run --run runs/mine --benchmarks ~/data/math --n 4 -- --context-tokens 8192

The same command resumes a killed run. Exit status: that of verl-ispo eval; 2 a fault in options or files.
"""

TABLE_EPILOG = """\
examples:
  verl-ispo reproduce-table --data ~/data/math --print-only                         # the plan and an estimate
  verl-ispo reproduce-table --data ~/data/math --dry-run                            # and a preflight of each cell
  verl-ispo reproduce-table --data ~/data/math --models qwen2_5_math_1_5b --methods grpo ispo --seeds 1
  verl-ispo reproduce-table --data ~/data/math --launcher "sbatch --wait scripts/slurm/train.sbatch"

Exit status: 0; 1 a cell failed (the same command tries it again); 2 a fault in options or files; 130 and 143 ended by
Ctrl-C and SIGTERM.
"""

OVERRIDES_HELP = (
    "Hydra overrides, as for python -m verl.trainer.main_ppo; they win over all options. After an option that takes "
    "several values put -- first"
)


def add_launch_parsers(commands: Any) -> None:
    """Add the three subcommands to the parser of ``verl-ispo``."""
    add_train_parser(commands)
    add_evaluate_run_parser(commands)
    add_reproduce_table_parser(commands)


def _parser(commands: Any, name: str, usage: str, **texts: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        usage=f"verl-ispo {name} {usage}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        **texts,
    )


def add_train_parser(commands: Any) -> None:
    """Add ``train``."""
    parser = _parser(
        commands,
        "train",
        "--model MODEL --data FOLDER [OPTION ...] [KEY=VALUE ...]",
        help="one training on verl: a model, a method, a seed; on GPUs, or on a CPU to try it",
        description=(
            "One training on verl's own trainer. Composes its settings from a model's preset, a method and the\n"
            "options, starts it in its own folder, which one process uses at a time, and watches it to its end."
        ),
        epilog=TRAIN_EPILOG,
    )
    what = parser.add_argument_group("what is trained")
    _add_model(what)
    what.add_argument("--method", metavar="METHOD", help="any of `verl-ispo methods` (default: ispo)")
    what.add_argument("--seed", type=whole_number("SEED"), metavar="N", help="of data order and rollouts (default: 1)")
    what.add_argument("--change", action="store_true", help=(
        "resume the run in OUT although its settings differ from those of its first start; what changed, and at which "
        "step, is in OUT/changes.jsonl and a mark in the report. Without it such a start is refused"
    ))  # fmt: skip
    what.add_argument("--out", type=Path, metavar="FOLDER", help=(
        "folder of this run: logs, metrics of each start, checkpoints, rollout dump; on a cluster on a disk that all "
        "nodes see (default: runs/train/<model>/<method>-seed<seed>, with a short digest of the overrides "
        "that decide what is trained)"
    ))  # fmt: skip
    _add_training_options(parser)
    _add_ends(
        parser, "check these settings, as verl-ispo doctor --no-ray --dry-run does; nothing is started or downloaded"
    )
    parser.add_argument("arguments", nargs="*", metavar="KEY=VALUE", help=OVERRIDES_HELP)


def add_evaluate_run_parser(commands: Any) -> None:
    """Add ``evaluate-run``."""
    parser = _parser(
        commands,
        "evaluate-run",
        "(--run FOLDER | --model MODEL) --benchmarks FOLDER [OPTION ...] [-- OPTION OF eval ...]",
        help="a run's last checkpoint on the five benchmarks, under its own names: wraps eval",
        description=(
            "One checkpoint on the five benchmarks: greedy, and n samples per problem at a temperature. Takes\n"
            "model, names and length from the run, and calls verl-ispo eval."
        ),
        epilog=EVALUATE_EPILOG,
    )
    what = parser.add_argument_group("what is evaluated")
    what.add_argument("--run", type=Path, metavar="FOLDER", help="of verl-ispo train: its last checkpoint")
    _add_model(what, "or a model, or a checkpoint of verl: ")
    what.add_argument("--benchmarks", type=Path, metavar="FOLDER", help="of data_prep, with the five benchmarks")
    what.add_argument("--files", type=Path, nargs="+", metavar="PARQUET", help="parquet files instead")
    what.add_argument(
        "--out", type=Path, metavar="FOLDER", help="of this evaluation (default: RUN/result, or runs/eval/<model>)"
    )
    what.add_argument("--reward", metavar="GRADER", help="pkg://a.module or a file (default: pkg://verl_ispo.grading)")
    _add_sampling_options(parser)
    names = parser.add_argument_group("names in the table (default: the run's, as the paper writes them)")
    names.add_argument("--base-model", metavar="NAME", help="the model that the training started from")
    names.add_argument(
        "--method", metavar="NAME", help="a preset's name becomes the paper's (default: Base for a model)"
    )
    names.add_argument("--seed", type=whole_number("SEED"), metavar="N", help="of the training")
    _add_ends(parser, None)
    parser.add_argument(
        "arguments", nargs="*", metavar="OPTION", help="of verl-ispo eval, after --; they win over the options above"
    )


def add_reproduce_table_parser(commands: Any) -> None:
    """Add ``reproduce-table``."""
    parser = _parser(
        commands,
        "reproduce-table",
        "--data FOLDER [OPTION ...] [KEY=VALUE ...]",
        help="the paper's table: models x methods x seeds trained, evaluated and collected",
        description=(
            "The paper's table: each model with each method and seed is trained and evaluated on the five benchmarks,\n"
            "then one table. Prints the plan and an estimate first. Finished cells are not repeated, so the same\n"
            "command resumes; a cell that fails does not stop the others."
        ),
        epilog=TABLE_EPILOG,
    )
    what = parser.add_argument_group("what the table holds")
    what.add_argument("--models", nargs="+", metavar="MODEL", help="as for train --model (default: the paper's three)")
    what.add_argument(
        "--methods", nargs="+", metavar="METHOD", help="of `verl-ispo methods` (default: the paper's eight)"
    )
    what.add_argument("--seeds", type=whole_number("SEEDS"), nargs="+", metavar="N", help="(default: 1 2 3)")
    what.add_argument(
        "--model-path", metavar="FOLDER", help="folder of the weights, with one model only (default: the hub's)"
    )
    what.add_argument("--model-copies", type=Path, metavar="FOLDER", help="as for train (default: runs/models)")
    what.add_argument(
        "--out", type=Path, metavar="FOLDER", help="of all runs, results and the table (default: runs/table)"
    )
    what.add_argument("--launcher", metavar="COMMAND", help=(
        "trains a cell instead of this process, with the variables of scripts/train.sh; for instance "
        '"sbatch --wait scripts/slurm/train.sbatch" (the evaluations run here)'
    ))  # fmt: skip
    what.add_argument("--seconds-per-step", type=float, metavar="S", help="for the estimate (default: the paper's)")
    _add_training_options(parser)
    _add_sampling_options(parser)
    _add_ends(parser, "the plan, then the preflight of each cell; nothing is started")
    parser.add_argument("arguments", nargs="*", metavar="KEY=VALUE", help=f"for every cell: {OVERRIDES_HELP}")


def _add_model(group: Any, start: str = "") -> None:
    group.add_argument("--model", metavar="MODEL", help=(
        f"{start}a preset of verl_ispo/config/base_model (qwen2_5_math_1_5b, qwen2_5_math_7b, qwen2_5_7b); its name on "
        "the hub, or a folder of that name, gets the preset too; any other folder or organisation/name has none"
    ))  # fmt: skip
    group.add_argument(
        "--model-path", metavar="FOLDER", help="folder of a preset's weights (default: its name on the hub)"
    )
    group.add_argument("--model-copies", type=Path, metavar="FOLDER", help=(
        "for copies with a longer context (own config.json, links to the weights), where a preset needs one; on a "
        "disk that all nodes see (default: runs/models)"
    ))  # fmt: skip


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--data", type=Path, metavar="FOLDER", help=(
        "of data_prep: dapo_math.parquet to train on, the five benchmarks to validate on; or with train.parquet and "
        "heldout.parquet"
    ))  # fmt: skip
    data.add_argument("--train-files", type=Path, nargs="+", metavar="PARQUET", help="parquet files instead")
    data.add_argument("--val-files", type=Path, nargs="+", metavar="PARQUET", help="the same, to validate on")
    data.add_argument("--reward", metavar="GRADER", help=(
        "pkg://a.module or a file, with compute_score (default: pkg://verl_ispo.grading.reward_function)"
    ))  # fmt: skip
    where = parser.add_argument_group("where it runs")
    where.add_argument("--engine", metavar="ENGINE", help="fsdp, megatron (default: fsdp)")
    where.add_argument("--rollout", metavar="ROLLOUT", help=(
        "vllm, sglang; for trials cpu, or cpu_vllm, the real engine on a CPU (default: vllm)"
    ))  # fmt: skip
    where.add_argument("--nnodes", type=whole_number("NNODES"), metavar="N", help="nodes (default: 1)")
    where.add_argument(
        "--gpus-per-node",
        type=whole_number("GPUS_PER_NODE"),
        metavar="N",
        help="GPUs per node, or CPU workers (default: 8; on a CPU 1)",
    )
    where.add_argument(
        "--rollout-tp",
        type=whole_number("ROLLOUT_TP"),
        metavar="N",
        help="GPUs of one rollout engine (default: the preset's)",
    )
    where.add_argument(
        "--train-tp",
        type=whole_number("TRAIN_TP"),
        metavar="N",
        help="tensor parallel size of --engine megatron, for actor and reference (ours; default: 2)",
    )
    where.add_argument(
        "--ray-address", metavar="HOST:PORT", help="Ray cluster to join (default: start a Ray on this node)"
    )
    where.add_argument("--ray-env", nargs="+", metavar="NAME", help=(
        "more environment variables to pass to its processes; passed always: those that begin with NCCL_, VLLM_, "
        "SGLANG_, VERL_, TQ_, WANDB_, SWANLAB_, MLFLOW_, TRACKIO_, CLEARML_, and HF_HUB_OFFLINE, HF_HOME, HF_TOKEN, "
        "OMP_NUM_THREADS, PYTHONPATH. Secrets (*_KEY, *_TOKEN, *_SECRET ...) go in a file of mode 600 in OUT, never on "
        "a command line"
    ))  # fmt: skip
    how = parser.add_argument_group("how long, and what is kept")
    how.add_argument("--steps", type=whole_number("STEPS"), metavar="N", help=(
        "training steps (default: 1000; ours: the paper states none, its figures reach 1000)"
    ))  # fmt: skip
    how.add_argument("--budget-tokens", type=float, metavar="N", help=(
        "end at the first step at which the run has spent so many tokens, such as 2e9, over all its starts: prompts "
        "and responses of all rollouts, thrown away ones too; --steps is then the most (default: no limit)"
    ))  # fmt: skip
    how.add_argument("--budget-gpu-hours", type=float, metavar="H", help=(
        "the same for the hours of rollouts and training, times the GPUs (default: no limit)"
    ))  # fmt: skip
    how.add_argument(
        "--save-freq", type=whole_number("SAVE_FREQ"), metavar="N", help="steps between checkpoints (default: 50)"
    )
    how.add_argument("--keep", type=whole_number("KEEP"), metavar="N", help=(
        "checkpoints to keep, over all starts (about 90 GB each for 7B, 12 bytes per parameter). With 1, a kill "
        "while one is saved can leave none: verl removes the old one before it records the new (default: 2)"
    ))  # fmt: skip
    how.add_argument("--grace-s", type=whole_number("GRACE_S"), metavar="S", help=(
        "seconds that SIGTERM or Ctrl-C leaves a training to finish its step and save it; a second signal ends it at "
        "once. Less than what sends SIGKILL afterwards: docker 10, Slurm and Kubernetes 30 (default: 20)"
    ))  # fmt: skip
    how.add_argument(
        "--test-freq",
        type=whole_number("TEST_FREQ"),
        metavar="N",
        help="steps between validations; -1: none (default: 50)",
    )
    how.add_argument("--loggers", metavar="NAMES", help="verl's, such as console,file,wandb (default: console,file)")
    how.add_argument("--screen", metavar="WHAT", help=(
        "what is shown: log, all that verl prints; progress, a bar with score and time left. The log file has "
        "everything in both cases (default: log)"
    ))  # fmt: skip


def _add_sampling_options(parser: argparse.ArgumentParser) -> None:
    sampling = parser.add_argument_group("sampling of the evaluation")
    sampling.add_argument("--n", type=whole_number("N"), metavar="N", help=(
        "samples per problem beside the greedy response; 0: only the greedy one (default: 16)"
    ))  # fmt: skip
    sampling.add_argument("--temperature", type=float, metavar="T", help="of the samples (default: 0.6)")
    sampling.add_argument("--top-p", type=float, metavar="P", help="of the samples (default: 1.0)")
    sampling.add_argument(
        "--max-new-tokens",
        type=whole_number("MAX_NEW_TOKENS"),
        metavar="N",
        help="longest response in tokens (default: that of the run or the preset, else 4096)",
    )
    sampling.add_argument(
        "--sampling-seed", type=whole_number("SAMPLING_SEED"), metavar="N", help="of the sampling (default: 0)"
    )
    sampling.add_argument("--sampler", metavar="SAMPLER", help="auto, vllm, cpu (default: auto)")
    sampling.add_argument(
        "--tensor-parallel", type=whole_number("TENSOR_PARALLEL"), metavar="N", help="GPUs for one model (default: 1)"
    )


def _add_ends(parser: argparse.ArgumentParser, dry_run: str | None) -> None:
    ends = parser.add_argument_group("checks before a start")
    if dry_run is not None:
        ends.add_argument("--dry-run", action="store_true", help=dry_run)
    ends.add_argument("--print-only", action="store_true", help="print what would be done; nothing is started")


def run_train(options: argparse.Namespace) -> int:
    """Run ``train``; returns the exit status."""
    from verl_ispo.launch.start_training import train
    from verl_ispo.launch.training_options import TrainingOptions

    return reported("train", lambda: train(TrainingOptions(**{"model": "", **_training_fields(options)})))


def run_evaluate_run(options: argparse.Namespace) -> int:
    """Run ``evaluate-run``; returns the exit status."""
    from verl_ispo.launch.evaluate_run import EvaluationRunOptions, evaluate_run

    return reported(
        "evaluate-run", lambda: evaluate_run(EvaluationRunOptions(**_fields_of(EvaluationRunOptions, options)))
    )


def run_reproduce_table(options: argparse.Namespace) -> int:
    """Run ``reproduce-table``; returns the exit status."""
    return reported("reproduce-table", lambda: _reproduce_table(options))


def _reproduce_table(options: argparse.Namespace) -> int:
    from verl_ispo.launch.evaluate_run import EvaluationRunOptions
    from verl_ispo.launch.reproduce_table import (
        TableRunOptions,
        check_weights,
        default_models,
        reproduce_table,
    )
    from verl_ispo.launch.training_options import TrainingOptions

    models = tuple(getattr(options, "models", default_models()))
    check_weights(models, getattr(options, "model_path", ""))
    shared = {"model": models[0]}
    training = TrainingOptions(**{**_training_fields(options), **shared})
    evaluation = EvaluationRunOptions(
        **{**_fields_of(EvaluationRunOptions, options), **shared, "benchmarks": options.data, "arguments": ()}
    )
    table = {**_fields_of(TableRunOptions, options), "models": models}
    return reproduce_table(TableRunOptions(training=training, evaluation=evaluation, **table))


def _training_fields(options: argparse.Namespace) -> dict[str, Any]:
    """The given options of a training. A secret among the overrides moves into this process's environment."""
    from verl_ispo.launch.training_options import TrainingOptions

    given = _fields_of(TrainingOptions, options)
    arguments, secrets = taken_out(given.get("arguments", ()))
    if not secrets:
        return given
    os.environ.update(secrets)
    print(
        f"{', '.join(secrets)}: taken from the overrides into the environment; this command line still shows it to "
        "every user of the machine, so export it and leave the override out",
        file=sys.stderr,
    )
    return {**given, "arguments": tuple(arguments), "ray_env": (*given.get("ray_env", ()), *secrets)}


def _fields_of(cls: type, options: argparse.Namespace) -> dict[str, Any]:
    """The given options that are fields of a dataclass; lists become tuples."""
    given: Mapping[str, Any] = vars(options)
    names = [field.name for field in fields(cls) if field.name in given]
    return {name: tuple(given[name]) if isinstance(given[name], list) else given[name] for name in names}


def reported(command: str, work: Callable[[], int]) -> int:
    """Run a command of the launcher; returns the exit status.

    A folder that another process uses gives status 1, since the same command may work later.
    """
    from verl_ispo.launch.run_folder import FolderBusyError

    def in_words() -> int:
        try:
            return work()
        except FolderBusyError as error:
            print(f"verl-ispo {command}: {error}", file=sys.stderr)
            return 1
        except OSError as error:
            raise UserError(f"{error}; check its permissions and the free space, or set another OUT (--out)") from error

    return run_command(f"verl-ispo {command}", in_words)


def run_launch(options: argparse.Namespace) -> int:
    """Run one of the three; returns the exit status."""
    runs: dict[str, Callable[[argparse.Namespace], int]] = {
        "train": run_train,
        "evaluate-run": run_evaluate_run,
        "reproduce-table": run_reproduce_table,
    }
    return runs[options.command](options)


COMMANDS: Sequence[str] = ("train", "evaluate-run", "reproduce-table")
