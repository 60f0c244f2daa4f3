"""The command line of ``verl-ispo probe``. Nothing slow is imported to show its help."""

from __future__ import annotations

import argparse
from pathlib import Path

from verl_ispo.evaluation.evaluation_arguments import add_engine_options

PROBE_EPILOG = """\
examples:
  # a model of the hub and the training's own file, on this machine's GPU (minutes)
  verl-ispo probe Qwen/Qwen2.5-Math-1.5B ~/data/math/dapo_math.parquet --max-new-tokens 2048 --out runs/probe

  # a small model on a CPU: few prompts, short responses
  verl-ispo probe runs/quickstart/base runs/quickstart/data/train.parquet --prompts 8 --max-new-tokens 64 \\
      --reward-function pkg://verl_ispo.tiny_task.reward --out runs/probe-tiny

  # a model in training, with its start as the reference; another weight of IFD; these presets alone
  verl-ispo probe checkpoints/ispo-seed1 ~/data/math/dapo_math.parquet --reference Qwen/Qwen2.5-Math-1.5B \\
      --methods ispo ispo_guarded ispo_off grpo algorithm.ispo.ifd_weight=0.1 --out runs/probe-step100

how to read it: first the verdict. "pay for giving no answer" means that in groups without a correct rollout a rollout
without an answer gets a higher advantage than an incorrect answer, so a training would teach not to answer. Then the
presets that would not. The page (OUT/probe.html) has the numbers behind every sentence and some rollouts; docs/probe.md
has the rules and thresholds. The same command again samples and scores nothing twice; other --methods, overrides or
another --reward-function on the same --out neither. Exit status: 0 done, whatever the verdict; 2 a fault in files or
options (the message names it); 130 interrupted.
"""


def add_probe_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``probe`` to the subcommands."""
    parser = commands.add_parser(
        "probe",
        help="before a training: which regime a model starts in, and what ISPO and its guards would reward there",
        description=(
            "Samples some prompts of a training file as a training does, grades the rollouts, scores the answers with "
            "and without their traces, and says what ISPO as in the paper and every preset would give advantage to: "
            "no answer, a copied number, a dropped trace. Nothing is trained. Writes the numbers (OUT/probe.json), one "
            "line per rollout (OUT/rollouts.jsonl) and a page (OUT/probe.html)."
        ),
        epilog=PROBE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="Hugging Face folder or hub id, or a verl checkpoint folder (its last step)"
    )
    parser.add_argument(
        "data", type=Path, metavar="DATA", help="the training's parquet file, as python -m data_prep.NAME writes it"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of this probe; continued if it exists")
    drawing = parser.add_argument_group("sampling, as in the training")
    drawing.add_argument(
        "--prompts", type=int, default=32, help="prompts drawn from DATA at random (default: %(default)s)"
    )
    drawing.add_argument("--rollouts", type=int, default=8, help="rollouts per prompt (default: %(default)s)")
    drawing.add_argument(
        "--max-new-tokens",
        type=int,
        default=1024,
        help="longest response; give the training's data.max_response_length (default: %(default)s)",
    )
    drawing.add_argument("--temperature", type=float, default=1.0, help="of the rollouts (default: %(default)s)")
    drawing.add_argument("--seed", type=int, default=0, help="of prompts and sampling (default: %(default)s)")
    add_engine_options(drawing)
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument(
        "--device", choices=("auto", "cuda", "cpu"), default="auto", help="where log-probs are made (default: a GPU)"
    )
    scoring.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of that model; auto: bfloat16 on a GPU, float32 on a CPU (default)",
    )
    scoring.add_argument(
        "--reference",
        metavar="MODEL",
        help="reference policy of the drift filter, for a model in training (default: MODEL itself, as at the start)",
    )
    scoring.add_argument(
        "--reward-function",
        default="pkg://verl_ispo.grading",
        metavar="PLACE[:NAME]",
        help="the training's, with verl's signature, in pkg://a.module or a/file.py (default: %(default)s)",
    )
    scoring.add_argument(
        "--methods",
        nargs="+",
        default=[],
        metavar="NAME",
        help="presets to compare, beside ispo (default: grpo, sign, and all that train on ISPO's signals)",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="algorithm.ispo.KEY=VALUE",
        help="settings of ISPO, for all presets; they win over a preset's own",
    )


def run_probe(options: argparse.Namespace) -> int:
    """Run ``probe``; returns the exit status."""
    from verl_ispo.probe.probe_options import ProbeOptions
    from verl_ispo.probe.run import run

    given = {name: value for name, value in vars(options).items() if name != "command"}
    # An override behind --methods is taken for a name of a method.
    methods = tuple(name for name in options.methods if "=" not in name)
    overrides = (*options.overrides, *(name for name in options.methods if "=" in name))
    return run(ProbeOptions(**{**given, "methods": methods, "overrides": overrides}))
