"""The benchmarks that have a module of their own here, by the name of module, file and ``data_source``."""

from __future__ import annotations

PAPER_BENCHMARKS = ("aime24", "aime25", "amc23", "math500", "olympiadbench")
"""The ISPO paper's five: what is validated on and evaluated by default."""
LATER_BENCHMARKS = ("aime26", "hmmt_feb25", "brumo25")
"""Ours: contests that took place after the Qwen2.5 models came out. In no default, and in no average with the five."""
