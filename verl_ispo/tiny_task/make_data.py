"""Write the train and held-out problems as parquet files in verl's columns.

    python -m verl_ispo.tiny_task.make_data --out DIR --levels 1-6

``--levels 1-4`` is the easy mix, with few groups of rollouts that are all wrong; ``1-6`` is the stress mix, where a
third of them are. The held-out file covers all six levels in both cases and does not depend on the mix.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from verl_ispo.atomic_file import atomic_file
from verl_ispo.command_line import run_command
from verl_ispo.tiny_task.problems import LEVELS, Problem, held_out_problems, training_problems
from verl_ispo.user_error import UserError

TRAIN_DATA_SOURCE = "tiny_arithmetic"


def held_out_data_source(level: int) -> str:
    """Name under which verl reports the accuracy of one level."""
    return f"{TRAIN_DATA_SOURCE}_level{level}"


def parse_levels(text: str) -> tuple[int, ...]:
    """Read a choice of levels, such as ``1-4`` or ``1,3-5``."""
    levels: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d)\s*(?:-\s*(\d)\s*)?", part)
        if match is None or not set(span := range(int(match[1]), int(match[2] or match[1]) + 1)) <= set(LEVELS):
            raise argparse.ArgumentTypeError(
                f"{text!r}: give levels of {min(LEVELS)} to {max(LEVELS)}, e.g. 1-4 or 1,3"
            )
        levels.update(span)
    if not levels:
        raise argparse.ArgumentTypeError(
            f"{text!r} is an empty choice of levels; write the smaller one first, e.g. 1-4"
        )
    return tuple(sorted(levels))


def to_row(problem: Problem, *, index: int, split: str, data_source: str) -> dict[str, Any]:
    """One problem as a row of verl's columns."""
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": problem.question}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(problem.answer)},
        "extra_info": {"index": index, "split": split, "level": problem.level, "question": problem.question},
    }


def write_parquet(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write rows to a parquet file that appears under its name only when it is complete."""
    with atomic_file(path) as file:
        pd.DataFrame(list(rows)).to_parquet(file, index=False)


def make_rows(
    levels: Sequence[int], train_rows: int, held_out_per_level: int, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make the rows of the train and of the held-out file.

    Args:
        levels (`Sequence[int]`): levels of the training mix, drawn uniformly.
        train_rows (`int`): problems to train on; those of the smallest levels repeat.
        held_out_per_level (`int`): distinct held-out problems of each of the six levels.
        seed (`int`): same seed, same rows.
    """
    held_out = held_out_problems(seed, held_out_per_level)
    excluded = frozenset(problem.question for problem in held_out)
    drawn = islice(training_problems(levels, random.Random(f"train/{seed}"), excluded), train_rows)
    train = [
        to_row(problem, index=index, split="train", data_source=TRAIN_DATA_SOURCE)
        for index, problem in enumerate(drawn)
    ]
    test = [
        to_row(problem, index=index, split="heldout", data_source=held_out_data_source(problem.level))
        for index, problem in enumerate(held_out)
    ]
    return train, test


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m verl_ispo.tiny_task.make_data",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for train.parquet and heldout.parquet")
    parser.add_argument(
        "--levels", type=parse_levels, default="1-6", help="levels to train on, e.g. 1-4 or 1,3-5 (default: 1-6)"
    )
    parser.add_argument("--train-rows", type=int, default=4096, help="problems to train on (default: %(default)s)")
    parser.add_argument(
        "--held-out-per-level", type=int, default=50, help="held-out problems of each level (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="give the warm start's seed, so that both hold out the same problems"
    )
    args = parser.parse_args(argv)

    def work() -> None:
        if args.train_rows < 1:
            raise UserError(f"--train-rows {args.train_rows}: at least 1 problem is needed to train on")
        train, test = make_rows(args.levels, args.train_rows, args.held_out_per_level, args.seed)
        for rows, name in ((train, "train.parquet"), (test, "heldout.parquet")):
            write_parquet(rows, args.out / name)
            print(f"{args.out / name}: {len(rows)} problems")

    return run_command(parser.prog, work)


if __name__ == "__main__":
    sys.exit(main())
