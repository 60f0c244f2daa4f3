"""Write the problems of the real-model example: to train on, held out, and worked ones that teach the box.

    python -m verl_ispo.real_model.make_data --out runs/real_model/data

``train.parquet`` and ``heldout.parquet`` have verl's columns, an equal mix of sums, one-step and two-step word
problems, behind the system prompt that asks for a box; ``lessons.jsonl`` has one-step word problems with their worked
solutions. No question is in two of them. The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.prompt_templates import PromptTemplate, load_template
from data_prep.schema import OUTPUT_SCHEMA, output_rows
from data_prep.schema import Problem as Row
from data_prep.text_normalization import normalized_texts
from verl_ispo.answers.ground_truth import GroundTruth
from verl_ispo.atomic_file import atomic_file, write_text
from verl_ispo.command_line import run_command
from verl_ispo.launch.option_checks import check_from_one
from verl_ispo.real_model.problems import KINDS, ONE_STEP, Problem, made_problems

TEMPLATE = "qwen_math"
TRAIN, HELD_OUT, LESSONS = "train.parquet", "heldout.parquet", "lessons.jsonl"


def write_rows(path: Path, by_kind: Iterable[Sequence[Problem]], split: str, template: PromptTemplate) -> int:
    """Write problems as verl's rows, kind by kind in turn; returns how many.

    Args:
        path (`Path`): appears when it is complete.
        by_kind (`Iterable[Sequence[Problem]]`): equally many of each kind.
        split (`str`): written into every row.
        template (`PromptTemplate`): of the prompt.
    """
    problems = list(chain.from_iterable(zip(*by_kind, strict=True)))
    normalized = normalized_texts([problem.question for problem in problems]).to_pylist()
    batches = [
        output_rows(
            [Row(problem.question, text, GroundTruth(str(problem.answer), answer_type="integer"), path.name, index)],
            f"made_{problem.kind}",
            split,
            template,
            "e",
            index,
        )
        for index, (problem, text) in enumerate(zip(problems, normalized, strict=True))
    ]
    with atomic_file(path) as file:
        pq.write_table(pa.Table.from_batches(batches, OUTPUT_SCHEMA), file)
    return len(problems)


def make_data(out: Path, train_per_kind: int, held_out_per_kind: int, lessons: int, seed: int) -> dict[str, int]:
    """Write the three files.

    Args:
        out (`Path`): folder.
        train_per_kind, held_out_per_kind (`int`): problems of each kind.
        lessons (`int`): worked one-step problems.
        seed (`int`): same seed, same files.

    Returns:
        `dict[str, int]`: rows by file.
    """
    template = load_template(TEMPLATE)
    held_out = {kind: list(islice(made_problems(kind, f"heldout/{seed}"), held_out_per_kind)) for kind in KINDS}
    excluded = frozenset(problem.question for of_kind in held_out.values() for problem in of_kind)
    taught = list(islice(made_problems(ONE_STEP, f"lessons/{seed}", excluded), lessons))
    excluded |= {problem.question for problem in taught}
    train = [list(islice(made_problems(kind, f"train/{seed}", excluded), train_per_kind)) for kind in KINDS]
    rows = {
        TRAIN: write_rows(out / TRAIN, train, "train", template),
        HELD_OUT: write_rows(out / HELD_OUT, held_out.values(), "heldout", template),
        LESSONS: len(taught),
    }
    conversations = (
        {"messages": [*template.render(problem.question), {"role": "assistant", "content": problem.solution}]}
        for problem in taught
    )
    write_text(out / LESSONS, "".join(json.dumps(conversation) + "\n" for conversation in conversations))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m verl_ispo.real_model.make_data",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {TRAIN}, {HELD_OUT} and {LESSONS}")
    parser.add_argument("--train-per-kind", type=int, default=1024, help="(default: %(default)s)")
    parser.add_argument("--held-out-per-kind", type=int, default=40, help="(default: %(default)s)")
    parser.add_argument("--lessons", type=int, default=1024, help="worked problems (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    given = parser.parse_args(argv)

    def work() -> None:
        for name in ("train_per_kind", "held_out_per_kind", "lessons"):
            check_from_one(name.upper(), getattr(given, name))
        sizes = (given.train_per_kind, given.held_out_per_kind, given.lessons)
        for name, count in make_data(given.out, *sizes, given.seed).items():
            print(f"{given.out / name}: {count} problems")

    return run_command(parser.prog, work)


if __name__ == "__main__":
    sys.exit(main())
