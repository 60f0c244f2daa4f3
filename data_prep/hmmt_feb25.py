"""HMMT (Harvard-MIT Mathematics Tournament) of February 2025, from MathArena (arXiv 2505.23281). Answers are LaTeX."""

from __future__ import annotations

from data_prep.benchmark_set import Benchmark
from data_prep.preparation_command import run_benchmark

BENCHMARK = Benchmark(
    name="hmmt_feb25",
    title="HMMT, February 2025",
    hub_id="MathArena/hmmt_feb_2025",
    expected_count=30,
    hub_split="train",
)

if __name__ == "__main__":
    raise SystemExit(run_benchmark(BENCHMARK))
