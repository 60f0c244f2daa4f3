"""What each method pays for: the advantages that the presets give to the same dumped rollouts, side by side.

The batch is what the dump has of one run and step, so statistics over a batch are those of the dumped groups alone.
Every preset has its own settings, whatever the run was trained with.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from verl_ispo.explained.preset_advantage import AnswerScores, KnownRollouts, preset_advantage, what_is_missing
from verl_ispo.method_presets import MethodPreset, method_names, read_preset
from verl_ispo.methods.method import MethodBatch
from verl_ispo.report.number_format import signed
from verl_ispo.report.rollout_view import OUTCOME_WORDS, ShownGroup, ShownRollout
from verl_ispo.report.visible_text import visible
from verl_ispo.runs.rollout_dump.reader import DumpedRollout
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.signals.right_answer import RightAnswerScores

MAX_COLUMNS = 8
"""Rollouts of a group that are shown, from both ends of the order by advantage."""
OUTCOME_ORDER = ("mixed", "all_wrong", "all_right")
SHADES = 3
MAX_NAME_CHARS, MAX_REASON_CHARS = 40, 200


@dataclass(frozen=True)
class Payment:
    """One rollout's advantage under one rule.

    Attributes:
        text: mean over its tokens.
        spread: smallest and largest, empty where the tokens have the same.
        shade: class of the cell, by its share of the largest in the row; empty for none.
    """

    text: str
    spread: str
    shade: str


@dataclass(frozen=True)
class PaymentRow:
    """Presets that give the same advantages, and what these are."""

    presets: str
    payments: Sequence[Payment]


@dataclass(frozen=True)
class PaidGroup:
    """One group with the advantages under every rule.

    Attributes:
        run, step: where it is from.
        shown: the group as the rollout view has it.
        columns: its rollouts that are shown.
        rows: first the advantages that it was trained with, then the presets'.
        missing: a sentence for each set of presets whose needs the dump does not hold.
    """

    run: str
    step: int
    shown: ShownGroup
    columns: Sequence[ShownRollout]
    rows: Sequence[PaymentRow]
    missing: Sequence[str]

    @property
    def title(self) -> str:
        """Outcome of the group, run and step."""
        return f"{OUTCOME_WORDS[self.shown.group.outcome]} (step {self.step})"


def method_payments(steps: Sequence[tuple[int, Sequence[ShownGroup]]]) -> list[PaidGroup]:
    """For each run one group of every outcome, the latest that there is, under every preset.

    Args:
        steps (`Sequence`): each step with its groups, all runs, in ascending order.
    """
    latest: dict[tuple[str, str], tuple[int, ShownGroup, list[ShownGroup]]] = {}
    for step, groups in steps:
        for shown in groups:
            batch = [other for other in groups if other.run == shown.run]
            latest[shown.run, shown.group.outcome] = (step, shown, batch)
    runs = list(dict.fromkeys(run for run, _ in latest))
    keys = [(run, outcome) for run in runs for outcome in OUTCOME_ORDER if (run, outcome) in latest]
    batches: dict[tuple[str, int], _Advantages] = {}
    paid = []
    for key in keys:
        step, shown, batch = latest[key]
        at = (shown.run, step)
        if at not in batches:
            batches[at] = _advantages(batch)
        paid.append(_paid_group(step, shown, batch, batches[at]))
    return paid


@dataclass(frozen=True)
class _Advantages:
    """Of a batch, by preset; and the presets without any, by the reason."""

    mask: torch.Tensor
    by_preset: Mapping[str, torch.Tensor]
    reasons: Mapping[str, Sequence[str]]


def _advantages(batch: Sequence[ShownGroup]) -> _Advantages:
    known = known_rollouts(batch)
    by_preset: dict[str, torch.Tensor] = {}
    reasons: dict[str, list[str]] = {}
    for preset in _presets():
        missing = what_is_missing(preset, known)
        reason = f"the dump lacks {', '.join(missing)}."
        if not missing:
            try:
                by_preset[preset.name] = preset_advantage(preset, known)
                continue
            except ValueError as error:  # numbers that a rule refuses
                reason = visible(str(error), MAX_REASON_CHARS)
        reasons.setdefault(reason, []).append(preset.name)
    return _Advantages(known.batch.response_mask.bool(), by_preset, reasons)


@cache
def _presets() -> tuple[MethodPreset, ...]:
    return tuple(read_preset(name) for name in method_names())


def _paid_group(step: int, shown: ShownGroup, batch: Sequence[ShownGroup], advantages: _Advantages) -> PaidGroup:
    before = itertools.takewhile(lambda other: other is not shown, batch)
    first = sum(len(other.rollouts) for other in before)
    columns = _both_ends(shown.rollouts)
    places = [first + column.number - 1 for column in columns]
    trained = [torch.tensor([column.rollout.advantage]) for column in columns]
    rows = [PaymentRow(f"as trained ({visible(shown.group.estimator, MAX_NAME_CHARS)})", _payments(trained))]
    same: dict[tuple[Payment, ...], list[str]] = {}
    for name, advantage in advantages.by_preset.items():
        paid = _payments([advantage[place][advantages.mask[place]] for place in places])
        same.setdefault(tuple(paid), []).append(name)
    rows += [PaymentRow(", ".join(names), paid) for paid, names in same.items()]
    missing = [f"{', '.join(names)}: {reason}" for reason, names in advantages.reasons.items()]
    return PaidGroup(shown.run, step, shown, columns, rows, missing)


def _both_ends(rollouts: Sequence[ShownRollout]) -> list[ShownRollout]:
    if len(rollouts) <= MAX_COLUMNS:
        return list(rollouts)
    return [*rollouts[: MAX_COLUMNS // 2], *rollouts[-MAX_COLUMNS // 2 :]]


def _payments(rollouts: Sequence[torch.Tensor]) -> list[Payment]:
    """One cell for each rollout, from the advantages of its tokens."""
    means = [tokens.mean().item() if len(tokens) else math.nan for tokens in rollouts]
    largest = max((abs(mean) for mean in means if math.isfinite(mean)), default=0.0)
    return [
        Payment(signed(mean), _spread(tokens), _shade(mean, largest))
        for tokens, mean in zip(rollouts, means, strict=True)
    ]


def _spread(tokens: torch.Tensor) -> str:
    if not len(tokens) or signed(tokens.min().item()) == signed(tokens.max().item()):
        return ""
    return f"{signed(tokens.min().item())} to {signed(tokens.max().item())}"


def _shade(mean: float, largest: float) -> str:
    if signed(mean) in (signed(0.0), signed(math.nan)):
        return ""
    return f"{'up' if mean > 0 else 'down'}{math.ceil(round(SHADES * abs(mean) / largest, 3))}"


def known_rollouts(groups: Sequence[ShownGroup]) -> KnownRollouts:
    """The rollouts of some groups of one step as a batch, as far as the dump knows them."""
    rows = [(shown, column.rollout) for shown in groups for column in shown.rollouts]
    rollouts = [rollout for _, rollout in rows]
    mask = _padded([rollout.response_mask for rollout in rollouts]).bool()
    last = torch.where(mask, torch.arange(mask.shape[1]), -1).amax(dim=-1, keepdim=True)
    score = torch.tensor([rollout.score for rollout in rollouts])
    correct = torch.tensor([rollout.correct for rollout in rollouts])
    batch = MethodBatch(
        rewards=torch.where(torch.arange(mask.shape[1]) == last, score.nan_to_num(0.0).unsqueeze(-1), 0.0),
        response_mask=mask.long(),
        groups=RolloutGroups.from_labels([id(shown) for shown, _ in rows]),
        correct=correct,
        log_prob=_if_finite(_padded([rollout.log_prob for rollout in rollouts]), mask),
        entropy=_if_finite(_padded([rollout.entropy for rollout in rollouts]), mask),
        ref_log_prob=_if_finite(_padded([rollout.ref_log_prob for rollout in rollouts]), mask),
        answer_texts=tuple(_answer_text(rollout) for rollout in rollouts),
        response_ids=_padded_ids([rollout.token_ids for rollout in rollouts]),
        prompt_keys=tuple(shown.group.prompt_id for shown, _ in rows),
        step=groups[0].group.step,
        total_steps=groups[0].group.step,
    )
    return KnownRollouts(batch, _answer_scores(rollouts, mask))


def _answer_scores(rollouts: Sequence[DumpedRollout], mask: torch.Tensor) -> AnswerScores | None:
    given = _padded([rollout.answer_log_prob for rollout in rollouts])
    ablated = _padded([rollout.ablated_answer_log_prob for rollout in rollouts])
    answer_mask = _padded([[1.0] * len(rollout.answer_log_prob) for rollout in rollouts]).bool()
    if _if_finite(given, answer_mask) is None or _if_finite(ablated, answer_mask) is None:
        return None
    outside = mask.clone()
    for row, rollout in enumerate(rollouts):
        if rollout.answer is not None:
            outside[row, rollout.answer[1] : rollout.answer[2]] = False
    gains = [rollout.right_answer_gain for rollout in rollouts]
    right_answer = None
    if any(gain is not None for gain in gains):
        right_answer = RightAnswerScores(
            given_trace=torch.tensor([[0.0 if gain is None else gain] for gain in gains]),
            ablated=torch.zeros(len(gains), 1),
            mask=torch.tensor([[gain is not None] for gain in gains]),
            too_long=torch.zeros(len(gains), dtype=torch.bool),
        )
    return AnswerScores(given, ablated, answer_mask, outside, right_answer)


def _answer_text(rollout: DumpedRollout) -> str | None:
    if rollout.answer is None:
        return None
    _, start, end = rollout.answer
    return "".join(rollout.token_texts[start:end])


def _if_finite(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
    """The values; `None` where the dump does not know one of them."""
    return values.nan_to_num(0.0) if values[mask].isfinite().all() else None


def _padded(rows: Sequence[Sequence[float]]) -> torch.Tensor:
    width = max([1, *map(len, rows)])
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows], dtype=torch.float32)


def _padded_ids(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    width = max([1, *map(len, rows)])
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.int64)
