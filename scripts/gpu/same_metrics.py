#!/usr/bin/env python3
"""A run logs the metrics that the same run logs on the CPU; exit status 1 if one is missing or not a number.

    python scripts/gpu/same_metrics.py runs/gpu/metrics/256/ispo-separate

The names in scripts/gpu/metric_names.txt are from two steps of ISPO on the CPU, with
scripts/gpu/bench_step.sh and a small random model; a test checks them. Metrics that only this run has are listed.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from verl_ispo.command_line import run_command
from verl_ispo.runs.metric_log import read_metric_log

NAMES = Path(__file__).parent / "metric_names.txt"


def compare_names(run: Path, names: Path) -> int:
    """Print how a run's metrics differ from the listed ones; returns 1 if one is missing or not a number.

    Raises:
        UserError: nothing to read in ``run``.
    """
    log = read_metric_log(run)
    expected, found = names.read_text(encoding="utf-8").split(), log.names()
    missing = sorted(set(expected) - set(found))
    strange = [name for name in found if any(not math.isfinite(step.get(name, 0.0)) for step in log.steps.values())]
    for name in missing:
        print(f"missing: {name}")
    for name in strange:
        print(f"not a finite number: {name}")
    for name in sorted(set(found) - set(expected)):
        print(f"only here: {name}")
    print(f"{len(found)} metrics in {len(log.steps)} step(s); {len(missing)} of the CPU's {len(expected)} missing")
    return 1 if missing or strange else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run, or one of verl's metrics .jsonl files")
    parser.add_argument("--names", type=Path, default=NAMES, help="one metric per line (default: %(default)s)")
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: compare_names(options.run, options.names))


if __name__ == "__main__":
    sys.exit(main())
