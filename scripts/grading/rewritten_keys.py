#!/usr/bin/env python3
r"""Grade each answer key against some fifty correct spellings and as many wrong answers; count what comes out wrong.

    python scripts/grading/rewritten_keys.py                                    # a small built-in set of keys
    python scripts/grading/rewritten_keys.py ~/data/math                        # every *.parquet of data_prep
    python scripts/grading/rewritten_keys.py math500.parquet --keys 200 --forms "sign" "a/b"
    python scripts/grading/rewritten_keys.py ~/data/math --out findings.jsonl   # verdicts not as they should be

A form rewrites only those keys for which the answer is certainly correct, or certainly wrong. The table has, by form,
how many answers were tried, how many correct ones were rejected, and how many wrong ones were accepted; "undecided"
counts errors and time-outs among them. Findings go to a JSON-lines file as they are found. Keys that occur several
times are tried once. Exit status: 1 if a wrong answer was accepted, or more correct ones were rejected than
``--max-rejected`` percent.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TextIO

from key_shapes import Key
from rewritten_dress import Response
from rewritten_forms import CORRECT_FORMS, WRONG_FORMS
from tqdm import tqdm

from verl_ispo.grading import close_pools, compute_score, grading_stats

BUILT_IN = (
    *("0", "1", "-3", "7", "42", "1234", "-50", "27000", "3,000", "3/4", "0.25", ".5", "-1.5", "2^{10}", "10!"),
    *(r"\frac{1}{2}", r"-\frac{7}{3}", r"\frac{125}{8}", r"2\sqrt{3}", r"\sqrt{2}", r"\frac{\sqrt{3}}{2}", r"3\pi"),
    *(r"\frac{\pi}{6}", r"1+\sqrt{5}", "3+4i", r"\ln 2", r"\log_2 3", r"e^{-1}", "x", "x^2+1", r"\frac{n}{2}"),
    *(r"\frac{n(n+1)}{2}", "2^n-1", r"\sin x", r"\left\lfloor \frac{n}{2} \right\rfloor", r"\infty", r"\emptyset"),
    *("30^\\circ", "50\\%", "\\$12", r"12\text{ cm}", "52_8", "1,-2", "1, 2, 3", r"\frac{1}{2}, 3", r"\{1, 2, 3\}"),
    *("(1,2)", "(3,-1,4)", r"\left(\frac{1}{2}, -3\right)", "[0,1]", "(0,4]", r"(2,\infty)", r"(-\infty, 3]"),
    *(r"(-\infty,\infty)", r"(-\infty,0)\cup(1,\infty)", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    *("x=5", "x=3,y=2", "y = 2x+1", "f(x)=2x", "4x+3y=6", "x^2+y^2=1", "A", r"\text{B}", "Yes", "False"),
    *(r"\text{Evelyn}", r"\angle ABC", r"A^{-1}B", '["2", "-5"]', '["(1,2)", "(3,4)"]'),
)
"""Keys for a run without files."""

UNDECIDED = ("timeout", "error")
_BATCH = 500
_EXAMPLES = 3


@dataclass(frozen=True)
class Task:
    """One rewritten key: ``correct`` says what the verdict has to be."""

    key: Key
    form: str
    correct: bool
    answer: str


@dataclass
class Counts:
    """What came out of one form."""

    tried: int = 0
    failed: int = 0
    undecided: int = 0
    examples: list[str] = field(default_factory=list)


def read_keys(paths: Sequence[Path]) -> list[Key]:
    """The distinct ground truths of prepared parquet files; of a folder, of all those in it.

    Raises:
        SystemExit: if there is no such file, or it does not have verl's columns.
    """
    import pyarrow.parquet as parquet

    files = [file for path in paths for file in (sorted(path.glob("*.parquet")) if path.is_dir() else [path])]
    missing = [str(file) for file in files if not file.is_file()]
    if missing or not files:
        where = ", ".join(missing or map(str, paths))
        raise SystemExit(f"{where}: no *.parquet file; prepare one with python -m data_prep.math500")
    keys: dict[str, Key] = {}
    for file in files:
        try:
            rows = parquet.read_table(file, columns=["reward_model", "extra_info"]).to_pylist()
        except (OSError, ValueError, KeyError) as error:
            raise SystemExit(f"{file}: cannot be read as a prepared data set ({error})") from error
        for row in rows:
            known = {
                name: value
                for name, value in row["extra_info"].items()
                if name in ("unit", "tolerance", "multiple_answers")
            }
            key = Key(str(row["reward_model"]["ground_truth"]), {name: value for name, value in known.items() if value})
            keys.setdefault(json.dumps([key.gold, key.info], sort_keys=True), key)
    return list(keys.values())


def make_tasks(keys: Sequence[Key], forms: Sequence[str]) -> Iterator[Task]:
    """All rewritten keys; ``forms`` names those to make, all if it is empty."""
    for key in keys:
        for correct, table in ((True, CORRECT_FORMS), (False, WRONG_FORMS)):
            for name, form in table.items():
                if not forms or name in forms:
                    yield from (Task(key, name, correct, answer) for answer in dict.fromkeys(form(key)))


def grade(task: Task, timeout_s: float, workers: int) -> str:
    """The grader's status; whatever it raises is one too."""
    is_response = isinstance(task.answer, Response)
    response = task.answer if is_response else rf"So the final answer is \boxed{{{task.answer}}}."
    try:
        result = compute_score(
            "rewritten", response, task.key.gold, task.key.info, timeout_s=timeout_s, workers=workers
        )
    except Exception as error:  # nothing may be raised, so everything is a finding
        return f"raised {type(error).__name__}"
    return str(result["status"])


def print_table(title: str, counts: dict[str, Counts], verb: str) -> Counts:
    """One line per form that was tried, and their sum."""
    total = Counts()
    print(f"\n{title:<42}{'tried':>9}{verb:>10}{'share':>9}{'undecided':>11}   first examples: answer <- key")
    for name, count in counts.items():
        if count.tried:
            print(f"{_columns(name, count)}   {'; '.join(count.examples)}")
            total.tried += count.tried
            total.failed += count.failed
            total.undecided += count.undecided
    print(_columns("all", total))
    return total


def _columns(name: str, count: Counts) -> str:
    share = 100 * count.failed / max(1, count.tried)
    return f"{name:<42}{count.tried:>9}{count.failed:>10}{share:>7.2f} %{count.undecided:>11}"


def record(task: Task, status: str, counts: Counts, findings: TextIO) -> None:
    """Count one verdict, and write it down if it is not as it has to be."""
    counts.tried += 1
    counts.undecided += status in UNDECIDED
    failed = (status == "correct") is not task.correct or status.startswith("raised")
    counts.failed += failed
    if failed:
        shown = f"{task.answer} <- {task.key.gold}".replace("\n", r"\n")
        if len(counts.examples) < _EXAMPLES and len(shown) < 60:
            counts.examples.append(shown)
    if failed or status in UNDECIDED:
        finding = {"form": task.form, "should_be": "correct" if task.correct else "wrong", "status": status}
        finding |= {"answer": task.answer, "gold": task.key.gold, "extra_info": task.key.info}
        findings.write(json.dumps(finding, ensure_ascii=False) + "\n")
        findings.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="*", help="prepared parquet files, or folders of them")
    parser.add_argument("--keys", type=int, help="try only this many keys, drawn with --seed")
    parser.add_argument("--forms", nargs="+", default=[], metavar="NAME", help="only these forms (default: all)")
    parser.add_argument(
        "--out", type=Path, default=Path("rewritten_keys.jsonl"), help="findings (default: %(default)s)"
    )
    parser.add_argument(
        "--max-rejected", type=float, default=1.0, help="percent of correct ones (default: %(default)s)"
    )
    parser.add_argument("--limit-s", type=float, help="stop after this many seconds; the table says so")
    parser.add_argument("--timeout-s", type=float, default=5.0, help="time limit of one answer (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes for symbolic answers (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    unknown = [name for name in options.forms if name not in CORRECT_FORMS and name not in WRONG_FORMS]
    if unknown:
        parser.error(f"--forms {unknown[0]!r}: choose from {', '.join([*CORRECT_FORMS, *WRONG_FORMS])}")
    logging.disable(logging.WARNING)  # undecided answers are in the findings

    keys = (
        read_keys(options.paths)
        if options.paths
        else [Key(text, {"multiple_answers": True} if text.startswith('["') else {}) for text in BUILT_IN]
    )
    random.Random(options.seed).shuffle(keys)
    keys = keys[: options.keys]
    counts: dict[bool, dict[str, Counts]] = {
        True: {name: Counts() for name in CORRECT_FORMS},
        False: {name: Counts() for name in WRONG_FORMS},
    }
    statuses: Counter[str] = Counter()
    started, stopped = time.monotonic(), False
    total = sum(1 for _ in make_tasks(keys, options.forms))
    with (
        options.out.open("w", encoding="utf-8") as findings,
        ThreadPoolExecutor(2 * options.workers) as executor,
        tqdm(total=total, unit=" answers", mininterval=2.0) as progress,
    ):
        tasks = make_tasks(keys, options.forms)
        while batch := list(islice(tasks, _BATCH)):
            for task, status in zip(
                batch, executor.map(lambda task: grade(task, options.timeout_s, options.workers), batch), strict=True
            ):
                record(task, status, counts[task.correct][task.form], findings)
                statuses[status] += 1
            progress.update(len(batch))
            if options.limit_s is not None and time.monotonic() - started > options.limit_s:
                stopped = True
                break
    tried, elapsed_s = sum(statuses.values()), time.monotonic() - started
    print(f"{len(keys)} distinct keys, {tried} answers in {elapsed_s:.0f} s: {dict(statuses)}")
    print(f"paths: {grading_stats()['paths']}")
    rejected = print_table("correct forms", counts[True], "rejected")
    accepted = print_table("wrong forms", counts[False], "accepted")
    if stopped:
        print(f"stopped after {options.limit_s:g} s: {total - tried} answers were not tried")
    print(f"findings: {options.out}")
    close_pools()
    return 1 if accepted.failed or 100 * rejected.failed > options.max_rejected * rejected.tried else 0


if __name__ == "__main__":
    sys.exit(main())
