"""log p(A | Q): the answers of a batch, teacher-forced after their prompts with the trace taken out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict

from verl_ispo.signals.answer_span import AnswerSpans
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
    tails = [
        response[lead_in_start:end] if end > lead_in_start else response[:1]
        for response, lead_in_start, end in zip(
            responses, spans.lead_in_start.tolist(), spans.end.tolist(), strict=True
        )
    ]
    return forward_rows(prompts, tails)


def ablated_answer_log_probs(tail_log_probs: torch.Tensor, spans: AnswerSpans) -> torch.Tensor:
    """The answer tokens' log-probs, from those of the forward.

    Args:
        tail_log_probs (nested `torch.Tensor`): one value per token of lead-in and A, for each row of `ablated_rows`.
        spans (`AnswerSpans`): as given to `ablated_rows`.

    Returns:
        `torch.Tensor` of shape `(batch, answer_length)`, float32, left-aligned, 0 where there is no answer token.
    """
    tails = tail_log_probs.unbind()
    lead_in_length = (spans.start - spans.lead_in_start).tolist()
    answers = [
        tail[skip : skip + length].float()
        for tail, skip, length in zip(tails, lead_in_length, spans.length.tolist(), strict=True)
    ]
    padded = torch.nn.utils.rnn.pad_sequence(answers, batch_first=True)
    return padded if padded.shape[1] else padded.new_zeros(len(answers), 1)
