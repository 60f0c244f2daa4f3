"""Training dynamics: which metrics are drawn, in which order, and what to look for (the paper's figures 2a, 4 and 5)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from verl_ispo.report import numbers
from verl_ispo.report.line_chart import RIGHT, SERIES, WRONG
from verl_ispo.report.panels import Drawing, FigureBlock, LegendEntry, Panel, Series, metric, one_chart_a_run, overlay
from verl_ispo.report.run_folder import Run

RIGHT_AND_WRONG = (LegendEntry("right rollouts", RIGHT, 0), LegendEntry("wrong rollouts", WRONG, 1))
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
    runs = drawing.run_legend()
    return [
        FigureBlock(
            "zero-advantage",
            "Groups that teach nothing",
            "figures 2a and 4 (left), table 3",
            "A group whose rollouts all got the same reward has no advantage: look at how many there are by outcome, and how "
            "many are left in the reward that is trained on.",
            runs,
            [
                overlay(
                    drawing,
                    "Zero-advantage groups, by outcome",
                    "share of groups",
                    metric("ispo/zero_adv_rate/outcome"),
                    "ispo/zero_adv_rate/outcome",
                    percent=True,
                ),
                overlay(
                    drawing,
                    "Zero-advantage groups, by training reward",
                    "share of groups",
                    metric("ispo/zero_adv_rate/composite"),
                    "ispo/zero_adv_rate/composite",
                    percent=True,
                ),
                overlay(
                    drawing,
                    "Absolute advantage from all-wrong groups",
                    "share",
                    metric("ispo/advantage_share/all_wrong"),
                    "ispo/advantage_share/all_wrong",
                    percent=True,
                ),
            ],
        ),
        FigureBlock(
            "critical-entropy",
            "Entropy at critical tokens",
            "figure 4 (right)",
            "Hallucinated certainty is the dashed line of wrong rollouts sinking under the solid one of right rollouts, or "
            "under the threshold below which the hinge punishes it.",
            RIGHT_AND_WRONG,
            [
                *one_chart_a_run(
                    drawing, "On critical tokens", "nats", _by_outcome("ispo/critical_entropy/{}"), _hinge_threshold
                ),
                *one_chart_a_run(
                    drawing,
                    "On the entropy filter's tokens",
                    "nats",
                    _by_outcome("ispo/entropy_filter_entropy/{}"),
                    _hinge_threshold,
                ),
            ],
        ),
        FigureBlock(
            "ifd",
            "Conditional IFD by outcome",
            "figure 5",
            "Above zero, the trace raises the answer's probability; look at whether right rollouts rise over wrong ones. Bands "
            "are one standard deviation among the rollouts of a step.",
            RIGHT_AND_WRONG,
            one_chart_a_run(drawing, "IFD", "nats a token", _by_outcome("ispo/ifd/{}/mean", "ispo/ifd/{}/std")),
        ),
        FigureBlock(
            "critical-fraction",
            "Which tokens count",
            "table 5",
            "Step 1 has no drift, since policy and base are still the same model; after it, the share of tokens that have "
            "moved away from the base grows, and with it the share that is critical.",
            runs,
            [
                overlay(
                    drawing,
                    f"Tokens in {label}",
                    "share of tokens",
                    metric(f"ispo/critical_fraction/{name}"),
                    f"ispo/critical_fraction/{name}",
                    percent=True,
                )
                for label, name in (
                    ("the entropy filter", "entropy"),
                    ("the drift filter", "drift"),
                    ("both filters", "both"),
                )
            ],
        ),
        FigureBlock(
            "reward",
            "What the reward is made of",
            "equation 8",
            "The spread inside a group is what becomes advantage: where a dashed part spreads as widely as the outcome, it "
            "decides as much as being right does.",
            REWARD_PARTS,
            [
                *one_chart_a_run(drawing, "Mean of the parts", "reward", _reward_parts("mean")),
                *one_chart_a_run(drawing, "Spread of the parts (std)", "reward", _reward_parts("std")),
            ],
        ),
        FigureBlock(
            "order",
            "Does the reward still put right before wrong?",
            "",
            "A violation is a pair of a right and a wrong rollout of one group in which the wrong one got the higher reward; "
            "the intrinsic terms are meant to refine the order, not to overturn it.",
            runs,
            [
                overlay(
                    drawing,
                    "Order violations",
                    "share of pairs",
                    metric("ispo/order_violation_rate"),
                    "ispo/order_violation_rate",
                    percent=True,
                ),
                overlay(
                    drawing,
                    "Hinge active on wrong rollouts' critical tokens",
                    "share of tokens",
                    metric("ispo/hinge_active_rate"),
                    "ispo/hinge_active_rate",
                    percent=True,
                ),
            ],
        ),
        FigureBlock(
            "accuracy",
            "Accuracy",
            "",
            "Held-out accuracy is what counts; the training score is measured on other prompts at every step and moves with "
            "their difficulty.",
            runs,
            _accuracy_panels(drawing),
        ),
        FigureBlock(
            "length",
            "Length, and signs of lost reasoning",
            "",
            "A policy that stops reasoning or stops answering shows here first: traces that shrink, answers that go missing, "
            "traces that are dropped.",
            runs,
            [
                overlay(drawing, title, unit, metric(name), name, percent)
                for title, unit, name, percent in (
                    ("Response length", "tokens", "response_length/mean", False),
                    ("Trace length", "tokens", "ispo/trace_length", False),
                    ("Rollouts without an answer", "share of rollouts", "ispo/answer_missing_rate", True),
                    ("Answers with next to no trace", "share of rollouts", "ispo/trace_dropped_rate", True),
                )
            ],
        ),
        FigureBlock(
            "time",
            "Time a step",
            "cost, section 4",
            "ISPO's share is the time of its own work (answer spans, second forward, rewards) in the whole step, the dump for "
            "this report not counted.",
            runs,
            [
                overlay(drawing, "Step", "seconds", metric("timing_s/step"), "timing_s/step"),
                overlay(drawing, "ISPO's share of the step", "share", ispo_time_share, "timing_s/ispo_*", percent=True),
            ],
        ),
    ]


def ispo_time_share(run: Run) -> Series:
    """ISPO's own work as a share of each step's time, the dump left out; empty where a run logs no such times."""
    steps, whole = run.log.series("timing_s/step")
    names = [name for name in run.log.names() if name.startswith("timing_s/ispo_") and name != DUMP_TIME]
    if not steps or not names:
        return [], []
    parts = [[run.log.steps[step].get(name, 0.0) for name in names] for step in steps]
    return steps, [sum(part) / total if total > 0 else math.nan for part, total in zip(parts, whole, strict=True)]


def validation_metrics(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Held-out accuracies that some run logs: label and metric, sorted by metric."""
    names = sorted({name for run in runs for name in run.log.names()})
    found = [(name, match) for name in names if (match := _VALIDATION.fullmatch(name))]
    # verl logs the reward beside the accuracy only where the scorer gives no accuracy.
    return [(f"{match.group(1)}, {match.group(2)} {match.group(3)}", name) for name, match in found]


def _accuracy_panels(drawing: Drawing) -> list[Panel]:
    held_out = [
        overlay(
            drawing,
            f"Held out: {label}",
            "accuracy" if "/acc/" in name else "reward",
            metric(name, sparse=True),
            name,
            percent="/acc/" in name,
        )
        for label, name in validation_metrics(drawing.runs)
    ]
    training = overlay(drawing, "Training score", "mean score", metric("critic/score/mean"), "critic/score/mean")
    return (
        [*held_out, training] if held_out else [Panel("Held out", None, "No run has val-core/*/acc/mean@*."), training]
    )


def _by_outcome(name: str, spread: str | None = None) -> list[tuple[LegendEntry, str, str | None]]:
    return [
        (look, name.format(outcome), spread.format(outcome) if spread else None)
        for look, outcome in zip(RIGHT_AND_WRONG, ("correct", "wrong"), strict=True)
    ]


def _reward_parts(statistic: str) -> list[tuple[LegendEntry, str, str | None]]:
    names = ("outcome", "ifd", "token", "composite")
    return [(look, f"ispo/reward/{name}/{statistic}", None) for look, name in zip(REWARD_PARTS, names, strict=True)]


def _hinge_threshold(run: Run) -> dict[str, float]:
    floor = run.config.get("algorithm.ispo.entropy_floor")
    if isinstance(floor, bool) or not isinstance(floor, (int, float)):
        return {}
    return {f"hinge below τ_H = {numbers.show(float(floor))}": float(floor)}
