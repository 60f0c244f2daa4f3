"""Batches of each regime, made from a few numbers per rollout: no model."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from verl_ispo.probe.measures import ProbeMeasures, measure
from verl_ispo.probe.preset_advantages import BESIDE, PresetRule, same_rules, signal_presets
from verl_ispo.probe.scored_rollouts import ScoredRollouts
from verl_ispo.signals.answer_span import AnswerSpans, ScoredAnswers
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.signals.right_answer import RightAnswerScores

TRACE, LEAD_IN, ANSWER = 12, 2, 2
"""Tokens of each part of a made response; one more ends it."""


@dataclass(frozen=True)
class Made:
    """One rollout.

    Attributes:
        correct: the verdict.
        given, ablated: log p(A | Q, T) and log p(A | Q), nats per answer token.
        answered: whether it has an answer.
        cut: whether the length limit ended it.
        copied: whether its answer is a number of the question.
        stated: whether its trace states the answer.
        trace: its length in tokens.
        gain: of the correct answer through the trace, nats per token, in a group without a correct rollout.
    """

    correct: bool
    given: float = -0.1
    ablated: float = -0.4
    answered: bool = True
    cut: bool = False
    copied: bool = False
    stated: bool = False
    trace: int = TRACE
    gain: float = -1.0


def batch_of(groups: Sequence[Sequence[Made]], drift: float = 0.0) -> ScoredRollouts:
    """Put groups of rollouts into tensors; every token has an entropy of 1 and drifts by `drift`."""
    made = [one for group in groups for one in group]
    length = max(one.trace for one in made) + LEAD_IN + ANSWER + 1
    shape = (len(made), length)
    log_prob = torch.full(shape, -0.7)
    mask = torch.zeros(shape, dtype=torch.bool)
    starts, ends, leads = [], [], []
    for row, one in enumerate(made):
        start = one.trace + LEAD_IN
        mask[row, : start + ANSWER + 1] = True
        log_prob[row, start : start + ANSWER] = one.given
        leads.append(one.trace if one.answered else 0)
        starts.append(start if one.answered else 0)
        ends.append(start + ANSWER if one.answered else 0)
    spans = AnswerSpans(*(torch.tensor(part) for part in (leads, starts, ends)))
    answered = torch.tensor([one.answered for one in made]).unsqueeze(-1)

    def at_answers(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values).unsqueeze(-1).expand(-1, ANSWER).clone() * answered

    labels = [number for number, group in enumerate(groups) for _ in group]
    return ScoredRollouts(
        groups=RolloutGroups.from_labels(labels),
        score=torch.tensor([float(one.correct) for one in made]),
        correct=torch.tensor([one.correct for one in made]),
        answers=ScoredAnswers(spans, spans, spans.lead_in_start),
        response_ids=torch.arange(len(made) * length).reshape(shape),
        response_mask=mask,
        log_prob=log_prob,
        ref_log_prob=log_prob - drift,
        entropy=torch.ones(shape),
        answer_log_prob=at_answers([one.given for one in made]),
        ablated_answer_log_prob=at_answers([one.ablated for one in made]),
        answer_mask=answered.expand(-1, ANSWER),
        outside_answer=mask,
        cut=torch.tensor([one.cut for one in made]),
        copied=torch.tensor([one.copied for one in made]),
        trace_states_answer=torch.tensor([one.stated for one in made]),
        right_answer=RightAnswerScores(
            given_trace=torch.tensor([[one.gain - 3.0] for one in made]),
            ablated=torch.full((len(made), 1), -3.0),
            mask=answered,
            too_long=torch.zeros(len(made), dtype=torch.bool),
        ),
    )


def measured(groups: Sequence[Sequence[Made]], drift: float = 0.0, methods: Sequence[str] = ()) -> ProbeMeasures:
    """The measures of a made batch under all presets, or under some."""
    return measure(batch_of(groups, drift), _rules(tuple(methods)))


@cache
def _rules(names: tuple[str, ...]) -> dict[PresetRule, list[str]]:
    return same_rules(names or [*signal_presets(), *BESIDE], {})


def groups_of(
    count: int,
    correct_of: Callable[[int], int],
    make: Callable[[random.Random, bool], Made],
    seed: int = 0,
    size: int = 8,
) -> list[list[Made]]:
    """`count` groups of `size`, of which the n-th has `correct_of(n)` correct rollouts."""
    draw = random.Random(seed)
    return [[make(draw, index < correct_of(number)) for index in range(size)] for number in range(count)]


def informative_trace(draw: random.Random, correct: bool) -> Made:
    """An answer that the trace helps a little and not always: IFD near 0.3, and not because of the prior."""
    ablated = -1.0 + draw.uniform(-0.05, 0.05)
    return Made(correct, ablated + 0.3 + draw.uniform(-0.25, 0.25), ablated, stated=False)


def prior(draw: random.Random, correct: bool) -> Made:
    """An answer that the trace states: certain given the trace, and IFD is how unlikely it is without."""
    return Made(correct, -0.01, -3.0 + draw.uniform(-1.0, 1.0), stated=True)


def silent(draw: random.Random, correct: bool) -> Made:
    """No answer unless correct."""
    return Made(correct, answered=correct)


def cut(draw: random.Random, correct: bool) -> Made:
    """The length limit ends it before the answer unless it is correct."""
    return Made(correct, answered=correct, cut=not correct)
