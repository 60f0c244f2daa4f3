"""Critical tokens (eq. 4-6): where the policy is undecided and has moved away from its base."""

from __future__ import annotations

from collections.abc import Collection

import torch

from verl_ispo.signals.answer_span import AnswerSpans


def entropy_filter(entropy: torch.Tensor, candidate_mask: torch.Tensor, top_entropy_fraction: float) -> torch.Tensor:
    """The top k% of each response's tokens by entropy (eq. 4, the set written as a script A in the paper).

    The count is ceil(k * tokens) of each response, and ties go to the earlier position (both ours), so the result is
    deterministic and does not depend on padding.

    Args:
        entropy (`torch.Tensor` of shape `(batch, response_length)`): entropy of the next-token distribution, nats.
        candidate_mask (`torch.Tensor` of shape `(batch, response_length)`, bool): tokens that may be chosen.
        top_entropy_fraction (`float`): k, in (0, 1].

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, bool.
    """
    lengths = candidate_mask.sum(dim=-1)
    # 1e-9 undoes the rounding of products such as 0.07 * 100 = 7.000000000000001.
    counts = torch.ceil(lengths.double() * top_entropy_fraction - 1e-9).long()
    counts = torch.minimum(counts.clamp(min=1), lengths)  # at least one, also for a k below that 1e-9
    most = int(counts.max()) if counts.numel() else 0
    if most == 0:
        return torch.zeros_like(candidate_mask)

    masked_entropy = torch.where(candidate_mask, entropy, -torch.inf)
    # topk does not say which of several equal values it takes, so it only gives the threshold of each row...
    largest = masked_entropy.topk(most, dim=-1).values
    threshold = largest.gather(-1, (counts - 1).clamp(min=0).unsqueeze(-1))
    chosen = (masked_entropy >= threshold) & candidate_mask
    too_many = chosen.sum(dim=-1) > counts
    if too_many.any():
        # ...and of the tokens at the threshold the earliest are taken.
        rows_entropy, rows_threshold = masked_entropy[too_many], threshold[too_many]
        above = rows_entropy > rows_threshold
        tied = chosen[too_many] & ~above
        left = counts[too_many].unsqueeze(-1) - above.sum(dim=-1, keepdim=True)
        chosen[too_many] = above | (tied & (tied.cumsum(dim=-1, dtype=torch.int32) <= left))
    return chosen


def drift_filter(
    log_prob: torch.Tensor, ref_log_prob: torch.Tensor, response_mask: torch.Tensor, drift_threshold: float
) -> torch.Tensor:
    """Tokens whose log-prob has risen by at least tau_drift over the reference policy's (eq. 5; one-sided).

    Args:
        log_prob (`torch.Tensor` of shape `(batch, response_length)`): of the sampled tokens, rollout policy.
        ref_log_prob (`torch.Tensor` of shape `(batch, response_length)`): the same tokens, frozen base policy.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`, bool).
        drift_threshold (`float`): tau_drift, nats.

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, bool.
    """
    return (log_prob - ref_log_prob >= drift_threshold) & response_mask


def critical_tokens(entropy_mask: torch.Tensor, drift_mask: torch.Tensor, critical_selection: str) -> torch.Tensor:
    """Combine both filters (eq. 6: their intersection); `union`, `entropy` and `drift` are the paper's ablations.

    Args:
        entropy_mask (`torch.Tensor` of shape `(batch, response_length)`, bool): from `entropy_filter`.
        drift_mask (`torch.Tensor` of shape `(batch, response_length)`, bool): from `drift_filter`.
        critical_selection (`str`): one of `verl_ispo.config.ispo_config.CRITICAL_SELECTIONS`.

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, bool.
    """
    if critical_selection == "intersection":
        return entropy_mask & drift_mask
    if critical_selection == "union":
        return entropy_mask | drift_mask
    return entropy_mask if critical_selection == "entropy" else drift_mask


def outside_the_answer(
    response_ids: torch.Tensor, spans: AnswerSpans, end_of_sequence: Collection[int]
) -> torch.Tensor:
    """Tokens that are neither the answer's nor the end of sequence, `(batch, response_length)` bool (ours).

    Args:
        response_ids (`torch.Tensor` of shape `(batch, response_length)`, int64).
        spans (`AnswerSpans`): of the same rows.
        end_of_sequence (`Collection[int]`): token ids.
    """
    position = torch.arange(response_ids.shape[1])
    in_answer = (position >= spans.start.unsqueeze(-1)) & (position < spans.end.unsqueeze(-1))
    return ~in_answer & ~torch.isin(response_ids, response_ids.new_tensor(sorted(end_of_sequence)))
