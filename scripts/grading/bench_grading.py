r"""Answers per second: math-verify called directly, verl's own ``math_verify`` scorer, and this package, in one run.

    python scripts/grading/bench_grading.py                      # on answers that the script makes
    python scripts/grading/bench_grading.py --data DIR           # on the answers of DIR/*.jsonl
    python scripts/grading/bench_grading.py --data DIR --skip-verl
    python scripts/grading/bench_grading.py --data DIR --rounds 3 --against ../before   # and another checkout

Each grader gets the same answers in the same order from the same number of threads, in rounds that alternate between
the graders; the table has medians over the rounds. One answer in four is correct and spelled as in the data, one in
four is correct and respelled, two in four are the correct answer to another problem.

Hostile answers (towers of powers, factorials, deep nesting, control characters, and some that run until their time
limit) replace 0 %, 1 % and 10 % of them. math-verify is called in the main thread of its own process, where its time
limit works; where it does not, in a long C call, the answer is given up after five limits, and counted.

With ``--against`` only ordinary answers are graded, by this checkout, by another one (each in its own process) and by
verl's scorer, which take turns in every round. The table has the median time of a single answer, the time of an answer
when all threads grade, the share of answers that need no worker, and how many times as fast as verl's scorer that is.

Otherwise the last lines check two things: ordinary answers are at least five times as fast as with verl's scorer; and
hostile answers cost no more than their own time limit divided by the number of workers.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import multiprocessing
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from checkout_grader import CheckoutGrader, GradedRound, in_threads
from grading_workload import HOSTILE_FIXED, SLOW, plain_answer, respelled

from verl_ispo.grading import close_pools, compute_score, grading_stats

HANG_AFTER_LIMITS = 5
"""math-verify has hung when an answer takes this many of its time limits; it uses up to three on one answer."""

Task = tuple[str, str]
"""(response, ground truth)"""


def read_golds(folder: Path) -> dict[str, list[str]]:
    """Ground truths by file: the columns ``answer`` or ``final_answer`` of every jsonl file."""
    golds: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        answers = [row.get("answer", row.get("final_answer")) for row in rows]
        golds[path.stem] = [str(answer[0] if isinstance(answer, list) else answer) for answer in answers]
    if not golds:
        raise SystemExit(f"{folder} has no *.jsonl file; leave --data out to use answers that the script makes")
    return golds


def make_tasks(golds: list[str], count: int, hostile_share: float, rng: random.Random, slow: bool) -> list[Task]:
    """Responses and their ground truths; ``hostile_share`` of them hostile, and of these half slow, if ``slow``."""
    tasks = []
    for index in range(count):
        gold = golds[index % len(golds)]
        answer = (gold, respelled(rng, gold), rng.choice(golds), rng.choice(golds))[rng.randrange(4)]
        tasks.append((rf"We compute. The answer is \boxed{{{answer}}}.", gold))
    hostile = list(HOSTILE_FIXED)
    for index in rng.sample(range(count), round(count * hostile_share)):
        answer = rng.choice(SLOW) if slow and rng.random() < 0.5 else rng.choice(hostile)
        tasks[index] = (rf"We compute. The answer is \boxed{{{answer}}}.", tasks[index][1])
    return tasks


def _math_verify_child(connection: Connection) -> None:
    """Grade the lists of tasks received, one score at a time; in a process that can be killed when it hangs."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    while True:
        tasks, limit = connection.recv()
        for response, gold in tasks:
            try:
                parsed = parse(rf"\boxed{{{gold}}}", parsing_timeout=limit), parse(response, parsing_timeout=limit)
                score = float(verify(*parsed, timeout_seconds=limit))
            except Exception:  # it raises on some hostile texts; a reward function would score them 0
                score = 0.0
            connection.send(score)


@dataclass
class MathVerifyProcess:
    """The process in which math-verify runs, in its main thread; started again when it hangs."""

    process: SpawnProcess | None = None
    connection: Connection | None = None
    hangs: int = 0

    def grade(self, tasks: list[Task], threads: int, limit_s: float) -> list[float]:
        scores: list[float] = []
        limit = max(1, round(limit_s))
        while len(scores) < len(tasks):
            if self.process is None or self.connection is None:
                context = multiprocessing.get_context("spawn")
                self.connection, theirs = context.Pipe()
                self.process = context.Process(target=_math_verify_child, args=(theirs,), daemon=True)
                self.process.start()
            self.connection.send((tasks[len(scores) :], limit))
            while len(scores) < len(tasks):
                if self.connection.poll(HANG_AFTER_LIMITS * limit + (0 if scores else 60)):
                    scores.append(self.connection.recv())
                    continue
                self.hangs += 1  # three limits for two parses and a comparison have passed, and more
                scores.append(0.0)
                self.process.kill()
                self.process = None
                break
        return scores


def grade_with_verl(tasks: list[Task], threads: int, limit_s: float) -> list[float]:
    """verl's scorer, called from threads as its reward manager does."""
    from verl.utils.reward_score import math_verify as scorer

    def one(task: Task) -> float:
        with contextlib.suppress(UnicodeEncodeError):
            return scorer.compute_score(task[0], task[1], timeout=limit_s)
        return 0.0

    with contextlib.redirect_stdout(io.StringIO()), ThreadPoolExecutor(threads) as executor:
        return list(executor.map(one, tasks))


def grade_with_ours(tasks: list[Task], threads: int, limit_s: float) -> list[float]:
    def one(task: Task) -> float:
        return compute_score("bench", *task, timeout_s=limit_s)["score"]

    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(one, tasks))


def time_of(grade: Callable[..., list[float]], tasks: list[Task], options: argparse.Namespace) -> tuple[float, float]:
    """Seconds for all tasks, and their mean score."""
    started = time.perf_counter()
    scores = grade(tasks, options.threads, options.timeout_s)
    return time.perf_counter() - started, statistics.fmean(scores)


def print_row(name: str, count: int, seconds: list[float], score: float) -> None:
    median = statistics.median(seconds)
    spread = (max(seconds) - min(seconds)) / median * 100
    print(f"{name:<28}{count:>8}{count / median:>14.0f}{median / count * 1e6:>14.0f}{spread:>9.0f} %{score:>10.3f}")


def compare_checkouts(golds: list[str], options: argparse.Namespace, rng: random.Random) -> int:
    """This checkout and another one in turns; 1 if this one is slower by a quarter, or its exact share is lower."""
    here = Path(__file__).resolve().parents[2]
    graders = {"this checkout": CheckoutGrader(here), str(options.against): CheckoutGrader(options.against)}
    rounds: dict[str, list[GradedRound]] = {name: [] for name in graders}
    verl_s: list[float] = []
    together = in_threads(options.answers)
    warm_up = make_tasks(golds, 60, 0.0, random.Random(1), slow=False)
    for grader in graders.values():
        grader.grade(warm_up, options.threads, 60.0)
    if not options.skip_verl:
        grade_with_verl(warm_up, options.threads, 60.0)
    for index in range(options.rounds):
        tasks = make_tasks(golds[index * 97 :], options.answers, 0.0, rng, slow=True)
        # the order turns over, so that neither is always the first
        for name in (list(graders), list(reversed(graders)))[index % 2]:
            print(f"\r  round {index + 1}: {name} ...", end="", file=sys.stderr, flush=True)
            rounds[name].append(graders[name].grade(tasks, options.threads, options.timeout_s))
        if not options.skip_verl:
            verl_s.append(time_of(grade_with_verl, tasks[:together], options)[0])
    print(file=sys.stderr)
    for grader in graders.values():
        grader.close()
    print(f"{options.rounds} rounds of {options.answers} answers, {options.threads} threads, {options.workers} workers")
    print(f"\n{'grader':<28}{'median us':>11}{'us, threads':>13}{'exact':>9}{'score':>8}{'x verl':>9}")
    for name, graded in rounds.items():
        single = statistics.median(seconds for one in graded for seconds in one.seconds_each)
        threaded = statistics.median(one.seconds_together for one in graded) / together
        exact = statistics.fmean(one.exact_share for one in graded)
        score = statistics.fmean(score for one in graded for score in one.scores)
        line = f"{name[-27:]:<28}{single * 1e6:>11.0f}{threaded * 1e6:>13.0f}{exact:>9.1%}{score:>8.3f}"
        ratios = [verl / one.seconds_together for verl, one in zip(verl_s, graded, strict=False)]
        print(line + (f"{statistics.median(ratios):>9.1f}" if ratios else f"{'not run':>9}"))
    ours, theirs = rounds.values()
    pairs = list(zip(ours, theirs, strict=True))
    slower = statistics.median(one.seconds_together / other.seconds_together for one, other in pairs)
    gained = statistics.fmean(one.exact_share - other.exact_share for one, other in pairs)
    differ = sum(a != b for one, other in pairs for a, b in zip(one.scores, other.scores, strict=True))
    print(f"\nthis checkout takes {slower:.2f} times as long (median over rounds), {gained:+.1%} on the exact path")
    print(f"{differ} of {options.rounds * options.answers} verdicts differ")
    end_processes()
    return 1 if slower > 1.25 or gained < -0.001 else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of *.jsonl files with an answer or final_answer column")
    parser.add_argument("--only", nargs="*", help="names of files to use, without .jsonl (default: all)")
    parser.add_argument("--answers", type=int, default=600, help="answers per round (default: 600)")
    parser.add_argument("--hostile-answers", type=int, default=200, help="answers in the hostile rounds (default: 200)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds on ordinary answers (default: 5)")
    parser.add_argument("--hostile-rounds", type=int, default=1, help="rounds with hostile answers (default: 1)")
    parser.add_argument("--threads", type=int, default=8, help="threads that grade at once (default: 8)")
    parser.add_argument("--timeout-s", type=float, default=2.0, help="time limit of one answer (default: 2)")
    parser.add_argument("--workers", type=int, default=2, help="workers of this package (default: 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="compare with another checkout instead")
    parser.add_argument("--skip-verl", action="store_true", help="leave verl's scorer out")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # verl's imports warn once per process
    os.environ.setdefault("VERL_LOGGING_LEVEL", "ERROR")
    warnings.simplefilter("ignore")
    os.environ["VERL_ISPO_GRADING_WORKERS"] = str(options.workers)
    rng = random.Random(options.seed)
    if options.data:
        by_file = read_golds(options.data)
        chosen = {name: golds for name, golds in by_file.items() if not options.only or name in options.only}
        golds = [gold for file_golds in chosen.values() for gold in file_golds]
        print(f"answers of {', '.join(f'{name} ({len(file_golds)})' for name, file_golds in chosen.items())}")
    else:
        golds = [plain_answer(rng) for _ in range(2_000)]
        print("answers that the script made")
    rng.shuffle(golds)
    if options.against:
        return compare_checkouts(golds, options, rng)
    direct = MathVerifyProcess()
    graders = {"math-verify, directly": direct.grade}
    if not options.skip_verl:
        graders["verl's math_verify scorer"] = grade_with_verl
    graders["verl_ispo.grading"] = grade_with_ours
    for grade in graders.values():  # imports and process starts are not what is measured
        grade(make_tasks(golds, 60, 0.0, random.Random(1), slow=False), options.threads, 60.0)

    print(f"{options.threads} threads, time limit {options.timeout_s:g} s, {options.workers} workers here, 4 in verl's")
    print(f"\n{'grader':<28}{'answers':>8}{'answers/s':>14}{'us/answer':>14}{'spread':>11}{'score':>10}")
    print("0 % hostile")
    seconds: dict[str, list[float]] = {name: [] for name in graders}
    scores = dict.fromkeys(graders, 0.0)
    for round_index in range(options.rounds):
        tasks = make_tasks(golds[round_index * 97 :], options.answers, 0.0, rng, slow=True)
        for name, grade in graders.items():
            print(f"\r  round {round_index + 1}: {name} ...", end="", file=sys.stderr, flush=True)
            elapsed_s, scores[name] = time_of(grade, tasks, options)
            seconds[name].append(elapsed_s)
    print(file=sys.stderr)
    for name in graders:
        print_row(name, options.answers, seconds[name], scores[name])
    ordinary_s = statistics.median(seconds["verl_ispo.grading"]) / options.answers

    costs_hold = True
    for share in (0.01, 0.1):
        print(f"{share:.0%} hostile")
        for name, grade in graders.items():
            elapsed: list[float] = []
            score = 0.0
            timeouts = grading_stats()["statuses"]["timeout"]
            for round_index in range(options.hostile_rounds):
                tasks = make_tasks(golds, options.hostile_answers, share, random.Random(round_index), slow=True)
                print(
                    f"\r  {share:.0%} hostile, round {round_index + 1}: {name} ...", end="", file=sys.stderr, flush=True
                )
                elapsed_s, score = time_of(grade, tasks, options)
                elapsed.append(elapsed_s)
            print_row(name, options.hostile_answers, elapsed, score)
            if direct.hangs:
                print(f"    {direct.hangs} answers on which its time limit did not fire")
                direct.hangs = 0
            if grade is grade_with_ours:
                count = round(options.hostile_answers * share)
                hit = (grading_stats()["statuses"]["timeout"] - timeouts) / options.hostile_rounds
                extra_s = statistics.median(elapsed) - ordinary_s * options.hostile_answers
                allowed_s = count * options.timeout_s / options.workers
                costs_hold &= extra_s <= allowed_s
                print(
                    f"    {count} hostile answers, {hit:.0f} of them ended by the time limit: {extra_s:.2f} s more, "
                    f"{allowed_s:.2f} s allowed ({count} x {options.timeout_s:g} s / {options.workers} workers)"
                )
    print(file=sys.stderr)
    if "verl's math_verify scorer" in seconds:
        pairs = zip(seconds["verl's math_verify scorer"], seconds["verl_ispo.grading"], strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        print(f"\nordinary answers, ours beside verl's scorer: {ratio:.1f} times as fast (at least 5 required)")
        costs_hold &= ratio >= 5
    print(f"paths: {grading_stats()['paths']}")
    sys.stdout.flush()
    end_processes()
    return 0 if costs_hold else 1


def end_processes() -> None:
    """Kill the processes that hang in the pool of verl's scorer; the interpreter would wait for them forever."""
    close_pools()
    for child in multiprocessing.active_children():
        child.kill()


if __name__ == "__main__":
    sys.exit(main())
