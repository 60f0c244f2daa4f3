"""Rows per second and peak memory of ``python -m data_prep.dapo_math`` as the rows grow.

The input has the shape of the published DAPO-Math file: wrapped prompts, a few thousand distinct problems repeated
until the rows are full, in shuffled order. The problems come from ``--data``, or are made up. Every run is its own
process; time and memory are of the whole process, imports included.

    python scripts/bench_data_prep.py
    python scripts/bench_data_prep.py --data problems.jsonl --decontaminate_against aime24.jsonl math500.jsonl
    python scripts/bench_data_prep.py --sizes 1790000 --distinct 1790000   # the worst case: nothing repeats
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from data_prep.columns import choose_columns, question_text  # noqa: E402
from data_prep.prompt_templates import wrap_dapo  # noqa: E402
from data_prep.sources import local_parts  # noqa: E402

PUBLISHED_ROWS = 1_790_000
# The number of distinct problems in the published file, by a public de-duplication.
PUBLISHED_PROBLEMS = 17_398
GROUP_ROWS = 100_000


@dataclass(frozen=True)
class Measurement:
    """Medians over the repeats of one size."""

    rows: int
    problems: int
    input_mib: float
    seconds: float
    peak_mib: float
    written: int


def made_problems(count: int, first: int = 0) -> list[tuple[str, str]]:
    """Distinct word problems with answers, worded differently, so that few are near duplicates."""
    verbs = ("collects", "buys", "draws", "counts", "stores", "paints", "plants", "sorts")
    things = ("apples", "stamps", "triangles", "marbles", "books", "lamps", "roses", "coins")
    rng = random.Random(first)
    problems = []
    for number in range(first, first + count):
        a, b, c = rng.randrange(10, 10_000), rng.randrange(10, 10_000), rng.randrange(2, 100)
        tags = " ".join(f"$x_{{{rng.randrange(100_000)}}}$" for _ in range(12))
        question = (
            f"Person {number} {rng.choice(verbs)} {a} {rng.choice(things)} and {b} {rng.choice(things)}, "
            f"labelled {tags}. If ${c}$ of every ${a}$ are put aside, find $\\frac{{{a}}}{{{c}}} + {b}$ rounded down."
        )
        problems.append((question, str(a // c + b)))
    return problems


def problems_of(path: Path, count: int) -> list[tuple[str, str]]:
    """Up to `count` questions and answers of a local file."""
    problems = []
    for part in local_parts(path):
        columns = choose_columns(part.names, part.label)
        for batch in part.read([columns.question, columns.answer]):
            problems += [(question_text(q), str(a)) for q, a in zip(*batch.columns, strict=True)]
    return problems[:count]


def write_input(path: Path, data: Path | None, distinct: int, rows: int) -> int:
    """A parquet like DAPO's with `rows` rows of `distinct` problems at most; returns their number."""
    problems = problems_of(data, distinct) if data else made_problems(distinct)
    columns = {
        "data_source": ["math_dapo"] * len(problems),
        "prompt": [[{"content": wrap_dapo(question), "role": "user"}] for question, _ in problems],
        "ability": ["MATH"] * len(problems),
        "reward_model": [{"ground_truth": answer, "style": "rule-lighteval/MATH_v2"} for _, answer in problems],
        "extra_info": [{"index": f"{number:032x}"} for number in range(len(problems))],
    }
    table = pa.table(columns)
    order = [number % len(problems) for number in range(rows)]
    random.Random(1).shuffle(order)
    with pq.ParquetWriter(path, table.schema) as writer:
        for start in range(0, rows, GROUP_ROWS):
            writer.write_table(table.take(pa.array(order[start : start + GROUP_ROWS])))
    return len(problems)


def run_once(input_path: Path, against: list[Path], folder: Path) -> tuple[float, float]:
    """Seconds and peak MiB of one preparation in its own process."""
    command = [sys.executable, "-m", "data_prep.dapo_math", "--local_dataset_path", str(input_path)]
    command += ["--local_save_dir", str(folder), "--decontaminate_against", *map(str, against)]
    start = time.perf_counter()
    with (folder.parent / "stderr.txt").open("w+") as errors:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"the preparation failed with {process.returncode}:\n{errors.read()}")
    return seconds, usage.ru_maxrss / 1024


def measure(
    rows: int, data: Path | None, distinct: int, against: list[Path], repeats: int, folder: Path
) -> Measurement:
    """Medians for one size."""
    input_path = folder / "input.parquet"
    # In another process: Linux reports for a child at least the memory that its parent had at the fork.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        problems = pool.submit(write_input, input_path, data, distinct, rows).result()
    results = [run_once(input_path, against, folder / "out") for _ in range(repeats)]
    card = json.loads((folder / "out" / "dapo_math.card.json").read_text(encoding="utf-8"))
    return Measurement(
        rows=rows,
        problems=problems,
        input_mib=input_path.stat().st_size / 2**20,
        seconds=statistics.median(seconds for seconds, _ in results),
        peak_mib=statistics.median(peak for _, peak in results),
        written=card["output"]["rows"],
    )


def main() -> None:
    """Prints one line per size as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="FILE", help="real problems to repeat (default: made-up ones)")
    parser.add_argument("--decontaminate_against", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, PUBLISHED_ROWS], metavar="ROWS")
    parser.add_argument(
        "--distinct", type=int, default=PUBLISHED_PROBLEMS, metavar="N", help="distinct problems at most"
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="runs per size; medians are shown")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        against = [path.resolve() for path in args.decontaminate_against]
        if not against:
            against = [folder / "benchmark.jsonl"]
            lines = (json.dumps({"question": question}) for question, _ in made_problems(1275, first=PUBLISHED_ROWS))
            against[0].write_text("\n".join(lines), encoding="utf-8")
        print(f"medians of {args.repeats} runs")
        print("     rows  problems  input MiB   seconds   rows/s  peak MiB  written  rows x  time x")
        previous = None
        for rows in args.sizes:
            result = measure(rows, args.data, args.distinct, against, args.repeats, folder)
            growth = ""
            if previous:
                growth = f"{rows / previous.rows:7.1f} {result.seconds / previous.seconds:7.1f}"
            print(
                f"{rows:9d} {result.problems:9d} {result.input_mib:10.1f} {result.seconds:9.2f} "
                f"{rows / result.seconds:8.0f} {result.peak_mib:9.0f} {result.written:8d} {growth}",
                flush=True,
            )
            previous = result


if __name__ == "__main__":
    main()
