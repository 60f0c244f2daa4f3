"""BRUMO 2025 (Brown University Math Olympiad), from MathArena (arXiv 2505.23281). Answers are LaTeX."""

from __future__ import annotations

from data_prep.benchmark_set import Benchmark
from data_prep.preparation_command import run_benchmark

BENCHMARK = Benchmark(
    name="brumo25", title="BRUMO 2025", hub_id="MathArena/brumo_2025", expected_count=30, hub_split="train"
)

if __name__ == "__main__":
    raise SystemExit(run_benchmark(BENCHMARK))
