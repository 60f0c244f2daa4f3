"""The answers of a batch, teacher-forced in other contexts than their rollouts': what verl's forward is asked.

log p(A | Q) needs one row per rollout, with the trace taken out. With ``trace_end=first_statement`` (ours)
log p(A | Q, T) needs another one where T ends before the rollout's trace does, and both go through one forward.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from verl_ispo.signals.answer_span import AnswerSpans, ScoredAnswers, answer_tails
from verl_ispo.trainer.forward_rows import forward_rows


def ablated_rows(prompts: Sequence[torch.Tensor], responses: Sequence[torch.Tensor], spans: AnswerSpans) -> TensorDict:
    """One row per rollout: prompt, lead-in and A, with lead-in and A as its "response".

    As many rows as the batch has, so that they divide by data-parallel size and micro-batch as it does. A rollout
    without an answer gets its own first token as a stand-in, whose log-prob nobody reads.

    Args:
        prompts (`Sequence[torch.Tensor]`): token ids of each prompt.
        responses (`Sequence[torch.Tensor]`): token ids of each response.
        spans (`AnswerSpans`): where lead-in and A lie in the responses.

    Returns:
        `TensorDict` of nested tensors in the form that verl's ``compute_log_prob`` takes.
    """
    return forward_rows(prompts, answer_tails(responses, spans))


def answer_rows(
    prompts: Sequence[torch.Tensor], responses: Sequence[torch.Tensor], scored: ScoredAnswers, shares: int
) -> TensorDict:
    """The rows of `ablated_rows`, and where a trace is cut short, as many rows with what is left of it.

    A row with the rest of the trace is prompt, T, lead-in and A. A rollout whose trace is whole needs none: its
    stand-in is two tokens long, so that the rows still divide as the batch does.

    Args:
        prompts (`Sequence[torch.Tensor]`): token ids of each prompt.
        responses (`Sequence[torch.Tensor]`): token ids of each response.
        scored (`ScoredAnswers`).
        shares (`int`): the batch is cut into as many equal contiguous shares, one for each data-parallel rank. In each,
            the rows with a trace follow the ablated ones.
    """
    if not scored.stated.any():
        return ablated_rows(prompts, responses, scored.spans)
    stated = scored.stated.tolist()
    heads = [prompt if cut else prompt[:1] for prompt, cut in zip(prompts, stated, strict=True)]
    cut_tails = answer_tails(responses, scored.spans, scored.trace_end)
    tails = [tail if cut else prompt[:1] for prompt, tail, cut in zip(prompts, cut_tails, stated, strict=True)]
    ablated_tails = answer_tails(responses, scored.spans)
    return forward_rows(_by_share(prompts, heads, shares), _by_share(ablated_tails, tails, shares))


def answer_log_probs(
    tail_log_probs: torch.Tensor, scored: ScoredAnswers, shares: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """log p(A | Q), and log p(A | Q, T) where a trace is cut short, from the forward over `answer_rows`.

    Args:
        tail_log_probs (nested `torch.Tensor`): one value per token of each row's tail.
        scored (`ScoredAnswers`): as given to `answer_rows`.
        shares (`int`): likewise.

    Returns:
        `tuple[torch.Tensor, torch.Tensor | None]`: both of shape `(batch, answer_length)`, as of
        `ablated_answer_log_probs`; the second one is 0 where the trace is whole, and `None` where all are.
    """
    rows = tail_log_probs.unbind()
    if not scored.stated.any():
        return _answer_log_probs(rows, scored.spans, scored.spans.lead_in_start), None
    size = len(rows) // (2 * shares)
    kinds: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for first in range(0, len(rows), size):
        kinds[first // size % 2].extend(rows[first : first + size])
    ablated = _answer_log_probs(kinds[0], scored.spans, scored.spans.lead_in_start)
    cut = scored.rows(scored.stated)
    rows_of_cut = [row for row, is_cut in zip(kinds[1], scored.stated.tolist(), strict=True) if is_cut]
    found = _answer_log_probs(rows_of_cut, cut.spans, cut.spans.lead_in_start - cut.trace_end)
    given = torch.zeros_like(ablated)
    given[scored.stated, : found.shape[1]] = found
    return ablated, given


def ablated_answer_log_probs(tail_log_probs: torch.Tensor, spans: AnswerSpans) -> torch.Tensor:
    """The answer tokens' log-probs, from those of the forward.

    Args:
        tail_log_probs (nested `torch.Tensor`): one value per token of lead-in and A, for each row of `ablated_rows`.
        spans (`AnswerSpans`): as given to `ablated_rows`.

    Returns:
        `torch.Tensor` of shape `(batch, answer_length)`, float32, left-aligned, 0 where there is no answer token.
    """
    return _answer_log_probs(tail_log_probs.unbind(), spans, spans.lead_in_start)


def _answer_log_probs(rows: Sequence[torch.Tensor], spans: AnswerSpans, skipped: torch.Tensor) -> torch.Tensor:
    """The answer's part of each row, of whose response `skipped` tokens before the answer are not in it."""
    answers = [
        row[first : first + length].float()
        for row, first, length in zip(rows, (spans.start - skipped).tolist(), spans.length.tolist(), strict=True)
    ]
    padded = torch.nn.utils.rnn.pad_sequence(answers, batch_first=True)
    return padded if padded.shape[1] else padded.new_zeros(len(answers), 1)


def _by_share(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor], shares: int) -> list[torch.Tensor]:
    """In each share the rows of the one kind, then those of the other."""
    size = len(first) // shares
    edges = range(0, len(first), size)
    return [row for start in edges for kind in (first, second) for row in kind[start : start + size]]
