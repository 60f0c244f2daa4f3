r"""Grade many generated answers (plain, made wrong, broken, hostile); report what was accepted, hung, raised or leaked.

    python scripts/grading/fuzz_grading.py --answers 100000 --seed 0
    python scripts/grading/fuzz_grading.py --answers 20000 --only wrong   # answers that are made to be wrong

Progress goes to stderr. The exit code is 1 if an answer that was made to be wrong (``wrong_answers.py``) was accepted,
if one raised, took longer than its limits allow or gave a result that verl cannot use, or if memory grew by more than
``--max-growth-mb`` after the first fifth of the run.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
from grading_workload import broken_answer, hostile_answer, plain_answer, respelled, response
from tqdm import tqdm
from wrong_answers import wrong_answer

from verl_ispo.grading import close_pools, compute_score, grading_stats

KINDS = {"same": 25, "plain": 18, "wrong": 25, "broken": 20, "hostile": 12}
"""Kinds of answers, and how many of a hundred are of each."""

STATUSES = {"correct", "wrong", "no_answer", "timeout", "error"}


@dataclass
class Findings:
    """The findings so far; guarded by ``lock``."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    done: int = 0
    longest_s: float = 0.0
    longest_answer: str = ""
    problems: list[str] = field(default_factory=list)
    accepted: dict[str, list[str]] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)


def resident_mib(processes: Iterable[psutil.Process]) -> float:
    """Resident memory of all processes together in MiB; an ended process has none."""
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total / 2**20


@dataclass(frozen=True)
class Task:
    """One answer; ``made`` says how a wrong one was made."""

    kind: str
    made: str
    response: str
    gold: str
    info: dict[str, object]


def make_task(rng: random.Random, kind: str) -> Task:
    """One answer of a kind."""
    if kind == "wrong":
        made, answer, gold = wrong_answer(rng)
        # no answer before it, and none that is cut off: another answer could be the correct one
        text = rf"We see that $\boxed{{{answer}}}$." if rng.random() < 0.9 else f"We see it.\nAnswer: {answer}"
        return Task(kind, made, text, gold, {})
    gold = plain_answer(rng)
    answer = {
        "same": lambda: respelled(rng, gold),
        "plain": lambda: plain_answer(rng),
        "broken": lambda: broken_answer(rng),
        "hostile": lambda: hostile_answer(rng),
    }[kind]()
    if rng.random() < 0.02:
        gold = broken_answer(rng)
    info: dict[str, object] = {}
    if rng.random() < 0.1:
        info = {"tolerance": rng.choice(("", "1e-1", "0.5")), "unit": rng.choice(("", "cm", "%", r"^{\circ}"))}
        info["multiple_answers"] = rng.random() < 0.5
    return Task(kind, "", response(rng, answer), gold, info)


def shape_problem(result: object) -> str | None:
    """Why a result is not what ``compute_score`` promises, or ``None``."""
    if not isinstance(result, dict) or set(result) != {"score", "acc", "pred", "status"}:
        return "keys"
    if result["status"] not in STATUSES or result["score"] not in (0.0, 1.0):
        return "values"
    if result["acc"] is not (result["score"] == 1.0) or (result["status"] == "correct") is not result["acc"]:
        return "score, acc and status disagree"
    try:
        json.dumps(result).encode("utf-8")
        result["pred"].encode("utf-8")
    except (TypeError, UnicodeEncodeError):
        return "pred cannot be written"
    return None


def grade_one(task: Task, limit_s: float, findings: Findings) -> None:
    started = time.monotonic()
    problem, accepted = None, False
    try:
        result = compute_score("fuzz", task.response, task.gold, task.info, timeout_s=limit_s)
        problem = shape_problem(result)
        accepted = task.kind == "wrong" and bool(result["acc"])
    except Exception as error:  # nothing may be raised, so everything is a finding
        problem = f"raised {type(error).__name__}: {error}"
    elapsed_s = time.monotonic() - started
    with findings.lock:
        findings.done += 1
        findings.kinds[task.kind] += 1
        if elapsed_s > findings.longest_s:
            findings.longest_s, findings.longest_answer = elapsed_s, task.response[-120:]
        if problem is not None:
            findings.problems.append(f"{problem}: answer {task.response[-200:]!r}, gold {task.gold!r}")
        if accepted:
            findings.accepted.setdefault(task.made, []).append(f"{task.response[-120:]!r} for {task.gold!r}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=100_000, help="how many answers to grade (default: 100000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated answers (default: 0)")
    parser.add_argument("--threads", type=int, default=4, help="threads that grade at once (default: 4)")
    parser.add_argument("--timeout-s", type=float, default=1.0, help="time limit of one answer in seconds (default: 1)")
    parser.add_argument("--max-growth-mb", type=float, default=100.0, help="memory growth that fails (default: 100)")
    parser.add_argument("--only", nargs="+", choices=KINDS, help="only these kinds of answers (default: all)")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    findings = Findings()
    memory: list[tuple[int, float, float]] = []
    started = time.monotonic()
    batch = 500
    this_process = psutil.Process()
    others = set(this_process.children(recursive=True))
    with ThreadPoolExecutor(options.threads) as executor, tqdm(total=options.answers, unit=" answers") as progress:
        while findings.done < options.answers:
            kinds = options.only or list(KINDS)
            drawn = rng.choices(kinds, [KINDS[kind] for kind in kinds], k=min(batch, options.answers - findings.done))
            tasks = [make_task(rng, kind) for kind in drawn]
            list(executor.map(lambda task: grade_one(task, options.timeout_s, findings), tasks))
            here, workers = resident_mib([this_process]), resident_mib(this_process.children(recursive=True))
            memory.append((findings.done, here, workers))
            progress.set_postfix_str(f"{here:.0f} MiB here and {workers:.0f} MiB in workers", refresh=False)
            progress.update(len(tasks))
    elapsed_s = time.monotonic() - started
    stats = grading_stats()
    settled = memory[len(memory) // 5]
    growth_mb = memory[-1][1] - settled[1]
    # each thread may wait for the threads before it, each of which takes at most one time limit and its grace period
    allowed_s = (options.timeout_s + 3.0) * options.threads + 30.0
    print(f"answers            {findings.done} (seed {options.seed}): {dict(findings.kinds)}")
    print(f"answers per second {findings.done / elapsed_s:.0f} over {elapsed_s:.0f} s")
    print(f"statuses           {stats['statuses']}")
    print(f"paths              {stats['paths']}")
    print(f"workers            {stats['workers']}")
    print(f"longest            {findings.longest_s:.2f} s (hang above {allowed_s:.0f} s): {findings.longest_answer!r}")
    print(f"memory here        {settled[1]:.0f} MiB at {settled[0]} answers, {memory[-1][1]:.0f} MiB at the end")
    print(f"memory in workers  {settled[2]:.0f} MiB at {settled[0]} answers, {memory[-1][2]:.0f} MiB at the end")
    print(f"exceptions         {len(findings.problems)}")
    for problem in findings.problems[:20]:
        print("  " + problem)
    accepted = sum(map(len, findings.accepted.values()))
    print(f"wrong ones accepted {accepted}")
    for made, examples in sorted(findings.accepted.items(), key=lambda item: -len(item[1])):
        print(f"  {made}: {len(examples)}, such as")
        for example in examples[:3]:
            print(f"    {example}")
    close_pools()
    left = set(this_process.children(recursive=True)) - others
    print(f"processes left     {len(left)}")
    failed = (
        bool(findings.problems or findings.accepted or left)
        or findings.longest_s > allowed_s
        or growth_mb > options.max_growth_mb
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
