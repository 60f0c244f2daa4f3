"""The command line of ``verl-ispo contamination``."""

from __future__ import annotations

import argparse
from pathlib import Path

from verl_ispo.evaluation.evaluation_arguments import (
    add_engine_options,
    add_replica_options,
    add_reward_option,
    add_server_options,
)

EPILOG = """\
examples:
  verl-ispo contamination --model Qwen/Qwen2.5-Math-1.5B \\
      --benchmarks ~/data/math/{math500,aime24,aime26,hmmt_feb25}.parquet --out results/contamination
  # a model whose data end later than that of the known sets
  verl-ispo contamination --model some/model --benchmarks ~/data/math/{math500,aime26}.parquet --later aime26 \\
      --out results/contamination2

The same command resumes a run that was killed. Exit status: 0 done, 2 a fault in files or options, 130 interrupted.
"""


def add_contamination_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``contamination`` to the subcommands."""
    parser = commands.add_parser(
        "contamination",
        help="whether a base model knows a benchmark: it is given the beginnings of the questions",
        description=(
            "Gives a base model the beginning of each question, greedily and without a chat template, and measures how "
            "often it writes the rest of the question and how often its answer is correct (arXiv 2507.10532), with "
            "intervals, and against benchmarks that are later than the model. Writes OUT/contamination.md and "
            "OUT/contamination.json; the responses are in OUT/samples.jsonl."
        ),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", required=True, help="base model: Hugging Face folder or hub id, or a verl checkpoint folder"
    )
    parser.add_argument("--benchmarks", type=Path, nargs="+", required=True, metavar="PARQUET", help="problems")
    parser.add_argument("--out", type=Path, required=True, help="folder of this probe; resumed if it exists")
    parser.add_argument(
        "--percent",
        type=int,
        nargs="+",
        default=[40, 60, 80],
        metavar="N",
        help="shares of each question's words that are given (default: 40 60 80)",
    )
    parser.add_argument(
        "--later",
        nargs="+",
        default=[],
        metavar="BENCHMARK",
        help="the benchmarks that are later than the model's data, by their data_source; the others are compared with "
        "them (default: those of aime26, hmmt_feb25 and brumo25 that are given, which is right for Qwen2.5)",
    )
    drawing = parser.add_argument_group("sampling")
    drawing.add_argument(
        "--max-new-tokens", type=int, default=2048, help="longest response: rest and answer (default: %(default)s)"
    )
    add_engine_options(drawing)
    add_replica_options(drawing)
    add_server_options(parser, chat=False)
    add_reward_option(parser)


def run_contamination(options: argparse.Namespace) -> int:
    """Run ``contamination``; returns the exit status."""
    from verl_ispo.evaluation.contamination import ContaminationOptions, run
    from verl_ispo.evaluation.evaluation_options import EvaluationOptions

    own = ("command", "benchmarks", "vllm_args", "percent", "later")
    evaluation = EvaluationOptions(
        **{name: value for name, value in vars(options).items() if name not in own},
        benchmarks=tuple(options.benchmarks),
        vllm_args=tuple(options.vllm_args),
        n=0,
        temperature=1.0,
        top_p=1.0,
        seed=0,
        base_model=None,
        method=None,
        training_seed=None,
        raw_prompts=True,
    )
    return run(ContaminationOptions(evaluation, tuple(options.percent), tuple(options.later)))
