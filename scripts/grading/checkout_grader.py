r"""The grader of a checkout of this repository, in a process of its own, so that two checkouts run side by side.

:class:`CheckoutGrader` is the caller's end; ``python scripts/grading/checkout_grader.py`` is the process, which imports
``verl_ispo`` from the checkout that stands first in ``PYTHONPATH`` and answers one line of JSON per line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class GradedRound:
    """What one checkout made of the answers of a round.

    Attributes:
        scores (`list[float]`): one per answer.
        seconds_together (`float`): of the first two thirds of the answers, graded from several threads.
        seconds_each (`list[float]`): of each of the others, graded one after the other.
        exact_share (`float`): share of the answers that needed no worker.
    """

    scores: list[float]
    seconds_together: float
    seconds_each: list[float]
    exact_share: float


def in_threads(answers: int) -> int:
    """How many answers of a round are graded from several threads: others than the rest, so that no cache helps."""
    return answers * 2 // 3


class CheckoutGrader:
    """A process that grades with the ``verl_ispo`` of a checkout.

    Args:
        checkout (`Path`): folder that holds ``verl_ispo``; its packages are those of this interpreter.

    Raises:
        SystemExit: if there is no grader in that folder.
    """

    def __init__(self, checkout: Path) -> None:
        if not (checkout / "verl_ispo" / "grading").is_dir():
            raise SystemExit(f"{checkout}: no checkout of this repository (it has no verl_ispo/grading)")
        environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=checkout,
            text=True,
        )
        loaded = Path(self._read()["loaded"])
        if checkout.resolve() not in loaded.parents:
            raise SystemExit(f"{checkout}: Python found {loaded} instead; run this in another environment")

    def grade(self, tasks: list[tuple[str, str]], threads: int, limit_s: float) -> GradedRound:
        """Grade tasks, each ``(response, ground truth)``: the first :func:`in_threads` from several threads at once."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"tasks": tasks, "threads": threads, "limit_s": limit_s}) + "\n")
        self._process.stdin.flush()
        return GradedRound(**self._read())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process that grades has ended ({self._process.wait()}); its error is above")
        return json.loads(line)


def main() -> int:
    import verl_ispo
    from verl_ispo.grading import close_pools, compute_score, grading_stats

    print(json.dumps({"loaded": verl_ispo.__file__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)

        def one(task: tuple[str, str], limit_s: float = request["limit_s"]) -> float:
            return compute_score("bench", *task, timeout_s=limit_s)["score"]

        before = grading_stats()
        tasks, count = request["tasks"], in_threads(len(request["tasks"]))
        started = time.perf_counter()
        with ThreadPoolExecutor(request["threads"]) as executor:
            scores = list(executor.map(one, tasks[:count]))
        seconds_together = time.perf_counter() - started
        seconds_each = []
        for task in tasks[count:]:
            started = time.perf_counter()
            scores.append(one(task))
            seconds_each.append(time.perf_counter() - started)
        after = grading_stats()
        exact, all_answers = (
            sum(after["paths"][path] - before["paths"][path] for path in paths)
            for paths in (("exact", "no_answer"), after["paths"])
        )
        graded = GradedRound(scores, seconds_together, seconds_each, exact / max(1, all_answers))
        print(json.dumps(vars(graded)), flush=True)
    close_pools()
    return 0


if __name__ == "__main__":
    sys.exit(main())
