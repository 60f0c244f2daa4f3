"""What one evaluation found, for people (text) and programs (``summary.json``)."""

from __future__ import annotations

import dataclasses
from typing import Any

from verl_ispo.evaluation.metrics import Metric, problem_scores
from verl_ispo.evaluation.results import EvaluationResult
from verl_ispo.evaluation.statistics import mean_interval


def summarise(result: EvaluationResult) -> dict[str, Any]:
    """Scores with intervals, problem counts and how the samples ended, for each benchmark."""
    drawn = int(result.manifest["options"]["n"])
    metrics = [Metric("greedy", 1)]
    if drawn:
        metrics += [Metric("avg", drawn), Metric("maj", drawn), Metric("pass", drawn)]
    summary: dict[str, Any] = {}
    for name, benchmark in result.benchmarks.items():
        scores: dict[str, Any] = {}
        for metric in metrics:
            values = problem_scores(benchmark, metric)
            if isinstance(values, str):
                scores[metric.name] = {"score": None, "reason": values}
                continue
            interval = mean_interval(values)
            scores[metric.name] = {
                "score": float(values.mean()),
                "interval_95": None if interval is None else [interval.low, interval.high],
                "interval_method": None if interval is None else interval.method,
            }
        summary[name] = {
            "problems": len(benchmark.problems),
            "scores": scores,
            "samples": dataclasses.asdict(benchmark.counts),
        }
    return summary


def format_summary(summary: dict[str, Any]) -> str:
    """The summary as lines of text."""
    lines = []
    for name, benchmark in summary.items():
        parts = []
        for metric, entry in benchmark["scores"].items():
            if entry["score"] is None:
                parts.append(f"{metric} {entry['reason']}")
                continue
            interval = entry["interval_95"]
            shown = "no interval" if interval is None else f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
            parts.append(f"{metric} {100 * entry['score']:.1f} {shown}")
        counts = benchmark["samples"]
        lines.append(f"{name}, n = {benchmark['problems']} problems: " + "; ".join(parts))
        ends = [
            f"{counts[key]} {words}"
            for key, words in (
                ("truncated", "truncated"),
                ("prompt_too_long", "not sampled (prompt too long)"),
                ("no_answer", "without an answer"),
                ("undecided", "not decided by the grader"),
            )
            if counts[key] or key == "truncated"
        ]
        lines.append(f"    of {counts['samples']} responses: {', '.join(ends)}")
    return "\n".join(lines)
