"""The commands' arguments, with verl's names, and what each command prepares."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.benchmark_names import LATER_BENCHMARKS, PAPER_BENCHMARKS
from data_prep.benchmark_set import Benchmark, prepare_benchmark
from data_prep.decontamination import DEFAULT_MIN_OVERLAP, DEFAULT_NGRAM_WORDS, load_benchmarks
from data_prep.prompt_lengths import load_prompt_meter
from data_prep.prompt_shots import with_shots
from data_prep.prompt_templates import PromptTemplate, load_template
from data_prep.reading import ChosenPart, ColumnOptions, choose_parts
from data_prep.row_validity import VALIDITY_COLUMNS
from data_prep.schema import OUTPUT_SCHEMA
from data_prep.sources import SourcePart, hub_parts, local_parts
from data_prep.training_set import TrainingOptions, prepare_training_set
from verl_ispo.command_line import run_command
from verl_ispo.user_error import UserError

DEFAULT_SAVE_DIR = Path("~/data/math")


@dataclass(frozen=True)
class Prepared:
    """The parquet that was written, and what it was made from."""

    path: Path
    parts: Sequence[ChosenPart]


@dataclass(frozen=True)
class TrainingSource:
    """What is special about one training set; the `generic` command has neither name nor hub id."""

    name: str | None
    title: str
    hub_id: str | None = None
    hub_split: str = "train"


def run_benchmark(benchmark: Benchmark, argv: Sequence[str] | None = None) -> int:
    """The command of a benchmark; returns its exit code."""
    parser = _parser(
        benchmark.name,
        f"Prepare {benchmark.title} ({benchmark.expected_count} problems) for verl: {benchmark.name}.parquet with a "
        "data card beside it.",
        benchmark.hub_id,
        benchmark.hub_split,
    )
    parser.add_argument(
        "--allow_count_mismatch",
        action="store_true",
        help=f"accept a number of problems other than {benchmark.expected_count}; the data card says so",
    )
    args = parser.parse_args(argv)

    def prepare() -> Prepared:
        template = _template(args)
        meter = load_prompt_meter(args.tokenizer) if args.tokenizer else None
        parts = _parts(args, benchmark.hub_id, benchmark.hub_config, benchmark.hub_split)
        chosen = choose_parts(parts, _column_options(args), benchmark.extra_columns)
        split = args.split or "test"
        path = prepare_benchmark(
            benchmark,
            chosen,
            split,
            template,
            args.local_save_dir,
            meter,
            args.allow_count_mismatch,
            args.log_base,
            _shown(args),
        )
        return Prepared(path, chosen)

    return _run(parser.prog, prepare)


def run_training_set(source: TrainingSource, argv: Sequence[str] | None = None) -> int:
    """The command of a training set; returns its exit code."""
    parser = _parser(source.name or "generic", source.title, source.hub_id, source.hub_split)
    if source.name is None:
        parser.add_argument(
            "--data_source", required=True, metavar="NAME", help="name of the set: in every row, and of the output file"
        )
    group = parser.add_argument_group("what is dropped")
    group.add_argument(
        "--decontaminate_against",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="benchmark files whose questions must not be in the training set (prepared parquet, or any file with a "
        f"question column); those of {', '.join((*PAPER_BENCHMARKS, *LATER_BENCHMARKS))} prepared in --local_save_dir "
        "are always used",
    )
    group.add_argument("--no_decontaminate", action="store_true", help="do not compare with any benchmark")
    group.add_argument(
        "--ngram",
        type=_positive,
        default=DEFAULT_NGRAM_WORDS,
        metavar="WORDS",
        help="length of the runs of words that are compared with the benchmarks' (default: %(default)s)",
    )
    group.add_argument(
        "--min_overlap",
        type=_share,
        default=DEFAULT_MIN_OVERLAP,
        metavar="SHARE",
        help="contaminated if shared runs cover this share of the words of either question; 0 drops every row that "
        "shares one run, including formulas such as 'where m and n are relatively prime' (default: %(default)s)",
    )
    group.add_argument(
        "--conflicts",
        choices=("drop", "keep_first"),
        default="drop",
        help="one question with two answers: drop every copy (default), or keep the first",
    )
    group.add_argument(
        "--faulty_keys",
        choices=("drop", "keep"),
        default="drop",
        help="questions whose key the grader cannot use (it cannot read it, rejects it as its own answer, or accepts a "
        "foreign one): drop them (default), or keep them; they are listed either way",
    )
    group.add_argument(
        "--drop_near_duplicates",
        action="store_true",
        help="drop the later of two near duplicates with the same answer; they are only reported otherwise",
    )
    group.add_argument(
        "--max_prompt_tokens",
        type=_positive,
        metavar="N",
        help="drop longer prompts, as verl's data.max_prompt_length would; needs --tokenizer",
    )
    parser.add_argument(
        "--keep_columns",
        nargs="+",
        default=[],
        metavar="NAME",
        help="further columns of texts that are written as they are, each as a list of texts: the hints of "
        "method=scaf_grpo, for example",
    )
    args = parser.parse_args(argv)

    def prepare() -> Prepared:
        if args.max_prompt_tokens and not args.tokenizer:
            raise UserError("--max_prompt_tokens needs --tokenizer FOLDER_OR_MODEL to count with")
        if args.no_decontaminate and args.decontaminate_against:
            raise UserError("--no_decontaminate and --decontaminate_against exclude each other; remove one of them")
        name = source.name or args.data_source
        output_name = re.sub(r"[^\w.-]+", "_", name).strip(".")
        if output_name in (*PAPER_BENCHMARKS, *LATER_BENCHMARKS) or not output_name:
            raise UserError(f"--data_source {name!r}: would overwrite the benchmark of that name; choose another name")
        template = _template(args)
        meter = load_prompt_meter(args.tokenizer) if args.tokenizer else None
        benchmarks = [] if args.no_decontaminate else _benchmarks(args)
        parts = _parts(args, source.hub_id, None, source.hub_split)
        taken = sorted(set(args.keep_columns) & set(OUTPUT_SCHEMA.names))
        if taken:
            raise UserError(f"--keep_columns {taken[0]}: the output has a column of that name already; leave it out")
        keep_columns = list(dict.fromkeys(args.keep_columns))
        chosen = choose_parts(parts, _column_options(args), VALIDITY_COLUMNS, keep_columns)
        options = TrainingOptions(
            output_name=output_name,
            data_source=name,
            split=args.split or "train",
            parts=chosen,
            template=template,
            save_dir=args.local_save_dir,
            benchmarks=benchmarks,
            ngram_words=args.ngram,
            min_overlap=args.min_overlap,
            keep_conflicts=args.conflicts == "keep_first",
            drop_near_duplicates=args.drop_near_duplicates,
            meter=meter,
            max_prompt_tokens=args.max_prompt_tokens,
            log_base=args.log_base,
            keep_faulty_keys=args.faulty_keys == "keep",
            keep_columns=keep_columns,
            card_options=_shown(args),
        )
        if args.no_decontaminate:
            _warn(
                "not decontaminated (--no_decontaminate): scores on benchmarks may be inflated; the data card says so"
            )
        return Prepared(prepare_training_set(options), chosen)

    return _run(parser.prog, prepare)


def _parser(name: str, description: str, hub_id: str | None, hub_split: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m data_prep.{name}",
        description=description,
        epilog="Exit codes: 0 done, 2 a fault in input or options (one line says which), 130 interrupted. The output "
        "appears whole or not at all; the same input and options give the same bytes.",
    )
    origin = f"instead of {hub_id} (split {hub_split}) from the hub" if hub_id else "of the problems"
    parser.add_argument(
        "--local_dataset_path",
        type=Path,
        required=hub_id is None,
        metavar="PATH",
        help=f"local file or folder {origin}: jsonl, json, csv, parquet, arrow",
    )
    if hub_id:
        parser.add_argument("--hub_id", default=hub_id, help="another copy on the hub (default: %(default)s)")
        parser.add_argument("--hub_revision", metavar="COMMIT", help="branch, tag or commit of the hub data set")
    parser.add_argument(
        "--local_save_dir",
        type=Path,
        default=DEFAULT_SAVE_DIR,
        metavar="DIR",
        help="output folder; keep all sets in one, for decontamination (default: %(default)s)",
    )
    parser.add_argument(
        "--template",
        default="qwen_math",
        metavar="NAME_OR_FILE",
        help=r"prompt: qwen_math (system prompt that asks for \boxed{}), dapo (asks for a last line 'Answer: ...'), "
        "plain (the bare question), or a Jinja file that renders {{ question }}; use one for training and evaluation "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--shots",
        type=Path,
        metavar="FILE",
        help="worked examples before every question, as turns of the chat: JSON Lines with the keys question and "
        "response; what a base or small model needs to answer in a form",
    )
    parser.add_argument("--question_column", metavar="NAME", help="e.g. problem; found by its usual names by default")
    parser.add_argument(
        "--answer_column", metavar="NAME", help="e.g. reward_model.ground_truth; found by its usual names by default"
    )
    parser.add_argument(
        "--id_column", metavar="NAME", help="checked for ids shared by two questions; 'none' skips the check"
    )
    parser.add_argument(
        "--split", metavar="NAME", help=f"split to read, and to write into every row (default: {hub_split})"
    )
    parser.add_argument(
        "--log_base",
        type=_log_base,
        default="e",
        metavar="BASE",
        help=r"what a bare \log in the keys is to: e, 10 or another whole number; written into every row for the "
        "grader (default: %(default)s)",
    )
    parser.add_argument(
        "--tokenizer", metavar="PATH", help="folder or hub id of a tokenizer: adds prompt lengths in tokens to the card"
    )
    return parser


def _template(args: argparse.Namespace) -> PromptTemplate:
    template = load_template(args.template)
    return template if args.shots is None else with_shots(template, args.shots)


def _parts(args: argparse.Namespace, hub_id: str | None, hub_config: str | None, hub_split: str) -> list[SourcePart]:
    split = args.split or hub_split
    if args.local_dataset_path is not None:
        return local_parts(args.local_dataset_path, split)
    config = hub_config if args.hub_id == hub_id else None
    return hub_parts(args.hub_id, config, split, args.hub_revision)


def _benchmarks(args: argparse.Namespace) -> list[Any]:
    benchmarks = load_benchmarks(args.local_save_dir.expanduser(), args.decontaminate_against)
    names = [benchmark.name for benchmark in benchmarks]
    missing = [name for name in PAPER_BENCHMARKS if name not in names]
    if not benchmarks:
        raise UserError(
            f"no benchmark to decontaminate against: none of {', '.join(PAPER_BENCHMARKS)} is prepared in "
            f"{args.local_save_dir}. Prepare them there first (python -m data_prep.aime24 ...), pass "
            "--decontaminate_against FILE..., or pass --no_decontaminate"
        )
    if missing:
        _warn(f"not decontaminated against {', '.join(missing)}: neither prepared in {args.local_save_dir} nor given")
    return benchmarks


def _column_options(args: argparse.Namespace) -> ColumnOptions:
    return ColumnOptions(args.question_column, args.answer_column, args.id_column)


def _shown(args: argparse.Namespace) -> dict[str, Any]:
    """Options for the card, without the output folder, which does not change the content."""
    options = {key: value for key, value in vars(args).items() if key != "local_save_dir"}
    return {
        key: [str(v) for v in value] if isinstance(value, list) else _plain(value) for key, value in options.items()
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _log_base(text: str) -> str:
    if text != "e" and not (text.isdecimal() and int(text) > 1):
        raise argparse.ArgumentTypeError(f"{text} is neither e nor a whole number above 1")
    return text


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _run(program: str, prepare: Callable[[], Prepared]) -> int:
    def work() -> None:
        done = prepare()
        for line in dict.fromkeys(part.line() for part in done.parts):
            print(f"read  {line}")
        print(f"wrote {done.path}\ncard  {done.path.with_suffix('.card.md')}")

    return run_command(program, work, "interrupted; nothing was changed")
