"""The probe as one HTML page, in the report's style: no script; text of models is escaped, made visible and bounded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from verl_ispo.probe.measures import KINDS
from verl_ispo.probe.probe_files import EVENT_WORDS, KIND_WORDS, ProbeResult, advantage_rows
from verl_ispo.probe.regimes import MIN_EVENTS
from verl_ispo.probe.verdict_words import PAPER, interval_words, percent, signed
from verl_ispo.report.escaped_page import MAX_VALUE_CHARS, page_environment, page_style
from verl_ispo.report.line_chart import CORRECT, INCORRECT, Axes, Line, draw_lines
from verl_ispo.report.visible_text import visible

GROUPS_SHOWN = 2
"""Of each kind, with their rollouts."""
MAX_RESPONSE_CHARS = 1200
MAX_QUESTION_CHARS = 1500
MAX_ROLLOUTS_SHOWN = 16
BINS = 24
SHOWN_PRESETS = ("ispo", "ispo_guarded", "ispo_off", "grpo", "sign")
"""Whose advantages stand beside each rollout, where they were measured."""


@dataclass(frozen=True)
class ShownChart:
    """A distribution by outcome.

    Attributes:
        title: what is counted.
        svg: the chart; `None` where there is nothing to draw.
        rows: its quantiles, as text.
    """

    title: str
    svg: Markup | None
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class ShownGroup:
    """One prompt's rollouts."""

    kind: str
    question: str
    ground_truth: str
    rollouts: Sequence[Mapping[str, Any]]
    presets: Sequence[str]


def render(result: ProbeResult, records: Sequence[Mapping[str, Any]]) -> str:
    """The page as HTML text.

    Args:
        result (`ProbeResult`).
        records (`Sequence[Mapping]`): of ``rollouts.jsonl``.
    """
    environment = page_environment("verl_ispo.probe")
    environment.filters.update(
        signed=lambda value: "–" if value is None else signed(value),
        percent=lambda value: "–" if value is None else percent(value),
        sentence=lambda text: visible(str(text), 5 * MAX_VALUE_CHARS),
    )
    header, *rows = advantage_rows(result)
    html = environment.get_template("probe.html.j2").render(
        result=result,
        measures=result.measures,
        words=result.words,
        style=page_style(),
        within={name: interval_words(interval) for name, interval in result.measures.intervals.items()},
        kinds=[(kind, KIND_WORDS[kind]) for kind in KINDS],
        events=EVENT_WORDS,
        paper=result.measures.preset(PAPER),
        advantage_header=header,
        advantage_rows=rows,
        few=MIN_EVENTS,
        charts=charts(records),
        groups=shown_groups(records, result),
    )
    return html.encode("utf-8", "replace").decode("utf-8")


def charts(records: Sequence[Mapping[str, Any]]) -> list[ShownChart]:
    """Distributions over answers, by outcome."""
    return [
        _chart("IFD, nats per answer token", records, "ifd"),
        _chart("log p(A | Q, T), nats per answer token", records, "log_prob_given_trace"),
        _chart("log p(A | Q), nats per answer token", records, "log_prob_without_trace"),
    ]


def _chart(title: str, records: Sequence[Mapping[str, Any]], field: str) -> ShownChart:
    values = {
        outcome: [record[field] for record in records if record["answer_found"] and record["correct"] == is_correct]
        for outcome, is_correct in (("correct", True), ("incorrect", False))
    }
    known = {
        outcome: [one for one in some if one is not None and math.isfinite(one)] for outcome, some in values.items()
    }
    everything = [one for some in known.values() for one in some]
    if not everything:
        return ShownChart(title, None, [])
    low, high = min(everything), max(everything)
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    lines, rows = [], []
    for at, (outcome, colour) in enumerate((("correct", CORRECT), ("incorrect", INCORRECT))):
        some = known[outcome]
        if some:
            shares = np.histogram(some, bins=edges)[0] / len(some)
            lines.append(Line(outcome, middles.tolist(), shares.tolist(), colour, dash=at, marker=at))
            quantiles = np.quantile(some, (0.05, 0.5, 0.95))
            rows.append([outcome, str(len(some)), *(signed(float(one)) for one in (np.mean(some), *quantiles))])
    axes = Axes("share of answers", (float(low), float(edges[-1])), percent=True, x_label="nats per answer token")
    spoken = "; ".join(f"{row[0]}: mean {row[2]}, median {row[4]}" for row in rows)
    return ShownChart(title, draw_lines(lines, axes, f"probe-{field}", f"{title}, by outcome: {spoken}"), rows)


def shown_groups(records: Sequence[Mapping[str, Any]], result: ProbeResult) -> list[ShownGroup]:
    """The first groups of each kind, rollouts in order of the paper's advantage."""
    by_prompt: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        by_prompt.setdefault((record["benchmark"], record["question_id"]), []).append(record)
    presets = [name for name in SHOWN_PRESETS if any(name in one.presets for one in result.measures.presets)]
    rule_of = {name: result.measures.preset(name).name for name in presets}
    shown = []
    for kind in ("all_wrong", "mixed", "all_right"):
        of_kind = [rollouts for rollouts in by_prompt.values() if rollouts[0]["group"] == kind]
        for rollouts in of_kind[:GROUPS_SHOWN]:
            ordered = sorted(rollouts, key=lambda record: -record["advantage"][result.measures.preset(PAPER).name])
            shown.append(
                ShownGroup(
                    kind=KIND_WORDS[kind],
                    question=visible(rollouts[0]["question"], MAX_QUESTION_CHARS),
                    ground_truth=rollouts[0]["ground_truth"],
                    rollouts=[
                        {
                            **record,
                            "shown": _shown_end(record["text"]),
                            "advantages": [record["advantage"][rule_of[name]] for name in presets],
                        }
                        for record in ordered[:MAX_ROLLOUTS_SHOWN]
                    ],
                    presets=presets,
                )
            )
    return shown


def _shown_end(text: str) -> str:
    """A response, or the end of a long one, where the answer is."""
    if len(text) <= MAX_RESPONSE_CHARS:
        return visible(text, MAX_RESPONSE_CHARS)
    left_out = len(text) - MAX_RESPONSE_CHARS
    return f"[{left_out:,} characters before this] … {visible(text[-MAX_RESPONSE_CHARS:], MAX_RESPONSE_CHARS)}"
