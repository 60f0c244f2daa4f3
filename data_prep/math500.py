"""MATH-500: the 500 test problems of MATH chosen by Lightman et al. (arXiv 2305.20050)."""

from __future__ import annotations

from data_prep.benchmark_set import Benchmark
from data_prep.preparation_command import run_benchmark

BENCHMARK = Benchmark(name="math500", title="MATH-500", hub_id="HuggingFaceH4/MATH-500", expected_count=500)

if __name__ == "__main__":
    raise SystemExit(run_benchmark(BENCHMARK))
