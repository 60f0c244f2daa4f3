"""What is shown while a training runs: its log as it grows, or a bar with the score and the time left.

Both are iterators that yield `None`: each step shows what is new since the last one, and closing them ends the display.
"""

from __future__ import annotations

import codecs
import contextlib
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from verl_ispo.runs.metric_log import parse_entry


def show_log(log: Path) -> Iterator[None]:
    """Print a log file as it grows. A screen that is closed, or a file on a full disk, does not end the training."""
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    with log.open("rb") as file:
        while True:
            with contextlib.suppress(OSError):
                sys.stdout.write(decode(file.read()))
                sys.stdout.flush()
            yield


def show_bar(metrics: Path, steps: int, label: str) -> Iterator[None]:
    """Follow verl's metrics file, which need not be there yet; verl prints about two thousand characters per step.

    Args:
        metrics (`Path`): JSON lines.
        steps (`int`): total number of steps.
        label (`str`): shown in front.
    """
    position = 0
    with tqdm(total=steps, desc=f"   {label}: starting (about 20 s)", unit="step", ncols=100) as bar:
        while True:
            if metrics.exists():
                with metrics.open("rb") as file:
                    file.seek(position)
                    for line in file:
                        if not line.endswith(b"\n"):
                            break
                        position += len(line)
                        # a line may be cut off where the disk was full for a while
                        if (entry := parse_entry(line)) is not None:
                            _advance(bar, *entry, label)
            yield


def _advance(bar: tqdm, step: int, metrics: Mapping[str, float], label: str) -> None:
    bar.set_description(f"   {label}")
    score = metrics.get("critic/score/mean", math.nan)
    if math.isfinite(score):
        bar.set_postfix(score=f"{score:.2f}")
    if step > bar.n and bar.n == 0:
        # A resumed run starts in the middle; the rate counts from there.
        bar.initial = step - 1
    bar.n = max(bar.n, step)
    bar.refresh()
