"""Follows a running training by its metrics file: ``python -m verl_ispo.training_progress --metrics F --pid P``.

verl prints a line of some two thousand characters a step; this shows a bar, the score and the time left instead.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

POLL_INTERVAL_S = 0.5


def process_runs(pid: int) -> bool:
    """Whether the process is there and has not ended (an ended child that nobody waited for does not count)."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rsplit(")", 1)[-1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def follow(metrics_file: Path, pid: int) -> Iterator[dict[str, Any]]:
    """Yield each complete line of a growing JSON-lines file, until the process ends."""
    position = 0
    while True:
        alive = process_runs(pid)
        if metrics_file.exists():
            with metrics_file.open("rb") as file:
                file.seek(position)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    position += len(line)
                    yield json.loads(line)
        if not alive:
            return
        time.sleep(POLL_INTERVAL_S)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Show the progress of a training that writes verl's file log.")
    parser.add_argument("--metrics", type=Path, required=True, help="the file behind VERL_FILE_LOGGER_PATH")
    parser.add_argument("--pid", type=int, required=True, help="the training's process; the bar ends with it")
    parser.add_argument("--steps", type=int, required=True, help="steps in all")
    parser.add_argument("--label", default="training", help="shown in front (default: %(default)s)")
    options = parser.parse_args()

    with tqdm(total=options.steps, desc=f"   {options.label}: starting (about 40 s)", unit="step", ncols=100) as bar:
        for entry in follow(options.metrics, options.pid):
            step, data = int(entry["step"]), entry["data"]
            bar.set_description(f"   {options.label}")
            if "critic/score/mean" in data:
                bar.set_postfix(score=f"{data['critic/score/mean']:.2f}")
            if step > bar.n and bar.n == 0:
                # A resumed run starts in the middle; the rate counts from there.
                bar.initial = step - 1
            bar.n = max(bar.n, step)
            bar.refresh()


if __name__ == "__main__":
    main()
