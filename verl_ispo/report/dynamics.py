"""Training dynamics: which metrics are drawn, in which order, and what to look for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from verl_ispo.report.chart_panels import (
    Drawing,
    FigureBlock,
    LegendEntry,
    Panel,
    Series,
    metric,
    one_chart_a_run,
    overlay,
)
from verl_ispo.report.line_chart import CORRECT, INCORRECT, SERIES
from verl_ispo.report.loaded_run import Run
from verl_ispo.report.number_format import show
from verl_ispo.report.series_statistics import known

OUTCOMES = (LegendEntry("correct rollouts", CORRECT, 0), LegendEntry("incorrect rollouts", INCORRECT, 1))
REWARD_PARTS = (
    LegendEntry("outcome", SERIES[6], 0),
    LegendEntry("IFD part", SERIES[0], 1),
    LegendEntry("token part", SERIES[4], 2),
    LegendEntry("trained on", SERIES[2], 3),
)
DUMP_TIME = "timing_s/ispo_dump"
_VALIDATION = re.compile(r"val-core/(.+)/(acc|reward)/(mean@\d+)")


def dynamics(drawing: Drawing) -> list[FigureBlock]:
    """Every figure of training dynamics, in the order of the page."""
    return [
        _accuracy(drawing),
        _zero_advantage(drawing),
        _critical_entropy(drawing),
        _ifd(drawing),
        _critical_fraction(drawing),
        _reward_parts(drawing),
        _order(drawing),
        _length(drawing),
        _time(drawing),
    ]


def _accuracy(drawing: Drawing) -> FigureBlock:
    metrics = validation_metrics(drawing.runs)
    reached = [
        value
        for _, name in metrics
        if _is_accuracy(name)
        for run in drawing.runs
        for value in known(run.log.series(name, sparse=True)[1])
    ]
    top = min(max(reached, default=1.0) + 0.05, 1.04)
    held_out = [
        overlay(
            drawing,
            f"Held out: {label}",
            "accuracy" if _is_accuracy(name) else "reward",
            metric(name, sparse=True),
            name,
            percent=_is_accuracy(name),
            value_range=(-0.02 * top, top) if _is_accuracy(name) else None,
        )
        for label, name in metrics
    ]
    training = overlay(drawing, "Training score", "mean score", metric("critic/score/mean"), "critic/score/mean")
    return FigureBlock(
        "accuracy",
        "Accuracy",
        "",
        "Held-out accuracy is what counts. The training score is measured on other prompts at every step and "
        "moves with their difficulty.",
        drawing.run_legend(),
        [held_out or [Panel("Held out", None, "No run has val-core/*/acc/mean@*.")], [training]],
    )


def _zero_advantage(drawing: Drawing) -> FigureBlock:
    charts = (
        ("Zero-advantage groups, by outcome", "share of groups", "ispo/zero_adv_rate/outcome"),
        ("Zero-advantage groups, as trained on", "share of groups", "ispo/zero_adv_rate/composite"),
        ("Absolute advantage from all-wrong groups", "share", "ispo/advantage_share/all_wrong"),
    )
    spread = "ispo/ifd_std_in_zero_adv_groups"
    return FigureBlock(
        "zero-advantage",
        "Groups without an advantage",
        "figure 4 (left), table 3",
        "A group whose rollouts all got the same reward has no advantage. Look at how many there are by outcome, "
        "and how many are left in the reward that is trained on.",
        drawing.run_legend(),
        [
            [overlay(drawing, title, unit, metric(name), name, percent=True) for title, unit, name in charts],
            [overlay(drawing, "Spread of IFD in groups of equal outcome", "nats per token", metric(spread), spread)],
        ],
    )


def _critical_entropy(drawing: Drawing) -> FigureBlock:
    return FigureBlock(
        "critical-entropy",
        "Entropy at critical tokens",
        "figure 4 (right)",
        "Hallucinated certainty shows as the dashed line (incorrect rollouts) below the solid one (correct rollouts), "
        "or below the threshold under which the hinge punishes it.",
        OUTCOMES,
        [
            one_chart_a_run(drawing, title, "nats", _by_outcome(name), _hinge_threshold)
            for title, name in (
                ("On critical tokens", "ispo/critical_entropy/{}"),
                ("On the entropy filter's tokens", "ispo/entropy_filter_entropy/{}"),
            )
        ],
    )


def _ifd(drawing: Drawing) -> FigureBlock:
    return FigureBlock(
        "ifd",
        "Conditional IFD by outcome",
        "figure 5",
        "Above zero, the trace raises the answer's probability. Look at whether correct rollouts lie above "
        "incorrect ones. Bands are one standard deviation among the rollouts of a step.",
        OUTCOMES,
        [
            one_chart_a_run(drawing, "IFD", "nats per token", _by_outcome("ispo/ifd/{}/mean", "ispo/ifd/{}/std")),
        ],
    )


def _critical_fraction(drawing: Drawing) -> FigureBlock:
    filters = (("the entropy filter", "entropy"), ("the drift filter", "drift"), ("both filters", "both"))
    return FigureBlock(
        "critical-fraction",
        "Which tokens count",
        "table 5",
        "At the first step policy and base are the same model, so no token has drifted. Look at how fast the "
        "share that has moved away from the base grows, and how much of it is critical.",
        drawing.run_legend(),
        [
            [
                overlay(drawing, f"Tokens in {label}", "share of tokens", metric(name), name, percent=True)
                for label, name in ((label, f"ispo/critical_fraction/{name}") for label, name in filters)
            ]
        ],
    )


def _reward_parts(drawing: Drawing) -> FigureBlock:
    names = ("outcome", "ifd", "token", "composite")

    def parts(statistic: str) -> list[tuple[LegendEntry, str, str | None]]:
        return [(look, f"ispo/reward/{name}/{statistic}", None) for look, name in zip(REWARD_PARTS, names, strict=True)]

    return FigureBlock(
        "reward",
        "What the reward is made of",
        "equation 8",
        "What differs between rollouts becomes advantage. Look at the spread: a part that spreads as widely as "
        "the outcome decides as much as being correct does.",
        REWARD_PARTS,
        [
            one_chart_a_run(drawing, "Mean of the parts", "reward", parts("mean")),
            one_chart_a_run(drawing, "Spread of the parts (std)", "reward", parts("std")),
        ],
    )


def _order(drawing: Drawing) -> FigureBlock:
    charts = (
        ("Order violations", "share of pairs", "ispo/order_violation_rate"),
        ("Incorrect rollouts' critical tokens under the hinge", "share of tokens", "ispo/hinge_active_rate"),
    )
    return FigureBlock(
        "order",
        "Does correct still rank above incorrect?",
        "",
        "A violation is a pair of a correct and an incorrect rollout of one group in which the incorrect one got the "
        "higher reward. The intrinsic terms are meant to refine the order, not to overturn it.",
        drawing.run_legend(),
        [[overlay(drawing, title, unit, metric(name), name, percent=True) for title, unit, name in charts]],
    )


def _length(drawing: Drawing) -> FigureBlock:
    charts = (
        ("Response length", "tokens", "response_length/mean", False),
        ("Trace length", "tokens", "ispo/trace_length", False),
        ("Rollouts without an answer", "share of rollouts", "ispo/answer_missing_rate", True),
        ("Answers with next to no trace", "share of rollouts", "ispo/trace_dropped_rate", True),
    )
    return FigureBlock(
        "length",
        "Length, and signs of lost reasoning",
        "",
        "A policy that stops reasoning or stops answering shows here: traces that shrink, answers that go "
        "missing, answers with next to no trace before them.",
        drawing.run_legend(),
        [[overlay(drawing, title, unit, metric(name), name, percent) for title, unit, name, percent in charts]],
    )


def _time(drawing: Drawing) -> FigureBlock:
    return FigureBlock(
        "time",
        "Time per step",
        "cost",
        "ISPO's share is the time of its own work (answer spans, second forward, rewards) in the whole step, the "
        "dump for this report not counted; with ablated_pass=merged the second forward is inside the old-log-prob pass "
        "and not counted either. The reference forward, which the drift filter needs, is drawn separately.",
        drawing.run_legend(),
        [
            [
                overlay(drawing, "Step", "seconds", metric("timing_s/step"), "timing_s/step"),
                overlay(drawing, "ISPO's share of the step", "share", ispo_time_share, "timing_s/ispo_*", percent=True),
                overlay(
                    drawing, "Reference forward's share", "share", reference_time_share, "timing_s/ref", percent=True
                ),
            ]
        ],
    )


def ispo_time_share(run: Run) -> Series:
    """ISPO's own work as a share of each step's time, the dump left out; empty where a run logs no such times."""
    names = [name for name in run.log.names() if name.startswith("timing_s/ispo_") and name != DUMP_TIME]
    return _time_share(run, names)


def reference_time_share(run: Run) -> Series:
    """The reference policy's forward as a share of each step's time."""
    return _time_share(run, [name for name in run.log.names() if name == "timing_s/ref"])


def validation_metrics(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Held-out accuracies, or rewards, that some run logs: label and metric, sorted by metric."""
    names = sorted({name for run in runs for name in run.log.names()})
    found = [(name, match) for name in names if (match := _VALIDATION.fullmatch(name))]
    return [(f"{match.group(1)}, {match.group(2)} {match.group(3)}", name) for name, match in found]


def _is_accuracy(name: str) -> bool:
    # verl's val-core has the reward only where the scorer gives no accuracy.
    return "/acc/" in name


def _time_share(run: Run, names: Sequence[str]) -> Series:
    steps, whole = run.log.series("timing_s/step")
    if not steps or not names:
        return [], []
    parts = [[run.log.steps[step].get(name, 0.0) for name in names] for step in steps]
    return steps, [sum(part) / total if total > 0 else math.nan for part, total in zip(parts, whole, strict=True)]


def _by_outcome(name: str, spread: str | None = None) -> list[tuple[LegendEntry, str, str | None]]:
    return [
        (look, name.format(outcome), spread.format(outcome) if spread else None)
        for look, outcome in zip(OUTCOMES, ("correct", "wrong"), strict=True)
    ]


def _hinge_threshold(run: Run) -> dict[str, float]:
    floor = run.config.get("algorithm.ispo.entropy_floor")
    if isinstance(floor, bool) or not isinstance(floor, (int, float)):
        return {}
    return {f"hinge below τ_H = {show(float(floor))}": float(floor)}
