"""The composite reward (eq. 8) from one batch's log-probs and entropies: what users of the maths call."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.signals.checks import check_finite, check_same_shape
from verl_ispo.signals.conditional_ifd import conditional_ifd
from verl_ispo.signals.critical_tokens import critical_tokens, drift_filter, entropy_filter
from verl_ispo.signals.running_ifd import RunningIFD, adjusted_ifd
from verl_ispo.signals.token_reward import directional_token_reward, token_reward_terms

# Elements of a tensor that are worked on together on a CPU.
_BLOCK_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class RewardParts:
    """The terms that add up to the composite reward of eq. 8, one number per rollout, each `(batch,)` float32.

    Attributes:
        outcome: R_o, the verifier's score, unchanged.
        ifd: lambda_1 * (2 R_o - 1) * IFD, with the sign and weight that a guard gives it.
        token: lambda_2 * R_token, likewise.
        missing_answer: what `missing_answer="group_min"` takes off a rollout without an answer (ours); 0 without it.
    """

    outcome: torch.Tensor
    ifd: torch.Tensor
    token: torch.Tensor
    missing_answer: torch.Tensor


@dataclass(frozen=True)
class ISPOReward:
    """What `compute_ispo_reward` found, one row per rollout.

    Attributes:
        total: R of eq. 8, `(batch,)` float32; the sum of the parts.
        parts: its terms.
        measured_ifd: Conditional IFD, after `max_abs_ifd` where that is set, `(batch,)` float32, nats per token.
        ifd: the IFD that enters the reward, after `ifd_reference`; equal to `measured_ifd` with the paper's settings.
        token_reward: R_token, `(batch,)` float32.
        critical_mask: critical tokens, `(batch, response_length)` bool.
        entropy_mask: the entropy filter's tokens, same shape.
        drift_mask: the drift filter's tokens, same shape.
        answer_found: rows that have answer tokens, `(batch,)` bool.
    """

    total: torch.Tensor
    parts: RewardParts
    measured_ifd: torch.Tensor
    ifd: torch.Tensor
    token_reward: torch.Tensor
    critical_mask: torch.Tensor
    entropy_mask: torch.Tensor
    drift_mask: torch.Tensor
    answer_found: torch.Tensor


def reward_parts(
    score: torch.Tensor,
    ifd: torch.Tensor,
    token_reward: torch.Tensor,
    ifd_sign: torch.Tensor,
    ifd_weight: float | torch.Tensor,
    token_weight: float | torch.Tensor,
) -> RewardParts:
    """R_o, lambda_1 * (2 R_o - 1) * IFD and lambda_2 * R_token (eq. 8), all of shape `(batch,)`.

    ``ifd_sign`` stands for 2 R_o - 1. It comes from the verifier's verdict and not from the score, which may be shaped
    or run from -1 to 1 (ours); for a 0/1 score this is eq. 8. The weights may differ between rollouts.
    """
    return RewardParts(
        outcome=score,
        ifd=ifd_weight * ifd_sign * ifd,
        token=token_weight * token_reward,
        missing_answer=torch.zeros_like(score),
    )


def composite_reward(parts: RewardParts) -> torch.Tensor:
    """R = R_o + lambda_1 * (2 R_o - 1) * IFD + lambda_2 * R_token (eq. 8), `(batch,)`."""
    return parts.outcome + parts.ifd + parts.token + parts.missing_answer


@torch.no_grad()
def compute_ispo_reward(
    *,
    score: torch.Tensor,
    correct: torch.Tensor,
    log_prob: torch.Tensor,
    ref_log_prob: torch.Tensor,
    entropy: torch.Tensor,
    response_mask: torch.Tensor,
    answer_log_prob: torch.Tensor,
    ablated_answer_log_prob: torch.Tensor,
    answer_mask: torch.Tensor,
    config: ISPOConfig,
    entropy_candidate_mask: torch.Tensor | None = None,
    running_ifd: RunningIFD | None = None,
) -> ISPOReward:
    """Both signals and the composite reward of eq. 8, each rollout by itself, detached.

    Groups play no part here: guards and standard deviation are in `verl_ispo.signals.groups`.

    Args:
        score (`torch.Tensor` of shape `(batch,)`, float): the outcome reward as the scorer gave it.
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict.
        log_prob (`torch.Tensor` of shape `(batch, response_length)`): sampled tokens' log-probs, rollout policy.
        ref_log_prob (`torch.Tensor` of shape `(batch, response_length)`): the same under the reference policy.
        entropy (`torch.Tensor` of shape `(batch, response_length)`): entropy of the next-token distribution, nats.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): 1 where the policy wrote the token.
        answer_log_prob (`torch.Tensor` of shape `(batch, answer_length)`): the answer's tokens in the rollout.
        ablated_answer_log_prob (`torch.Tensor` of shape `(batch, answer_length)`): the same tokens without the trace.
        answer_mask (`torch.Tensor` of shape `(batch, answer_length)`): 1 where there is an answer token.
        config (`ISPOConfig`).
        entropy_candidate_mask (`torch.Tensor` of shape `(batch, response_length)`, *optional*): the tokens that the
            entropy filter may choose; needed when `config.exclude_answer_from_critical` is set.
        running_ifd (`RunningIFD`, *optional*): means over the steps before, for `config.ifd_reference`; `None` at
            the first.

    Returns:
        `ISPOReward`.

    Raises:
        SignalShapeError: shapes that do not fit, listed.
        NonFiniteSignalError: NaN or infinity where a mask is true, with field, row and position.
        ValueError: `exclude_answer_from_critical` without `entropy_candidate_mask`.
    """
    batch = score.shape[0] if score.dim() else 1
    check_same_shape((batch,), score=score, correct=correct)
    check_same_shape(
        (batch, log_prob.shape[-1] if log_prob.dim() else 1),
        log_prob=log_prob,
        ref_log_prob=ref_log_prob,
        entropy=entropy,
        response_mask=response_mask,
    )
    check_same_shape(
        (batch, answer_mask.shape[-1] if answer_mask.dim() else 1),
        answer_log_prob=answer_log_prob,
        ablated_answer_log_prob=ablated_answer_log_prob,
        answer_mask=answer_mask,
    )
    correct, response_mask, answer_mask = correct.bool(), response_mask.bool(), answer_mask.bool()
    check_finite(torch.ones_like(correct), score=score)
    check_finite(response_mask, log_prob=log_prob, ref_log_prob=ref_log_prob, entropy=entropy)
    check_finite(answer_mask, answer_log_prob=answer_log_prob, ablated_answer_log_prob=ablated_answer_log_prob)

    answer_log_prob, ablated_answer_log_prob = map(_at_least_float32, (answer_log_prob, ablated_answer_log_prob))

    candidates = response_mask
    if config.exclude_answer_from_critical:
        if entropy_candidate_mask is None:
            raise ValueError("exclude_answer_from_critical needs entropy_candidate_mask, which leaves the answer out")
        check_same_shape(tuple(response_mask.shape), entropy_candidate_mask=entropy_candidate_mask)
        candidates = response_mask & entropy_candidate_mask.bool()

    answer_found = answer_mask.any(dim=-1)
    measured_ifd = conditional_ifd(answer_log_prob, ablated_answer_log_prob, answer_mask)
    if config.max_abs_ifd is not None:
        measured_ifd = measured_ifd.clamp(-config.max_abs_ifd, config.max_abs_ifd)
    ifd = adjusted_ifd(measured_ifd, correct, answer_found, running_ifd or RunningIFD(), config)

    blocks = [
        _token_signals(
            log_prob[rows],
            ref_log_prob[rows],
            entropy[rows],
            response_mask[rows],
            candidates[rows],
            correct[rows],
            config,
        )
        for rows in _row_blocks(log_prob)
    ]
    entropy_mask, drift_mask, critical_mask, token_reward = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    ifd_sign = 2.0 * correct.float() - 1.0
    parts = reward_parts(score.to(torch.float32), ifd, token_reward, ifd_sign, config.ifd_weight, config.token_weight)
    return ISPOReward(
        total=composite_reward(parts),
        parts=parts,
        measured_ifd=measured_ifd,
        ifd=ifd,
        token_reward=token_reward,
        critical_mask=critical_mask,
        entropy_mask=entropy_mask,
        drift_mask=drift_mask,
        answer_found=answer_found,
    )


def _token_signals(
    log_prob: torch.Tensor,
    ref_log_prob: torch.Tensor,
    entropy: torch.Tensor,
    response_mask: torch.Tensor,
    candidates: torch.Tensor,
    correct: torch.Tensor,
    config: ISPOConfig,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Entropy filter, drift filter, critical tokens and R_token of some rollouts."""
    log_prob, ref_log_prob, entropy = (_at_least_float32(values) for values in (log_prob, ref_log_prob, entropy))
    entropy_mask = entropy_filter(entropy, candidates, config.top_entropy_fraction)
    drift_mask = drift_filter(log_prob, ref_log_prob, response_mask, config.drift_threshold)
    critical_mask = critical_tokens(entropy_mask, drift_mask, config.critical_selection)
    terms = token_reward_terms(
        log_prob,
        entropy,
        correct,
        entropy_floor=config.entropy_floor,
        entropy_bonus=config.entropy_bonus,
        hinge_weight=config.hinge_weight,
        symmetric=config.symmetric_token_reward,
    )
    return entropy_mask, drift_mask, critical_mask, directional_token_reward(terms, critical_mask)


def _row_blocks(values: torch.Tensor) -> list[slice]:
    """Rows that are worked on together: on a CPU few, so that what is made of them stays in its cache.

    Each row's numbers are its own. A block has two rows at least, since torch sums a single row in another order.
    """
    rows, length = values.shape
    if values.device.type != "cpu" or rows < 4:
        return [slice(0, rows)]
    count = max(1, min(rows // 2, rows * length // _BLOCK_ELEMENTS))
    edges = [rows * block // count for block in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(edges)]


def _at_least_float32(values: torch.Tensor) -> torch.Tensor:
    # A difference of two bfloat16 log-probs, taken in bfloat16, is off by more than the drift threshold's second digit.
    return values.to(torch.promote_types(values.dtype, torch.float32))
