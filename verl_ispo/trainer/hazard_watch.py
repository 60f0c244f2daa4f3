"""Warns when a run begins to lose its reasoning or its answers (ours)."""

from __future__ import annotations

from collections.abc import Mapping

ALARM_RATE = 0.10
RATES = {
    "ispo/trace_dropped_rate": "rollouts answer with an empty or near-empty trace",
    "ispo/answer_missing_rate": "rollouts end without an answer",
}
TRACE_LENGTH = "ispo/trace_length"


class HazardWatch:
    """Compares each step with the first one.

    Args:
        first (`Mapping[str, float]`, *optional*): the first step's metrics, from a checkpoint.
    """

    def __init__(self, first: Mapping[str, float] | None = None) -> None:
        self.first: dict[str, float] = dict(first or {})

    def observe(self, metrics: Mapping[str, float]) -> list[str]:
        """Warnings for this step: a rate more than doubled and above 10 %, or traces shrunk to less than half."""
        for name in (*RATES, TRACE_LENGTH):
            if name in metrics:
                self.first.setdefault(name, metrics[name])
        warnings = [
            f"{name} is {metrics[name]:.0%}, {self.first[name]:.0%} at the first step: {meaning}. If accuracy suffers, "
            "train with method=ispo_guarded (algorithm.ispo.all_wrong_groups=informative)."
            for name, meaning in RATES.items()
            if name in metrics and metrics[name] > max(ALARM_RATE, 2 * self.first[name])
        ]
        if TRACE_LENGTH in metrics and metrics[TRACE_LENGTH] < self.first[TRACE_LENGTH] / 2:
            warnings.append(
                f"{TRACE_LENGTH} is {metrics[TRACE_LENGTH]:.1f} tokens, {self.first[TRACE_LENGTH]:.1f} at the first "
                "step: traces shrink. If accuracy suffers, train with method=ispo_guarded "
                "(algorithm.ispo.all_wrong_groups=informative)."
            )
        return warnings
