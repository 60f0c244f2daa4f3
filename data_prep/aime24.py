"""AIME 2024 I and II. The hub copy has worked solutions with the answer in a box; verl's copy repeats each problem."""

from __future__ import annotations

import re
from dataclasses import replace

from data_prep.benchmark_set import Benchmark
from data_prep.preparation_command import run_benchmark
from data_prep.schema import Problem

# AIME I, problem 12, as normalized words around the two graphs. Some answer keys say 384; the answer is 385.
_PROBLEM_12 = re.compile(r"y=4 ?g\(f\(\\sin\(2 ?\\pi x\)\)\).*x=4 ?g\(f\(\\cos\(3 ?\\pi y\)\)\)")


def integer_answer(problem: Problem) -> tuple[Problem, str]:
    """An AIME answer without leading zeros, the form in which it is compared."""
    text = problem.truth.text
    bare = str(int(text)) if re.fullmatch(r"\d{1,3}", text) else text
    note = "Leading zeros of an answer were removed." if bare != text else ""
    return replace(problem, truth=replace(problem.truth, text=bare)), note


def corrected_answer(problem: Problem) -> tuple[Problem, str]:
    """`integer_answer`, with the one known incorrect key corrected (artofproblemsolving.com, 2024 AIME I, 12)."""
    problem, note = integer_answer(problem)
    if problem.truth.text == "384" and _PROBLEM_12.search(problem.normalized):
        corrected = replace(problem, truth=replace(problem.truth, text="385"))
        return corrected, "2024 AIME I problem 12: the published key 384 is wrong and was corrected to 385."
    return problem, note


BENCHMARK = Benchmark(
    name="aime24", title="AIME 2024", hub_id="math-ai/aime24", expected_count=30, adjust=corrected_answer
)

if __name__ == "__main__":
    raise SystemExit(run_benchmark(BENCHMARK))
