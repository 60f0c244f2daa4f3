"""A batch of graded rollouts with everything that rewards and rules read, and how it is made from token ids."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch

from verl_ispo.answers.answer_place import row_answer_format
from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.grading.ground_truth_reading import asks_for_several, right_answer_text
from verl_ispo.probe.answer_in_text import is_number_of, states
from verl_ispo.probe.probe_rollouts import Rollout
from verl_ispo.probe.scored_rows import Row, RowScores
from verl_ispo.signals.answer_span import AnswerSpans, ScoredAnswers, answer_tails, find_scored_answers, gather_answer
from verl_ispo.signals.critical_tokens import outside_the_answer
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.signals.right_answer import (
    Decode,
    Encode,
    RightAnswerScores,
    right_answer_rows,
    right_answer_scores,
)
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
        answers: what IFD compares.
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
        right_answer: the correct answers behind the traces of groups without a correct rollout.
    """

    groups: RolloutGroups
    score: torch.Tensor
    correct: torch.Tensor
    answers: ScoredAnswers
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
    right_answer: RightAnswerScores

    @property
    def spans(self) -> AnswerSpans:
        """The graded answers' contents and their lead-ins."""
        return self.answers.content


@dataclass(frozen=True)
class ProbedTokenizer:
    """What is read of the policy's tokenizer.

    Attributes:
        texts: of single tokens.
        end_of_sequence: token ids.
        encode: from a text to its token ids, without special tokens.
        decode: from token ids to their text, special tokens kept.
    """

    texts: TokenTexts
    end_of_sequence: Collection[int]
    encode: Encode
    decode: Decode


def find_answers(
    rollouts: Sequence[Rollout], texts: TokenTexts, config: ISPOConfig, grades_lists: bool
) -> ScoredAnswers:
    """Where answers, lead-ins and the ends of traces are, as the trainer finds them.

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
    return find_scored_answers([list(rollout.response_ids) for rollout in rollouts], texts, config, formats, several)


def rollout_rows(rollouts: Sequence[Rollout]) -> list[Row]:
    """Each rollout as it was sampled: every token of the response is scored."""
    return [Row(rollout.prompt_ids, rollout.response_ids) for rollout in rollouts]


def ablated_rows(rollouts: Sequence[Rollout], answers: ScoredAnswers) -> list[Row]:
    """Prompt, lead-in and A, without the trace; an empty tail where there is no answer."""
    return _answer_rows(rollouts, answers, None)


def cut_trace_rows(rollouts: Sequence[Rollout], answers: ScoredAnswers) -> list[Row]:
    """Prompt, T, lead-in and A where T ends before its lead-in; an empty tail elsewhere."""
    stated = answers.stated.tolist()
    rows = _answer_rows(rollouts, answers, answers.trace_end)
    return [row if is_cut else Row(row.head, ()) for row, is_cut in zip(rows, stated, strict=True)]


def _answer_rows(rollouts: Sequence[Rollout], answers: ScoredAnswers, trace_end: torch.Tensor | None) -> list[Row]:
    tails = answer_tails(_response_ids(rollouts), answers.spans, trace_end)
    found = answers.spans.found.tolist()
    return [
        Row(rollout.prompt_ids, tuple(tail.tolist()) if is_found else ())
        for rollout, tail, is_found in zip(rollouts, tails, found, strict=True)
    ]


def _response_ids(rollouts: Sequence[Rollout]) -> list[torch.Tensor]:
    return [torch.tensor(rollout.response_ids, dtype=torch.long) for rollout in rollouts]


def score_right_answers(
    rollouts: Sequence[Rollout],
    answers: ScoredAnswers,
    groups: RolloutGroups,
    tokenizer: ProbedTokenizer,
    score: ScoreRows,
) -> RightAnswerScores:
    """Score the correct answers behind the traces of the groups without a correct rollout, as the trainer does.

    Args:
        rollouts (`Sequence[Rollout]`).
        answers (`ScoredAnswers`): from `find_answers`.
        groups (`RolloutGroups`): of the rollouts.
        tokenizer (`ProbedTokenizer`).
        score (`ScoreRows`): under the model that is probed.
    """
    is_all_wrong = groups.all_wrong(torch.tensor([rollout.grade.correct for rollout in rollouts]))[groups.ids].tolist()
    rows = right_answer_rows(
        [torch.tensor(rollout.prompt_ids, dtype=torch.long) for rollout in rollouts],
        _response_ids(rollouts),
        answers.content,
        [
            right_answer_text(rollout.question.ground_truth) if wrong else None
            for rollout, wrong in zip(rollouts, is_all_wrong, strict=True)
        ],
        tokenizer.encode,
        tokenizer.decode,
        trace_end=answers.trace_end,
    )
    asked = [Row(tuple(head.tolist()), tuple(tail.tolist())) for head, tail in zip(rows.heads, rows.tails, strict=True)]
    scores = score(asked, "correct answers behind incorrect traces")
    return right_answer_scores([torch.tensor(one.log_prob) for one in scores], rows)


def scored_rollouts(
    rollouts: Sequence[Rollout],
    answers: ScoredAnswers,
    tokenizer: ProbedTokenizer,
    score_policy: ScoreRows,
    score_reference: ScoreRows | None,
) -> ScoredRollouts:
    """Score the rollouts, and the answers without their traces, and put them into tensors.

    Args:
        rollouts (`Sequence[Rollout]`).
        answers (`ScoredAnswers`): from `find_answers`.
        tokenizer (`ProbedTokenizer`): of the policy.
        score_policy (`ScoreRows`): under the model that is probed.
        score_reference (`ScoreRows`, *optional*): under the reference; `None` where that is the model itself.
    """
    texts, spans = tokenizer.texts, answers.spans
    groups = RolloutGroups.from_labels(
        [(rollout.question.benchmark, rollout.question.question_id) for rollout in rollouts]
    )
    with_trace = score_policy(rollout_rows(rollouts), "rollouts")
    without = score_policy(ablated_rows(rollouts, answers), "answers without their traces")
    reference = (
        with_trace if score_reference is None else score_reference(rollout_rows(rollouts), "under the reference")
    )
    log_prob = _padded([scores.log_prob for scores in with_trace])
    answer_log_prob, answer_mask = gather_answer(log_prob, spans)
    lengths_of_a = spans.length.tolist()
    if answers.stated.any():
        cut = score_policy(cut_trace_rows(rollouts, answers), "answers behind cut traces")
        given = _padded([_last(scores.log_prob, length) for scores, length in zip(cut, lengths_of_a, strict=True)])
        given = torch.nn.functional.pad(given, (0, answer_log_prob.shape[1] - given.shape[1]))
        answer_log_prob = torch.where(answers.stated.unsqueeze(-1), given, answer_log_prob)
    ablated = _padded([_last(scores.log_prob, length) for scores, length in zip(without, lengths_of_a, strict=True)])
    response_ids = torch.nn.utils.rnn.pad_sequence(_response_ids(rollouts), batch_first=True)
    lengths = torch.tensor([len(rollout.response_ids) for rollout in rollouts])
    contents, traces = (
        [
            "".join(texts(token) for token in rollout.response_ids[start:end])
            for rollout, start, end in zip(rollouts, starts, ends, strict=True)
        ]
        for starts, ends in (
            (answers.content.start.tolist(), answers.content.end.tolist()),
            ([0] * len(rollouts), answers.content.lead_in_start.tolist()),
        )
    )
    return ScoredRollouts(
        groups=groups,
        score=torch.tensor([rollout.grade.score for rollout in rollouts], dtype=torch.float32),
        correct=torch.tensor([rollout.grade.correct for rollout in rollouts]),
        answers=answers,
        response_ids=response_ids,
        response_mask=torch.arange(response_ids.shape[1]) < lengths.unsqueeze(-1),
        log_prob=log_prob,
        ref_log_prob=_padded([scores.log_prob for scores in reference]),
        entropy=_padded([scores.entropy for scores in with_trace]),
        answer_log_prob=answer_log_prob,
        ablated_answer_log_prob=ablated,
        answer_mask=answer_mask,
        outside_answer=outside_the_answer(response_ids, spans, tokenizer.end_of_sequence),
        cut=torch.tensor([rollout.cut for rollout in rollouts]),
        copied=torch.tensor(
            [is_number_of(rollout.question.text, answer) for rollout, answer in zip(rollouts, contents, strict=True)]
        ),
        trace_states_answer=torch.tensor(
            [states(trace, answer) for trace, answer in zip(traces, contents, strict=True)]
        ),
        right_answer=score_right_answers(rollouts, answers, groups, tokenizer, score_policy),
    )


def _last(values: Sequence[float], count: int) -> Sequence[float]:
    """The last `count` values."""
    return values[len(values) - count :] if values else ()


def _padded(rows: Sequence[Sequence[float]]) -> torch.Tensor:
    """Rows of numbers as one tensor, padded with 0, at least one column wide."""
    width = max([1, *map(len, rows)])
    padded = torch.zeros(len(rows), width)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row)
    return padded
