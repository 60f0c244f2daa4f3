"""The command lines of ``verl-ispo eval`` and ``verl-ispo table``. Nothing slow is imported to show their help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

EVAL_EPILOG = """\
examples:
  # one checkpoint of the hub, five benchmarks prepared by data_prep, 16 samples per problem
  verl-ispo eval --model Qwen/Qwen2.5-Math-1.5B --base-model Qwen2.5-Math-1.5B --method Base \\
      --benchmarks ~/data/math/{aime24,aime25,amc23,math500,olympiadbench}.parquet --out results/base

  # the last step of a verl run (merged by verl's own tool on the first use), training seed 1
  verl-ispo eval --model checkpoints/ispo-seed1 --base-model Qwen2.5-Math-1.5B --method ISPO --training-seed 1 \\
      --benchmarks ~/data/math/{aime24,aime25,amc23,math500,olympiadbench}.parquet --out results/ispo-seed1

  # the quickstart's tiny model, on a CPU
  verl-ispo eval --model runs/quickstart/base --benchmarks runs/quickstart/data/heldout.parquet \\
      --reward-function pkg://verl_ispo.tiny_task.reward --n 4 --max-new-tokens 64 --out results/tiny

  # 8 engines of 1 GPU each on the Ray cluster at that address (without it: on all GPUs of this machine)
  RAY_ADDRESS=10.0.0.1:6379 verl-ispo eval --replicas 8 --model Qwen/Qwen2.5-Math-7B \
      --benchmarks ~/data/math/math500.parquet --out results/base7b

  # a server that runs already (vllm serve, SGLang, llama.cpp, a hosted one; its key in OPENAI_API_KEY)
  verl-ispo eval --server http://localhost:8000/v1 --model Qwen/Qwen2.5-Math-7B \
      --benchmarks ~/data/math/math500.parquet --out results/served

  # a base model at three templates and three temperatures, each beside the setting as given
  verl-ispo eval --model Qwen/Qwen2.5-Math-1.5B --method Base --benchmarks ~/data/math/math500.parquet \\
      --vary-template qwen_math dapo plain --vary-temperature 0.3 1.0 --out results/base-settings

The same command resumes a run that was killed; on a CPU the result is then the same, byte for byte. Exit status:
0 done, 2 a fault in files or options (the message names it), 130 interrupted.
"""

TABLE_EPILOG = """\
examples:
  verl-ispo table results/* --out tables
  verl-ispo table results/grpo-seed? results/ispo-seed? --baseline GRPO --metrics pass@1_greedy avg@16 --out tables
  verl-ispo table results/* --audit --out tables      # 50 graded samples for a person to check, in tables/audit.csv
  verl-ispo table results/* --paper-rows all --format md latex --out tables   # all rows of the paper, run or not
  verl-ispo table results/* --curves --out tables    # also pass@k by k with a picture, and G-Pass@k
  verl-ispo table results/* --cost --out tables      # also accuracy against tokens and GPU seconds
  verl-ispo table --sensitivity results/base-settings --out tables   # of verl-ispo eval --vary-...

Rows are told apart by the --base-model, --method and --training-seed given to verl-ispo eval.
"""


def add_engine_options(group: argparse._ArgumentGroup) -> None:
    """The options of what samples, which every command that samples has."""
    group.add_argument(
        "--context-tokens",
        type=int,
        help="limit on prompt and response together (default: the model's max_position_embeddings)",
    )
    group.add_argument(
        "--sampler",
        choices=("auto", "vllm", "cpu"),
        default="auto",
        help="auto: vLLM if it is installed and there is a GPU, else the CPU (default)",
    )
    group.add_argument("--tensor-parallel-size", type=int, default=1, help="GPUs for one model (vLLM; default: 1)")


def add_replica_options(group: argparse._ArgumentGroup) -> None:
    """How many engines, and their arguments."""
    group.add_argument(
        "--replicas",
        type=int,
        metavar="N",
        help="engines at a time, as Ray actors on this machine or the cluster that RAY_ADDRESS names; the results are "
        "the same for any N (default: all GPUs / tensor parallel size; 1 on a CPU)",
    )
    group.add_argument(
        "--vllm-args",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="more arguments of vllm.LLM, such as kv_cache_memory_bytes=2147483648, with which several evaluations "
        "share a GPU, or enforce_eager=true, which starts sooner and generates slower (default: none)",
    )


def add_server_options(parser: argparse.ArgumentParser, chat: bool = True) -> None:
    """The options of a server that samples; ``chat``: prompts may be messages too."""
    server = parser.add_argument_group("a server instead of an engine here")
    server.add_argument(
        "--server",
        metavar="URL",
        help="any OpenAI-compatible server, such as http://localhost:8000/v1; its key is read from OPENAI_API_KEY. "
        "What it does not tell (log-probs, token ids) or repeat (seeds) is listed in the manifest",
    )
    if chat:
        server.add_argument(
            "--server-prompts",
            choices=("token-ids", "chat"),
            default="token-ids",
            help="token-ids: by the tokenizer of --model, as in training; chat: messages, of which the server makes "
            "tokens by its own template (default: %(default)s)",
        )
    server.add_argument("--served-model", metavar="NAME", help="the model's name there (default: the only one)")
    server.add_argument("--concurrency", type=int, default=64, help="requests at a time (default: %(default)s)")
    server.add_argument(
        "--request-timeout-s",
        type=float,
        default=1800.0,
        metavar="S",
        help="longest wait for one response, in seconds (default: %(default)s)",
    )


def add_reward_option(parser: argparse.ArgumentParser) -> None:
    """What grades."""
    parser.add_argument(
        "--reward-function",
        default="pkg://verl_ispo.grading",
        metavar="PLACE[:NAME]",
        help="grader with verl's signature, in pkg://a.module or a/file.py (default: %(default)s:compute_score)",
    )


def add_eval_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``eval`` to the subcommands."""
    parser = commands.add_parser(
        "eval",
        help="sample a checkpoint on benchmarks and grade it: greedy pass@1, and n samples at a temperature",
        description=(
            "Samples a checkpoint on benchmark files (verl's parquet columns) and grades every response. Writes one "
            "line per sample to OUT/samples.jsonl, scores with intervals to OUT/summary.json, and all settings with "
            "digests of model and problems to OUT/manifest.json."
        ),
        epilog=EVAL_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        required=True,
        help="Hugging Face folder or hub id, or a verl checkpoint folder (its last step, or name a global_step_N)",
    )
    parser.add_argument("--benchmarks", type=Path, nargs="+", required=True, metavar="PARQUET", help="problems")
    parser.add_argument("--out", type=Path, required=True, help="folder of this evaluation; resumed if it exists")
    drawing = parser.add_argument_group("sampling")
    drawing.add_argument(
        "--n",
        type=int,
        default=16,
        help="samples per problem besides the greedy one, each from its own seed: at least 10 on sets of up to 40 "
        "problems (AIME, AMC); 0: greedy only (default: 16)",
    )
    drawing.add_argument("--temperature", type=float, default=0.6, help="of the samples (default: %(default)s)")
    drawing.add_argument("--top-p", type=float, default=1.0, help="of the samples (default: %(default)s)")
    drawing.add_argument(
        "--max-new-tokens",
        type=int,
        default=4096,
        help="longest response; one that reaches it counts as truncated (default: %(default)s)",
    )
    drawing.add_argument(
        "--template",
        metavar="NAME_OR_FILE",
        help="other prompts for the same problems: qwen_math, dapo, plain or a Jinja file, as for data_prep, made from "
        "the bare questions in the files (default: the prompts of the files, which should be those of the training)",
    )
    drawing.add_argument(
        "--seed", type=int, default=0, help="of the sampling, not of the training (default: %(default)s)"
    )
    add_engine_options(drawing)
    add_replica_options(drawing)
    add_server_options(parser)
    add_reward_option(parser)
    varied = parser.add_argument_group(
        "sensitivity: several settings into subfolders of OUT",
        "The setting by the options above is evaluated first, then one with each value given\n"
        "here, one change at a time. The model is loaded once, and the same command resumes.\n"
        "`verl-ispo table --sensitivity OUT` compares them. A base model deserves its best\n"
        "template; the best of many settings is flattered by the choice, and the table says so.",
    )
    varied.add_argument(
        "--vary-template",
        nargs="+",
        default=[],
        metavar="NAME_OR_FILE",
        help="other templates, as for --template: how much of a score is the form of the prompt",
    )
    varied.add_argument(
        "--vary-temperature", nargs="+", type=float, default=[], metavar="T", help="other temperatures, such as 0.3 1.0"
    )
    varied.add_argument(
        "--vary-top-p", nargs="+", type=float, default=[], metavar="P", help="other values of top-p, such as 0.9 0.95"
    )
    varied.add_argument(
        "--vary-max-new-tokens",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="other longest responses; shorter ones are told by `verl-ispo table --cost` without sampling again",
    )
    labels = parser.add_argument_group("names in the table (repeat the command to change them)")
    labels.add_argument("--base-model", help="model the training started from (default: name of --model)")
    labels.add_argument("--method", help="method it was trained with (default: name of --out)")
    labels.add_argument("--training-seed", type=int, help="seed of the training run, where there are several")


def add_table_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``table`` to the subcommands."""
    parser = commands.add_parser(
        "table",
        help="models x benchmarks x methods with intervals, seeds, comparisons and the paper's scores",
        description=(
            "Puts evaluated checkpoints into tables: problems, 95 % intervals, training seeds, paired comparisons "
            "with a baseline (Holm's correction), and the paper's scores beside ours. A cell that was not run says so. "
            "Results on different problems are refused."
        ),
        epilog=TABLE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, nargs="*", metavar="RESULTS", help="folders written by verl-ispo eval")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=("md", "csv", "latex", "png"),
        default=["md", "csv", "latex", "png"],
        help="table.md; scores.csv, comparisons.csv and one more for each table on request; table.tex; pictures of the "
        "tables on request that have one (default: all)",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="METRIC",
        help="pass@1_greedy, avg@K, maj@K (equal answers vote together), maj_text@K (answers compared as text), "
        "pass@K, g_pass@K_TAU (at least TAU * K of K samples are correct), mg_pass@K (its mean over TAU from 0.5 to 1) "
        "(default: greedy, avg, maj and pass, with K = the number of samples); and about confidence, where log-probs "
        "were recorded: auroc_answer, ece_answer, confident_half_answer, and the same with _response (default: all)",
    )
    parser.add_argument(
        "--baseline", metavar="METHOD", help="compare with this one (default: GRPO, else Base, else none)"
    )
    parser.add_argument(
        "--paper-rows",
        choices=("run", "models", "all"),
        default="run",
        help="rows besides those that were run: none, the paper's for the models that were run, or all of the paper's "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="more figures to show beside ours: a CSV file with the columns base_model, method, benchmark, metric (as "
        "in --metrics), value (percent) and source (what to cite). One of them replaces the paper's own figure where "
        "both are about one cell; --paper-rows adds its rows too",
    )
    audit = parser.add_argument_group("how often the grader errs")
    audit.add_argument(
        "--audit",
        action="store_true",
        help="draw graded samples at random into OUT/audit.csv, for a person to judge; a file with verdicts is never "
        "overwritten. Once it is filled in, every table in OUT has the grader's error rate under it",
    )
    audit.add_argument(
        "--audit-samples",
        type=int,
        default=50,
        metavar="N",
        help="how many: half of what the grader accepted, half of what it rejected, evenly by status "
        "(default: %(default)s)",
    )
    audit.add_argument("--audit-seed", type=int, default=0, metavar="N", help="of the draw (default: %(default)s)")
    requested = parser.add_argument_group("tables on request")
    requested.add_argument(
        "--curves",
        action="store_true",
        help="pass@k for k = 1, 2, 4, ... up to the number of samples, with a picture, the spread between single "
        "passes over the set, and G-Pass@k: how often the model is correct again. A method may gain at k = 1 by "
        "giving up what it reached with many tries, which a single number hides",
    )
    requested.add_argument(
        "--thresholds",
        type=float,
        nargs="+",
        default=[0.25, 0.5, 0.75, 1.0],
        metavar="TAU",
        help="of G-Pass@k: the shares of k samples that have to be correct (default: 0.25 0.5 0.75 1)",
    )
    requested.add_argument(
        "--cost",
        action="store_true",
        help="accuracy against tokens (mean length, tokens per correct response, accuracy within half, a quarter, ... "
        "of the longest response, with a picture) and against the GPU seconds of the evaluation and of the training, "
        "as far as they were recorded: a method that writes or trains more has had a larger budget",
    )
    requested.add_argument(
        "--sensitivity",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="folders of verl-ispo eval with --vary-...: accuracy by template, temperature, top-p and length, the best "
        "of each beside the one that is trained with, the spread, and what a choice on half of the problems scores on "
        "the other half; RESULTS may be left out",
    )


def run_eval(options: argparse.Namespace) -> int:
    """Run ``eval``; returns the exit status."""
    from verl_ispo.evaluation import settings_grid
    from verl_ispo.evaluation.evaluation_options import EvaluationOptions
    from verl_ispo.evaluation.run import run

    lists = {name: tuple(getattr(options, name)) for name in ("benchmarks", "vllm_args")}
    variations = {name: tuple(getattr(options, f"vary_{name}")) for name in settings_grid.VARIED}
    left_out = {"command", *(f"vary_{name}" for name in variations)}
    given = {name: value for name, value in vars(options).items() if name not in left_out}
    evaluation = EvaluationOptions(**{**given, **lists})
    return settings_grid.run(evaluation, variations) if any(variations.values()) else run(evaluation)


def run_table(options: argparse.Namespace, save_charts: Callable[..., None] | None = None) -> int:
    """Run ``table``; returns the exit status.

    Args:
        options (`argparse.Namespace`): as parsed.
        save_charts (`Callable`, *optional*): draws the charts of a part into a PNG; without it there are none.
    """
    from verl_ispo.evaluation.make_table import TableOptions, run

    return run(
        TableOptions(
            results=tuple(options.results),
            out=options.out,
            formats=tuple(options.format),
            metrics=tuple(options.metrics),
            baseline=options.baseline,
            paper_rows=options.paper_rows,
            reference=options.reference,
            audit=options.audit,
            audit_samples=options.audit_samples,
            audit_seed=options.audit_seed,
            curves=options.curves,
            thresholds=tuple(options.thresholds),
            cost=options.cost,
            sensitivity=tuple(options.sensitivity),
        ),
        save_charts,
    )
