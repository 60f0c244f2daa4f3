"""What a probe leaves behind: its result for programs (JSON, JSON Lines) and as a table for the terminal."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_ispo.probe.measures import KINDS, Paid, PresetMeasures, ProbeMeasures, kinds_of
from verl_ispo.probe.preset_advantages import BESIDE, PresetBatch, PresetRule
from verl_ispo.probe.probe_rollouts import Rollout
from verl_ispo.probe.regimes import Verdict
from verl_ispo.probe.scored_rollouts import ScoredRollouts
from verl_ispo.probe.verdict_words import HAZARD_WORDS, PAPER, VerdictWords, interval_words, percent, signed
from verl_ispo.signals.masked import masked_row_mean

FORMAT = 1
MAX_TEXT_CHARS = 20_000
"""Of a response in ``rollouts.jsonl``; its token ids are in ``samples.jsonl``."""
_LINE_CHARS = 110
KIND_WORDS = {"mixed": "mixed", "all_wrong": "no correct rollout", "all_right": "no incorrect rollout"}
EVENT_WORDS = {
    "correct": "correct",
    "incorrect_answer": "incorrect answer",
    "missing": "no answer",
    "copied": "copied number",
    "without_trace": "incorrect, no trace",
    "cut": "cut",
}


@dataclass(frozen=True)
class ProbeResult:
    """A finished probe.

    Attributes:
        model, data: as given.
        settings: in words, for the page.
        measures: the numbers.
        verdict: what the rules say.
        words: the same in sentences.
        undecided: grades that are no verdict (time-outs, errors), which count as incorrect.
        made_at: date and time.
        version: of this package.
    """

    model: str
    data: str
    settings: Mapping[str, object]
    measures: ProbeMeasures
    verdict: Verdict
    words: VerdictWords
    undecided: int
    made_at: str
    version: str


def summary_record(result: ProbeResult) -> dict[str, Any]:
    """``probe.json``."""
    return {
        "format": FORMAT,
        "model": result.model,
        "data": result.data,
        "settings": dict(result.settings),
        "made_at": result.made_at,
        "version": result.version,
        "verdict": {
            "start": result.verdict.start.name.lower(),
            "ifd_is_prior": result.verdict.ifd_is_prior,
            "too_few": None if result.verdict.is_open is None else result.verdict.is_open.name.lower(),
            "hazards": {name: [hazard.value for hazard in hazards] for name, hazards in result.verdict.hazards.items()},
            "words": dataclasses.asdict(result.words),
        },
        "undecided_grades": result.undecided,
        "measures": dataclasses.asdict(result.measures),
    }


def rollout_records(
    rollouts: Sequence[Rollout], batch: ScoredRollouts, rules: Mapping[PresetRule, Sequence[str]]
) -> list[dict[str, Any]]:
    """``rollouts.jsonl``: one rollout per line, with its grade, IFD, and its advantage under each rule."""
    kinds = kinds_of(batch.groups, batch.correct)
    kind_of_group = [next(kind for kind in KINDS if kinds[kind][group]) for group in range(batch.groups.count)]
    advantages: dict[str, list[float]] = {}
    paper = None
    for rule, names in rules.items():
        of_rule = PresetBatch(rule, batch)
        advantages[names[0]] = of_rule.advantage(of_rule.reward()).tolist()
        paper = of_rule.reward() if PAPER in names else paper
    given = masked_row_mean(batch.answer_log_prob, batch.answer_mask).tolist()
    ablated = masked_row_mean(batch.ablated_answer_log_prob, batch.answer_mask).tolist()
    records = []
    for index, rollout in enumerate(rollouts):
        found = bool(batch.spans.found[index])
        records.append(
            {
                "benchmark": rollout.question.benchmark,
                "question_id": rollout.question.question_id,
                "sample_index": rollout.sample_index,
                "group": kind_of_group[int(batch.groups.ids[index])],
                "question": rollout.question.text[:MAX_TEXT_CHARS],
                "ground_truth": str(rollout.question.ground_truth)[:MAX_TEXT_CHARS],
                "text": rollout.text[:MAX_TEXT_CHARS],
                "tokens": len(rollout.response_ids),
                "cut": rollout.cut,
                "correct": rollout.grade.correct,
                "score": rollout.grade.score,
                "status": rollout.grade.status,
                "prediction": rollout.grade.prediction,
                "answer_found": found,
                "lead_in_start": int(batch.spans.lead_in_start[index]) if found else None,
                "answer_start": int(batch.spans.start[index]) if found else None,
                "answer_end": int(batch.spans.end[index]) if found else None,
                "ifd": float(paper.measured_ifd[index]) if found and paper is not None else None,
                "log_prob_given_trace": given[index] if found else None,
                "log_prob_without_trace": ablated[index] if found else None,
                "trace_states_answer": bool(batch.trace_states_answer[index]) if found else None,
                "copied_number": bool(batch.copied[index]) if found else None,
                "advantage": {name: values[index] for name, values in advantages.items()},
            }
        )
    return records


def terminal_table(result: ProbeResult) -> str:
    """The numbers as text, for the terminal."""
    measures = result.measures
    within = {name: interval_words(interval) for name, interval in measures.intervals.items()}
    rows = [
        ("pass@1", percent(measures.pass_at_1) + within["pass_at_1"]),
        *((f"groups: {KIND_WORDS[kind]}", percent(measures.group_shares[kind]) + within[kind]) for kind in KINDS),
        ("no answer", percent(measures.missing)),
        ("cut by the length limit", percent(measures.cut)),
        ("trace states the answer", _percent_or_dash(measures.states_answer)),
        *(
            (f"IFD, {words} (5, 50, 95 %)", _quantiles(measures.ifd[key].quantiles))
            for key, words in (("correct", "correct"), ("wrong", "incorrect"))
        ),
        ("IFD within a tenth of -log p(A | Q)", _percent_or_dash(measures.prior_like)),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name.ljust(width)}  {value}" for name, value in rows]
    return "\n".join([*lines, "", *_advantage_lines(result)])


def terminal_words(words: VerdictWords) -> str:
    """The verdict in words, for the terminal."""
    lines = textwrap.wrap(words.headline, _LINE_CHARS)
    for title, sentences in words.sections():
        lines += ["", f"{title}:"]
        for sentence in sentences:
            lines += textwrap.wrap(sentence, _LINE_CHARS, initial_indent="- ", subsequent_indent="  ")
    return "\n".join(lines)


def advantage_rows(result: ProbeResult) -> list[list[str]]:
    """The table of presets: a header, then one row per rule."""
    rows = [
        [
            "presets",
            "incorrect answer",
            "no answer",
            "if one gave none",
            "copied number",
            "no trace",
            "if one had none",
            "share of all advantage",
            "groups without an advantage",
            "against it",
        ]
    ]
    for one in _paper_first(result):
        pays = one.all_wrong
        rows.append(
            [
                ", ".join(one.presets),
                *(_paid(pays[event]) for event in ("incorrect_answer", "missing")),
                _signed_or_dash(one.if_unanswered["all_wrong"]),
                *(_paid(pays[event]) for event in ("copied", "without_trace")),
                _signed_or_dash(one.if_without_trace["all_wrong"]),
                _percent_or_dash(one.advantage_share["all_wrong"]),
                percent(one.zero_advantage_rate),
                ", ".join(HAZARD_WORDS[hazard] for hazard in result.verdict.hazards[one.name]) or "nothing",
            ]
        )
    return rows


def _advantage_lines(result: ProbeResult) -> list[str]:
    header = [
        "preset",
        "incorrect",
        "no answer",
        "if none",
        "copied",
        "no trace",
        "if no trace",
        "share |A|",
        "against it",
    ]
    rows = [header]
    for row in advantage_rows(result)[1:]:
        names = row[0].split(", ")
        more = f" (+{len(names) - 1})" if len(names) > 1 else ""
        rows.append([names[0] + more, *row[1:8], row[9]])
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    note = (
        "Mean advantages in groups without a correct rollout (number of rollouts); (+n): n more presets, the same here."
    )
    return [note, *lines]


def _paper_first(result: ProbeResult) -> list[PresetMeasures]:
    def order(one: PresetMeasures) -> tuple[int, str]:
        return (0 if PAPER in one.presets else 2 if one.name in BESIDE else 1, one.name)

    return sorted(result.measures.presets, key=order)


def _paid(paid: Paid) -> str:
    return "–" if paid.mean is None else f"{signed(paid.mean)} ({paid.count})"


def _signed_or_dash(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else signed(value)


def _percent_or_dash(share: float | None) -> str:
    return "–" if share is None else percent(share)


def _quantiles(quantiles: Mapping[str, float]) -> str:
    return ", ".join(signed(quantiles[name]) for name in ("5", "50", "95")) if quantiles else "–"
