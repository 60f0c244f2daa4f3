"""What one evaluation found, for people (text) and programs (``summary.json``)."""

from __future__ import annotations

import dataclasses
from typing import Any

from verl_ispo.evaluation.calibration import interval
from verl_ispo.evaluation.calibration_scores import benchmark_calibration, has_log_probs
from verl_ispo.evaluation.metrics import CALIBRATION, Metric, problem_scores
from verl_ispo.evaluation.results import BenchmarkResult, EvaluationResult
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
            between = mean_interval(values)
            scores[metric.name] = {
                "score": float(values.mean()),
                "interval_95": None if between is None else [between.low, between.high],
                "interval_method": None if between is None else between.method,
            }
        summary[name] = {
            "problems": len(benchmark.problems),
            "scores": scores,
            "calibration": _calibration(benchmark),
            "samples": dataclasses.asdict(benchmark.counts),
        }
    return summary


def _calibration(benchmark: BenchmarkResult) -> dict[str, Any]:
    """Each measure with its interval; empty where no log-probs were recorded."""
    if not has_log_probs(benchmark):
        return {}
    found: dict[str, Any] = {}
    for kind in CALIBRATION:
        calibration = benchmark_calibration([benchmark], Metric(kind, 0))
        if isinstance(calibration, str):
            found[kind] = {"score": None, "reason": calibration}
        else:
            between = interval([calibration.measured])
            found[kind] = {
                "score": calibration.measured.values[0],
                "interval_95": None if between is None else [between.low, between.high],
                "notes": list(calibration.notes),
            }
    return found


def format_summary(summary: dict[str, Any]) -> str:
    """The summary as lines of text."""
    lines = []
    for name, benchmark in summary.items():
        parts = [_score_text(metric, entry) for metric, entry in benchmark["scores"].items()]
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
        if benchmark["calibration"]:
            shown = [_score_text(metric, entry) for metric, entry in benchmark["calibration"].items()]
            lines.append(f"    calibration: {'; '.join(shown)}")
    return "\n".join(lines)


def _score_text(metric: str, entry: dict[str, Any]) -> str:
    if entry["score"] is None:
        return f"{metric} {entry['reason']}"
    between = entry["interval_95"]
    shown = "no interval" if between is None else f"[{100 * between[0]:.1f}, {100 * between[1]:.1f}]"
    return f"{metric} {100 * entry['score']:.1f} {shown}"
