"""Reads the rollout dump (`verl_ispo.runs.rollout_dump.format`) and checks every line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from verl_ispo.runs.rollout_dump.format import DUMP_FORMAT, OUTCOMES

_FILE_NAME = re.compile(r"step_(\d+)_(\d+)\.jsonl")
PARTS = ("outcome", "ifd", "token", "missing_answer")
_Line = TypeVar("_Line")


@dataclass(frozen=True)
class PromptOutcome:
    """How many rollouts of one prompt's group were correct (``right``) at one step."""

    step: int
    prompt_id: str
    rollouts: int
    right: int


@dataclass(frozen=True)
class DumpedRollout:
    """One rollout; per-token lists have one entry per response token, NaN where the dump has null."""

    token_ids: list[int]
    token_texts: list[str]
    response_mask: list[bool]
    log_prob: list[float]
    ref_log_prob: list[float]
    entropy: list[float]
    entropy_filter: frozenset[int]
    drift_filter: frozenset[int]
    critical: frozenset[int]
    critical_terms: Mapping[int, float]  # what each critical token adds to the mean of eq. 7, by position
    answer: tuple[int, int, int] | None  # lead-in start, start, end
    answer_log_prob: list[float]
    ablated_answer_log_prob: list[float]
    score: float
    correct: bool
    ifd: float
    token_reward: float
    parts: Mapping[str, float]
    composite: float
    training_reward: float
    advantage: float
    right_answer_gain: float | None  # None where the ground truth was not scored behind the trace


@dataclass(frozen=True)
class DumpedGroup:
    """A prompt and its rollouts at one step."""

    step: int
    prompt_id: str
    outcome: str
    prompt_text: str
    ground_truth: str | None
    estimator: str
    config: Mapping[str, Any]
    rollouts: list[DumpedRollout]


def read_outcomes(dump: Path) -> tuple[list[PromptOutcome], list[str]]:
    """Outcomes of every prompt at every step, in order, and sentences on what could not be read."""
    outcomes: list[PromptOutcome] = []
    gaps: list[str] = []
    for file in _files(dump / "outcomes"):
        outcomes += _read_lines(file, _parse_outcome, gaps)
    return outcomes, gaps


def dumped_steps(dump: Path) -> list[int]:
    """Steps whose rollouts were dumped, ascending."""
    return sorted({_step_of(file) for file in _files(dump / "rollouts")})


def read_groups(dump: Path, step: int) -> tuple[list[DumpedGroup], list[str]]:
    """The groups dumped at one step, and sentences on what could not be read."""
    groups: list[DumpedGroup] = []
    gaps: list[str] = []
    for file in _files(dump / "rollouts"):
        if _step_of(file) == step:
            found = _read_lines(file, _parse_group, gaps)
            groups += found
            if not found:
                gaps.append(f"{file.name} holds no rollouts")
    return groups, gaps


def _files(folder: Path) -> list[Path]:
    files = [file for file in folder.glob("step_*.jsonl") if _FILE_NAME.fullmatch(file.name)]
    return sorted(files, key=lambda file: tuple(map(int, _FILE_NAME.fullmatch(file.name).groups())))


def _step_of(file: Path) -> int:
    return int(_FILE_NAME.fullmatch(file.name).group(1))


def _read_lines(file: Path, parse: Callable[[Mapping[str, Any]], _Line], gaps: list[str]) -> list[_Line]:
    parsed = []
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                if not isinstance(entry, dict):
                    raise ValueError("not an object")
                if entry.get("format") != DUMP_FORMAT:
                    raise ValueError(f"format {str(entry.get('format'))[:20]}, this report reads {DUMP_FORMAT}")
                parsed.append(parse(entry))
            except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
                reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                gaps.append(f"{file.name}, line {number} left out: {reason[:200]}")
    return parsed


def _parse_outcome(entry: Mapping[str, Any]) -> PromptOutcome:
    outcome = PromptOutcome(
        _count(entry, "step"), _text(entry, "prompt_id"), _count(entry, "rollouts"), _count(entry, "right")
    )
    if outcome.right > outcome.rollouts:
        raise ValueError(f"right={outcome.right} of rollouts={outcome.rollouts}")
    return outcome


def _parse_group(entry: Mapping[str, Any]) -> DumpedGroup:
    outcome = _text(entry, "outcome")
    if outcome not in OUTCOMES:
        raise ValueError(f"outcome {outcome[:40]!r} is not one of {', '.join(OUTCOMES)}")
    rollouts = [_parse_rollout(rollout) for rollout in _typed(entry, "rollouts", list)]
    if not rollouts:
        raise ValueError("a group without rollouts")
    return DumpedGroup(
        step=_count(entry, "step"),
        prompt_id=_text(entry, "prompt_id"),
        outcome=outcome,
        prompt_text=_text(entry, "prompt_text"),
        ground_truth=None if entry["ground_truth"] is None else _text(entry, "ground_truth"),
        estimator=_text(entry, "estimator"),
        config=_typed(entry, "config", dict),
        rollouts=rollouts,
    )


def _parse_rollout(entry: Any) -> DumpedRollout:
    if not isinstance(entry, dict):
        raise ValueError("a rollout is not an object")
    texts = _typed(entry, "token_texts", list)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("token_texts holds something else than text")
    length = len(texts)
    answer = None
    if entry["answer_start"] is not None:
        answer = tuple(_count(entry, name) for name in ("lead_in_start", "answer_start", "answer_end"))
        if not answer[0] <= answer[1] < answer[2] <= length:
            raise ValueError(f"answer positions {answer} do not fit a response of {length} tokens")
    answer_length = answer[2] - answer[1] if answer else 0
    parts = _typed(entry, "parts", dict)
    critical = _positions(entry, "critical", length)
    # dumps of earlier versions lack what each critical token adds
    terms = (
        _numbers(entry, "critical_terms", len(critical)) if "critical_terms" in entry else [math.nan] * len(critical)
    )
    return DumpedRollout(
        token_ids=_token_ids(entry, length),
        token_texts=texts,
        response_mask=[bool(value) for value in _numbers(entry, "response_mask", length)],
        log_prob=_numbers(entry, "log_prob", length),
        ref_log_prob=_numbers(entry, "ref_log_prob", length),
        entropy=_numbers(entry, "entropy", length),
        entropy_filter=_positions(entry, "entropy_filter", length),
        drift_filter=_positions(entry, "drift_filter", length),
        critical=critical,
        critical_terms=dict(zip(sorted(critical), terms, strict=True)),
        answer=answer,
        answer_log_prob=_numbers(entry, "answer_log_prob", answer_length),
        ablated_answer_log_prob=_numbers(entry, "ablated_answer_log_prob", answer_length),
        score=_number(entry, "score"),
        correct=_typed(entry, "correct", bool),
        ifd=_number(entry, "ifd"),
        token_reward=_number(entry, "token_reward"),
        # dumps of earlier versions have no guard among the parts
        parts={name: _number(parts, name) for name in PARTS if name in parts or name != "missing_answer"},
        composite=_number(entry, "composite"),
        training_reward=_number(entry, "training_reward"),
        advantage=_number(entry, "advantage"),
        # only runs that score the ground truth have it
        right_answer_gain=None if entry.get("right_answer_gain") is None else _number(entry, "right_answer_gain"),
    )


def _token_ids(entry: Mapping[str, Any], length: int) -> list[int]:
    ids = _typed(entry, "token_ids", list)
    if len(ids) != length or not all(type(token) is int and 0 <= token < 2**63 for token in ids):
        raise ValueError(f"token_ids are not the ids of {length} tokens")
    return ids


def _typed(entry: Mapping[str, Any], name: str, kind: type) -> Any:
    value = entry[name]
    if not isinstance(value, kind):
        raise ValueError(f"{name} is not of type {kind.__name__}")
    return value


def _text(entry: Mapping[str, Any], name: str) -> str:
    return _typed(entry, name, str)


def _count(entry: Mapping[str, Any], name: str) -> int:
    value = entry[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} is not a whole number of at least 0: {str(value)[:40]}")
    return value


def _as_number(value: Any, name: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} holds something else than numbers: {str(value)[:40]}")
    number = float(value)
    return number if math.isfinite(number) else math.nan


def _number(entry: Mapping[str, Any], name: str) -> float:
    return _as_number(entry[name], name)


def _numbers(entry: Mapping[str, Any], name: str, length: int) -> list[float]:
    values = [_as_number(value, name) for value in _typed(entry, name, list)]
    if len(values) != length:
        raise ValueError(f"{name} has {len(values)} entries for {length} tokens")
    return values


def _positions(entry: Mapping[str, Any], name: str, length: int) -> frozenset[int]:
    positions = _typed(entry, name, list)
    if not all(isinstance(at, int) and not isinstance(at, bool) and 0 <= at < length for at in positions):
        raise ValueError(f"{name} holds something else than positions in {length} tokens")
    return frozenset(positions)
