"""The paper's own scores (arXiv 2606.08815v1, tables 1 and 4), shown beside ours, with their known problems.

``paper_results.csv`` holds them, each with the table of the paper it was read from. They are only shown, and used in no
calculation.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

BASELINE_NOTE = (
    "The paper copies its baseline rows from those methods' own papers, with other data and other answer checkers."
)
AMC_NOTE = "Dr.GRPO's and PACR's AMC column in the paper is on 83 problems, not 40."
BENCHMARK_PROBLEMS = {"AIME24": 30, "AIME25": 30, "AMC23": 40, "MATH-500": 500, "OlympiadBench": 675}
COUNT_NOTE = (
    "Ours is on another number of problems than the benchmark has ("
    + ", ".join(f"{name} {count}" for name, count in BENCHMARK_PROBLEMS.items())
    + "); it is not comparable with the paper's figure."
)
DOUBT_NOTE = (
    "The paper's figures carry some doubt: its text gives lambda_1 = 0 as 48.8 and lambda_1 = 2 as 54.1 where its "
    "table has 47.0 and 52.3, and some three-seed and pass@32 figures are not multiples of 1/30."
)
SOURCE_NOTE = "'paper' is arXiv 2606.08815v1; pass@1 greedy from its table 1, avg@16 and pass@32 from its table 4."


@dataclass(frozen=True)
class PaperFigure:
    """One figure of the paper.

    Attributes:
        base_model, method, benchmark, metric (`str`): as the paper writes them.
        percent (`float`): the figure.
        source (`str`): the paper's table.
        notes (`tuple[str, ...]`): caveats that hold for this figure.
        label (`str`, *optional*, defaults to `"paper"`): what is written before it in a cell.
    """

    base_model: str
    method: str
    benchmark: str
    metric: str
    percent: float
    source: str
    notes: tuple[str, ...]
    label: str = "paper"


@functools.cache
def paper_figures() -> tuple[PaperFigure, ...]:
    """All figures, in the paper's order."""
    text = resources.files("verl_ispo.evaluation").joinpath("paper_results.csv").read_text(encoding="utf-8")
    return tuple(
        PaperFigure(
            row["base_model"],
            row["method"],
            row["benchmark"],
            row["metric"],
            float(row["value"]),
            row["source"],
            _notes(row["method"], row["benchmark"]),
        )
        for row in csv.DictReader(text.splitlines())
    )


def find_figure(
    base_model: str, method: str, benchmark: str, metric: str, reference: Sequence[PaperFigure] = ()
) -> PaperFigure | None:
    """The figure for these names, written however (``aime24`` is ``AIME24``, ``Qwen/X`` is ``X``).

    Figures of ``reference`` come before the paper's.
    """
    wanted = (canonical(base_model), canonical(method), canonical(benchmark), metric)
    for figure in (*reference, *paper_figures()):
        names = (canonical(figure.base_model), canonical(figure.method), canonical(figure.benchmark), figure.metric)
        if names == wanted:
            return figure
    return None


def canonical(name: str) -> str:
    """A name without its organisation, case and punctuation, by which ours and the paper's are compared."""
    return re.sub(r"[^a-z0-9]", "", name.rsplit("/", 1)[-1].lower())


def paper_spelling(name: str, known: Sequence[str]) -> str:
    """The paper's spelling of a name that it has, else the name itself."""
    return next((other for other in known if canonical(other) == canonical(name)), name)


def _notes(method: str, benchmark: str) -> tuple[str, ...]:
    if method == "ISPO":
        return ()
    other_amc = method in ("Dr.GRPO", "PACR") and benchmark == "AMC23"
    return (BASELINE_NOTE, AMC_NOTE) if other_amc else (BASELINE_NOTE,)
