"""Fourteen made-up rollouts of five prompts, on which ``verl-ispo methods NAME`` shows what a preset does.

The numbers are chosen so that rollouts of one outcome differ in length, entropy and answer, and that every field that
a method may need is there. They are no model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.explained.preset_advantage import AnswerScores, KnownRollouts
from verl_ispo.methods.method import CutRequest, Method, MethodBatch, PrefixScores
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.signals.right_answer import RightAnswerScores

MIXED, ALL_INCORRECT, ALL_CORRECT = "mixed", "all incorrect", "all correct"
ONE_CORRECT, ONE_INCORRECT = "one rollout, correct", "one rollout, incorrect"
ANSWER_TOKENS = 2
_WORDS = ("So", " 6", " times", " 7", ".\n\n", "Then", " add", ".", " It", " is", ".\n\n", " Now")
_WAVE = (0.5, 1.0, 1.5, 1.0)
"""A token's entropy over its rollout's mean, in turn."""


@dataclass(frozen=True)
class ExampleRollout:
    """One made-up rollout.

    Attributes:
        group: its prompt's name, which says the outcomes of the prompt's rollouts.
        correct: the verdict; the score is 1 or 0.
        tokens: of the response.
        entropy: mean over the tokens, nats.
        answer: its text, `None` without one.
        gain: log-prob of the ground truth behind the response minus that behind the prompt, nats per token.
        ifd: of its own answer, nats per token.
    """

    group: str
    correct: bool
    tokens: int
    entropy: float
    answer: str | None
    gain: float
    ifd: float


EXAMPLE = (
    ExampleRollout(MIXED, True, 8, 0.4, "42", 1.5, 1.2),
    ExampleRollout(MIXED, True, 12, 1.2, "42", 0.9, 0.7),
    ExampleRollout(MIXED, False, 8, 0.2, "41", -0.5, 0.9),
    ExampleRollout(MIXED, False, 12, 0.8, None, 0.2, 0.0),
    ExampleRollout(ALL_INCORRECT, False, 8, 0.2, "7", -0.8, 1.0),
    ExampleRollout(ALL_INCORRECT, False, 12, 1.2, "7", 0.6, 0.4),
    ExampleRollout(ALL_INCORRECT, False, 8, 0.8, "12", 0.1, 0.6),
    ExampleRollout(ALL_INCORRECT, False, 12, 0.4, None, -0.2, 0.0),
    ExampleRollout(ALL_CORRECT, True, 8, 0.2, "9", 1.0, 0.9),
    ExampleRollout(ALL_CORRECT, True, 12, 1.2, "9", 0.4, 0.3),
    ExampleRollout(ALL_CORRECT, True, 8, 0.8, "9", 0.8, 0.6),
    ExampleRollout(ALL_CORRECT, True, 12, 0.4, "9", 0.6, 0.5),
    ExampleRollout(ONE_CORRECT, True, 8, 0.6, "3", 0.9, 0.8),
    ExampleRollout(ONE_INCORRECT, False, 8, 0.6, "5", -0.3, 0.7),
)


def example_batches() -> tuple[KnownRollouts, KnownRollouts]:
    """The example as two batches: the prompts with four rollouts, and those with one."""
    alone = [rollout.group in (ONE_CORRECT, ONE_INCORRECT) for rollout in EXAMPLE]
    several, single = (
        [rollout for rollout, is_alone in zip(EXAMPLE, alone, strict=True) if is_alone == wanted]
        for wanted in (False, True)
    )
    return _batch(several), _batch(single)


def _batch(rollouts: Sequence[ExampleRollout]) -> KnownRollouts:
    """Some rollouts with every field that a preset may need."""
    lengths = torch.tensor([rollout.tokens for rollout in rollouts])
    position = torch.arange(int(lengths.max()))
    mask = position < lengths.unsqueeze(-1)
    wave = torch.tensor(_WAVE).repeat(len(position) // len(_WAVE))
    entropy = torch.tensor([rollout.entropy for rollout in rollouts]).unsqueeze(-1) * wave * mask
    log_prob = -0.8 * entropy
    groups = RolloutGroups.from_labels([rollout.group for rollout in rollouts])
    correct = torch.tensor([rollout.correct for rollout in rollouts])
    row = torch.arange(len(rollouts)).unsqueeze(-1)
    # all begin with the same two tokens
    token_ids = torch.where(position < 2, position + 1, 10 + 20 * row + position) * mask
    batch = MethodBatch(
        rewards=torch.where(position == lengths.unsqueeze(-1) - 1, correct.float().unsqueeze(-1), 0.0),
        response_mask=mask.long(),
        groups=groups,
        correct=correct,
        log_prob=log_prob,
        entropy=entropy,
        prompt_log_prob=-0.5 - 0.25 * groups.ids.unsqueeze(-1).expand(-1, 3).float(),
        prompt_mask=torch.ones(len(rollouts), 3, dtype=torch.bool),
        answer_texts=tuple(rollout.answer for rollout in rollouts),
        ref_log_prob=(log_prob - 0.4 * (position % 4 == 2)) * mask,
        response_ids=token_ids,
        prompt_keys=tuple(rollout.group for rollout in rollouts),
    )
    found = torch.tensor([rollout.answer is not None for rollout in rollouts])
    answer_mask = found.unsqueeze(-1).expand(-1, ANSWER_TOKENS)
    in_answer = found.unsqueeze(-1) & (position >= lengths.unsqueeze(-1) - ANSWER_TOKENS)
    given = torch.full((len(rollouts), ANSWER_TOKENS), -0.1)
    ifd = torch.tensor([rollout.ifd for rollout in rollouts]).unsqueeze(-1)
    gain = torch.tensor([rollout.gain for rollout in rollouts]).unsqueeze(-1)
    asked = (groups.all_wrong(correct)[groups.ids] & found).unsqueeze(-1)
    answers = AnswerScores(
        given_trace=given,
        ablated=given - ifd,
        mask=answer_mask,
        outside_answer=mask & ~in_answer,
        right_answer=RightAnswerScores(
            given_trace=gain - 2.0,
            ablated=torch.full((len(rollouts), 1), -2.0),
            mask=asked,
            too_long=torch.zeros(len(rollouts), dtype=torch.bool),
        ),
    )
    return KnownRollouts(batch, answers, lambda method, settings: _prefix_scores(rollouts, batch, method, settings))


def _prefix_scores(
    rollouts: Sequence[ExampleRollout], batch: MethodBatch, method: Method, settings: Any
) -> PrefixScores:
    """The ground truth's log-prob, rising or falling evenly from 2 nats below 0 to what the rollout's gain says."""
    cuts = []
    for row, rollout in enumerate(rollouts):
        request = CutRequest(
            entropy=batch.entropy[row, : rollout.tokens],
            token_texts=_WORDS[: rollout.tokens],
            trace_length=rollout.tokens - (ANSWER_TOKENS if rollout.answer is not None else 0),
        )
        cuts.append([0, *method.prefix_cuts.positions(request, settings)])
    width = max(map(len, cuts))
    share = torch.zeros(len(cuts), width)
    for row, own in enumerate(cuts):
        share[row, : len(own)] = torch.tensor(own) / rollouts[row].tokens
    mask = torch.tensor([[index < len(own) for index in range(width)] for own in cuts])
    gain = torch.tensor([rollout.gain for rollout in rollouts]).unsqueeze(-1)
    return PrefixScores(
        cuts=torch.tensor([[*own, *[0] * (width - len(own))] for own in cuts]),
        mask=mask,
        mean_log_prob=torch.where(mask, -2.0 + gain * share, 0.0),
        mean_entropy=torch.where(mask, 1.0 - 0.5 * share, 0.0),
        tokens=torch.full((len(cuts),), ANSWER_TOKENS),
    )
