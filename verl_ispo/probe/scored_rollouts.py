"""A batch of graded rollouts with everything that rewards and rules read, and how it is made from token ids."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch

from verl_ispo.answers.answer_place import row_answer_format
from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.grading.ground_truth_reading import asks_for_several
from verl_ispo.probe.answer_in_text import is_number_of, states
from verl_ispo.probe.probe_rollouts import Rollout
from verl_ispo.probe.scored_rows import Row, RowScores
from verl_ispo.signals.answer_span import AnswerSpans, find_answer_spans, gather_answer
from verl_ispo.signals.critical_tokens import outside_the_answer
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.signals.token_texts import TokenTexts

ScoreRows = Callable[[Sequence[Row], str], list[RowScores]]
"""From rows, and what they are in words, to the scores of their tails."""


@dataclass(frozen=True)
class ScoredRollouts:
    """Rollouts with their log-probs, one row each.

    Attributes:
        groups: which rollouts share a prompt.
        score: as the reward function gave it, `(batch,)` float32.
        correct: its verdict, `(batch,)` bool.
        spans: answers and lead-ins.
        response_ids: `(batch, response_length)` int64, padded with 0.
        response_mask: `(batch, response_length)` bool.
        log_prob, ref_log_prob, entropy: `(batch, response_length)` float32, at the training's temperature.
        answer_log_prob: `(batch, answer_length)`, given the trace.
        ablated_answer_log_prob: `(batch, answer_length)`, without it.
        answer_mask: `(batch, answer_length)` bool.
        outside_answer: tokens that are neither the answer's nor the end of sequence, `(batch, response_length)` bool.
        cut: ended by the length limit, `(batch,)` bool.
        copied: the answer is a number of the question, `(batch,)` bool.
        trace_states_answer: the trace holds the answer before the lead-in, `(batch,)` bool.
    """

    groups: RolloutGroups
    score: torch.Tensor
    correct: torch.Tensor
    spans: AnswerSpans
    response_ids: torch.Tensor
    response_mask: torch.Tensor
    log_prob: torch.Tensor
    ref_log_prob: torch.Tensor
    entropy: torch.Tensor
    answer_log_prob: torch.Tensor
    ablated_answer_log_prob: torch.Tensor
    answer_mask: torch.Tensor
    outside_answer: torch.Tensor
    cut: torch.Tensor
    copied: torch.Tensor
    trace_states_answer: torch.Tensor


def find_spans(rollouts: Sequence[Rollout], texts: TokenTexts, config: ISPOConfig, grades_lists: bool) -> AnswerSpans:
    """Where answers and lead-ins are, as the trainer finds them.

    Args:
        rollouts (`Sequence[Rollout]`).
        texts (`TokenTexts`): of the policy's tokenizer.
        config (`ISPOConfig`): every setting that decides where A and T are is read here and nowhere else.
        grades_lists (`bool`): whether the reward function reads boxes that form a list as one answer.
    """
    formats = [row_answer_format(rollout.question.extra_info, config.answer_format) for rollout in rollouts]
    several = [
        grades_lists and asks_for_several(rollout.question.ground_truth, rollout.question.extra_info)
        for rollout in rollouts
    ]
    return find_answer_spans([list(rollout.response_ids) for rollout in rollouts], texts, formats, several)


def rollout_rows(rollouts: Sequence[Rollout]) -> list[Row]:
    """Each rollout as it was sampled: every token of the response is scored."""
    return [Row(rollout.prompt_ids, rollout.response_ids) for rollout in rollouts]


def ablated_rows(rollouts: Sequence[Rollout], spans: AnswerSpans) -> list[Row]:
    """Prompt, lead-in and answer, without the trace; an empty tail where there is no answer."""
    return [
        Row(rollout.prompt_ids, rollout.response_ids[lead_in:end])
        for rollout, lead_in, end in zip(rollouts, spans.lead_in_start.tolist(), spans.end.tolist(), strict=True)
    ]


def scored_rollouts(
    rollouts: Sequence[Rollout],
    spans: AnswerSpans,
    texts: TokenTexts,
    end_of_sequence: Collection[int],
    score_policy: ScoreRows,
    score_reference: ScoreRows | None,
) -> ScoredRollouts:
    """Score the rollouts, and the answers without their traces, and put them into tensors.

    Args:
        rollouts (`Sequence[Rollout]`).
        spans (`AnswerSpans`): from `find_spans`.
        texts (`TokenTexts`): of the policy's tokenizer.
        end_of_sequence (`Collection[int]`): token ids.
        score_policy (`ScoreRows`): under the model that is probed.
        score_reference (`ScoreRows`, *optional*): under the reference; `None` where that is the model itself.
    """
    with_trace = score_policy(rollout_rows(rollouts), "rollouts")
    without = score_policy(ablated_rows(rollouts, spans), "answers without their traces")
    reference = (
        with_trace if score_reference is None else score_reference(rollout_rows(rollouts), "under the reference")
    )
    log_prob = _padded([scores.log_prob for scores in with_trace])
    answer_log_prob, answer_mask = gather_answer(log_prob, spans)
    lead_in_lengths = (spans.start - spans.lead_in_start).tolist()
    ablated = _padded([scores.log_prob[skip:] for scores, skip in zip(without, lead_in_lengths, strict=True)])
    ids = [torch.tensor(rollout.response_ids, dtype=torch.long) for rollout in rollouts]
    response_ids = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    lengths = torch.tensor([len(rollout.response_ids) for rollout in rollouts])
    answers = [
        "".join(texts(token) for token in rollout.response_ids[start:end])
        for rollout, start, end in zip(rollouts, spans.start.tolist(), spans.end.tolist(), strict=True)
    ]
    traces = [
        "".join(texts(token) for token in rollout.response_ids[:lead_in])
        for rollout, lead_in in zip(rollouts, spans.lead_in_start.tolist(), strict=True)
    ]
    return ScoredRollouts(
        groups=RolloutGroups.from_labels(
            [(rollout.question.benchmark, rollout.question.question_id) for rollout in rollouts]
        ),
        score=torch.tensor([rollout.grade.score for rollout in rollouts], dtype=torch.float32),
        correct=torch.tensor([rollout.grade.correct for rollout in rollouts]),
        spans=spans,
        response_ids=response_ids,
        response_mask=torch.arange(response_ids.shape[1]) < lengths.unsqueeze(-1),
        log_prob=log_prob,
        ref_log_prob=_padded([scores.log_prob for scores in reference]),
        entropy=_padded([scores.entropy for scores in with_trace]),
        answer_log_prob=answer_log_prob,
        ablated_answer_log_prob=ablated,
        answer_mask=answer_mask,
        outside_answer=outside_the_answer(response_ids, spans, end_of_sequence),
        cut=torch.tensor([rollout.cut for rollout in rollouts]),
        copied=torch.tensor(
            [is_number_of(rollout.question.text, answer) for rollout, answer in zip(rollouts, answers, strict=True)]
        ),
        trace_states_answer=torch.tensor(
            [states(trace, answer) for trace, answer in zip(traces, answers, strict=True)]
        ),
    )


def _padded(rows: Sequence[Sequence[float]]) -> torch.Tensor:
    """Rows of numbers as one tensor, padded with 0, at least one column wide."""
    width = max([1, *map(len, rows)])
    padded = torch.zeros(len(rows), width)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row)
    return padded
