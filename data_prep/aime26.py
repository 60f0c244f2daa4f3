"""AIME 2026 I and II, from MathArena (arXiv 2505.23281)."""

from __future__ import annotations

from data_prep.aime24 import integer_answer
from data_prep.benchmark_set import Benchmark
from data_prep.preparation_command import run_benchmark

BENCHMARK = Benchmark(
    name="aime26",
    title="AIME 2026",
    hub_id="MathArena/aime_2026",
    expected_count=30,
    hub_split="train",
    adjust=integer_answer,
)

if __name__ == "__main__":
    raise SystemExit(run_benchmark(BENCHMARK))
