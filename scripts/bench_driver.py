#!/usr/bin/env python3
"""Seconds that ISPO adds to the driver per step, part by part: verl's real TransferQueue and trainer hooks, no model.

    python scripts/bench_driver.py                                   # 512 x 8 rollouts of 1024, 4096 and 8192 tokens
    python scripts/bench_driver.py --tokens 4096 --answered 0 0.5 1  # other sizes; answered shares from none to all
    python scripts/bench_driver.py --prompts 64 --tokens 512 --repeats 1                    # a quick look, 1 minute
    python scripts/bench_driver.py --against ../before --rounds 3    # this checkout and another, taking turns
    python scripts/bench_driver.py --tokenizer DIR --csv driver.csv  # a real tokenizer; --json FILE for everything

A step is what the trainer does between the end of the rollouts and the update, with stand-ins for its workers: they put
random log-probs into the queue. Responses have 25 to 100 % of the full length, in the tokens of a made-up tokenizer of
Qwen2.5's size. Time belongs to the innermost part; what verl does without ISPO, and the stand-ins, are counted apart.

How to read the table: `wall` is what a step waits, `cpu` is the driver's own work in all its threads; on a machine that
does other things, trust `cpu` and the ratios of checkouts that took turns. `first` is a process's first step, which
decodes the vocabulary once. `extra` is the growth of the process's memory at the peak of ISPO's parts, what it fetches
included; `inputs` is the size of what it reads. The last lines say whether the checkouts gave the same advantages,
scores and metrics, bit for bit, and how the seconds grow with rollouts and tokens.

Each checkout runs in a fresh process per round, so memory is its own. The full run needs 8 GB and, on two idle cores,
about 4 minutes per round and checkout.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
PROCESS = Path(__file__).resolve().parent / "driver" / "measure_step.py"
VERL = "verl's own"

Steps = list[dict[str, Any]]


def measure(checkout: Path, request: dict[str, Any]) -> Steps:
    """The steps of a request, run by the code of a checkout.

    Raises:
        SystemExit: that is no checkout, or its process failed.
    """
    if not (checkout / "verl_ispo" / "trainer").is_dir():
        raise SystemExit(f"{checkout}: no checkout of this repository (it has no verl_ispo/trainer)")
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout.resolve()),
        "OMP_NUM_THREADS": str(request["threads"]),
        "TOKENIZERS_PARALLELISM": "false",
        "VERL_LOGGING_LEVEL": "ERROR",
    }
    with tempfile.TemporaryDirectory() as folder:
        request_path, result_path = Path(folder) / "request.json", Path(folder) / "result.json"
        request_path.write_text(json.dumps(request))
        log_path = Path(folder) / "log.txt"
        with log_path.open("w") as log:
            command = [sys.executable, str(PROCESS), str(request_path), str(result_path)]
            process = subprocess.Popen(
                command, cwd=checkout, env=environment, stdout=log, stderr=subprocess.PIPE, text=True
            )
            assert process.stderr is not None
            for line in process.stderr:
                log.write(line)
                if line.startswith("  "):
                    print(line, end="", file=sys.stderr, flush=True)
        if process.wait() or not result_path.exists():
            tail = "\n".join(log_path.read_text().splitlines()[-15:])
            raise SystemExit(f"the process that measures {checkout} ended with status {process.returncode}:\n{tail}")
        result = json.loads(result_path.read_text())
    if checkout.resolve() not in Path(result["loaded"]).parents:
        raise SystemExit(f"{checkout}: Python found {result['loaded']} instead; run this in another environment")
    return result["steps"]


def medians(steps: Steps, clock: str) -> dict[str, float]:
    """The median of each part's seconds, and of their sum without verl's own."""
    parts = {part: statistics.median(step[clock][part] for step in steps) for part in steps[0][clock]}
    ours = [sum(seconds for part, seconds in step[clock].items() if part != VERL) for step in steps]
    return {**parts, "ISPO together": statistics.median(ours)}


def print_size(name: str, by_checkout: dict[str, Steps]) -> None:
    """The table of one size: a row per part, and for each checkout wall and CPU seconds."""
    later = {checkout: [step for step in steps if not step["first"]] for checkout, steps in by_checkout.items()}
    print(f"\n{name}")
    print(f"{'seconds per step, medians':30s}" + "".join(f"{checkout + ' wall':>14s}{'cpu':>8s}" for checkout in later))
    wall = {checkout: medians(steps, "wall_s") for checkout, steps in later.items()}
    cpu = {checkout: medians(steps, "cpu_s") for checkout, steps in later.items()}
    for part in next(iter(wall.values())):
        print(f"{part:30s}" + "".join(f"{wall[one][part]:14.2f}{cpu[one][part]:8.2f}" for one in later))
    first = {
        one: [sum(s for part, s in step["cpu_s"].items() if part != VERL) for step in steps if step["first"]]
        for one, steps in by_checkout.items()
    }
    print(f"{'first step together':30s}" + "".join(f"{'':14s}{statistics.median(first[one]):8.2f}" for one in later))
    for key, label in (("extra_mib", "extra memory, MiB"), ("inputs_mib", "inputs, MiB")):
        print(f"{label:30s}" + "".join(f"{max(step[key] for step in steps):14.0f}{'':8s}" for steps in later.values()))
    if len(later) == 2:
        (new, old), together = later, "ISPO together"
        digests = {step["digest"] for steps in by_checkout.values() for step in steps}
        print(
            f"{old} / {new}: {wall[old][together] / wall[new][together]:.1f} in wall time, "
            f"{cpu[old][together] / cpu[new][together]:.1f} in CPU time; results "
            + ("bitwise the same" if len(digests) == 1 else f"DIFFER: {sorted(digests)}")
        )


def print_growth(sizes: list[dict[str, Any]], steps: Steps) -> None:
    """How the CPU seconds of neighbouring sizes grow: 1 is in proportion, 0 not at all."""
    for before, after in pairwise(sizes):
        changed = [key for key in ("rollouts", "tokens", "answered") if before[key] != after[key]]
        if len(changed) != 1 or changed == ["answered"]:
            continue
        seconds = [medians(of_size(steps, size), "cpu_s")["ISPO together"] for size in (before, after)]
        key = changed[0]
        power = math.log(seconds[1] / seconds[0]) / math.log(after[key] / before[key])
        print(f"from {before[key]} to {after[key]} {key}: {seconds[0]:.2f} to {seconds[1]:.2f} s, power {power:.2f}")


def of_size(steps: Steps, size: dict[str, Any], first: bool = False) -> Steps:
    """The steps of one size, its process's first ones only where asked."""
    return [step for step in steps if all(step[key] == size[key] for key in size) and (first or not step["first"])]


def write_csv(path: Path, by_checkout: dict[str, Steps]) -> None:
    """One line per step, checkout and part."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["checkout", "rollouts", "tokens", "answered", "first", "part", "wall_s", "cpu_s"])
        for checkout, steps in by_checkout.items():
            for step in steps:
                size = [step[key] for key in ("rollouts", "tokens", "answered", "first")]
                for part, seconds in step["wall_s"].items():
                    writer.writerow([checkout, *size, part, f"{seconds:.4f}", f"{step['cpu_s'][part]:.4f}"])


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, nargs="+", default=[512], help="prompts per step (default: 512)")
    parser.add_argument("--group", type=int, default=8, help="rollouts per prompt (default: 8)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096, 8192], help="longest response")
    parser.add_argument("--answered", type=float, nargs="+", default=[0.7], help="share with an answer (default: 0.7)")
    parser.add_argument("--repeats", type=int, default=2, help="steps per size behind the first (default: 2)")
    parser.add_argument("--rounds", type=int, default=1, help="fresh processes per checkout (default: 1)")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout, measured in turns")
    parser.add_argument("--tokenizer", metavar="DIR", help="a Hugging Face tokenizer (default: a made-up one)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every step")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every step and part")
    options = parser.parse_args()
    sizes = [
        {"rollouts": prompts * options.group, "tokens": tokens, "answered": answered}
        for prompts in options.prompts
        for tokens in options.tokens
        for answered in options.answered
    ]
    request = {
        **{name: getattr(options, name) for name in ("threads", "group", "seed", "repeats")},
        "tokenizer": None if options.tokenizer is None else str(Path(options.tokenizer).resolve()),
        "sizes": sizes,
    }
    checkouts = {"this": HERE} if options.against is None else {"this": HERE, "other": options.against}
    by_checkout: dict[str, Steps] = {name: [] for name in checkouts}
    for number in range(options.rounds):
        # the one before goes first, so that a round that is cut off still has something to compare with
        for name, checkout in reversed(checkouts.items()):
            print(f"round {number + 1} of {options.rounds}, {name}: {checkout} ...", file=sys.stderr, flush=True)
            by_checkout[name] += measure(checkout, request)
    print(f"{options.threads} threads, {options.rounds} rounds of {options.repeats} steps behind the first")
    for size in sizes:
        name = f"{size['rollouts']} rollouts x {size['tokens']} tokens, {size['answered']:.0%} answered"
        print_size(name, {one: of_size(steps, size, first=True) for one, steps in by_checkout.items()})
    print()
    print_growth(sizes, by_checkout["this"])
    if options.json:
        options.json.write_text(json.dumps(by_checkout, indent=1))
    if options.csv:
        write_csv(options.csv, by_checkout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
