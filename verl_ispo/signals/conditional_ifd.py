"""Sequence signal: Conditional IFD (eq. 2-3), how much the trace raises the probability of the answer."""

from __future__ import annotations

import torch

from verl_ispo.signals.masked import masked_row_mean


def conditional_ifd(
    answer_log_prob: torch.Tensor, ablated_answer_log_prob: torch.Tensor, answer_mask: torch.Tensor
) -> torch.Tensor:
    """IFD = (1/|A|) [log p(A | Q, T) - log p(A | Q)], in nats per token (eq. 2-3).

    Args:
        answer_log_prob (`torch.Tensor` of shape `(batch, answer_length)`): log-probs of the answer's tokens in the
            rollout itself, after prompt and trace.
        ablated_answer_log_prob (`torch.Tensor` of shape `(batch, answer_length)`): log-probs of the same tokens,
            teacher-forced after the prompt without the trace.
        answer_mask (`torch.Tensor` of shape `(batch, answer_length)`, bool): which positions hold answer tokens.

    Returns:
        `torch.Tensor` of shape `(batch,)`, float32; 0 for a rollout without an answer (ours).
    """
    return masked_row_mean(answer_log_prob - ablated_answer_log_prob, answer_mask)
