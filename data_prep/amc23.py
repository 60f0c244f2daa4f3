"""The 40 problems of AMC 12, 2023, whose answer is a number. Answers are published as floats: 27.0 for 27."""

from __future__ import annotations

import re
from dataclasses import replace

from data_prep.benchmark_set import Benchmark
from data_prep.preparation_command import run_benchmark
from data_prep.schema import Problem


def without_empty_decimals(problem: Problem) -> tuple[Problem, str]:
    """An answer such as 27.0 as 27."""
    text = problem.truth.text
    if not re.fullmatch(r"-?\d+\.0+", text):
        return problem, ""
    truth = replace(problem.truth, text=text.partition(".")[0], answer_type="integer")
    return replace(problem, truth=truth), "An answer such as 27.0 is written as 27."


BENCHMARK = Benchmark(
    name="amc23", title="AMC 2023", hub_id="math-ai/amc23", expected_count=40, adjust=without_empty_decimals
)

if __name__ == "__main__":
    raise SystemExit(run_benchmark(BENCHMARK))
