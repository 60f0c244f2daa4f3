"""AIME 2025 I and II."""

from __future__ import annotations

from data_prep.aime24 import integer_answer
from data_prep.benchmark_set import Benchmark
from data_prep.preparation_command import run_benchmark

BENCHMARK = Benchmark(
    name="aime25", title="AIME 2025", hub_id="math-ai/aime25", expected_count=30, adjust=integer_answer
)

if __name__ == "__main__":
    raise SystemExit(run_benchmark(BENCHMARK))
