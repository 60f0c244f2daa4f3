"""EP-GRPO (arXiv 2605.04960): GRPO's advantage gated by entropy, plus a process term from the drift off the reference.

    A_t = A sigmoid(g (H_t - mean H) / std H) + P_t
    P_t = the standardized d s_t,  s_t = lam (log p - log p_ref)
    d = sign(A) in a group whose rewards differ, else sign(R - threshold)

P is standardized within K buckets of the response's progress, which is the share of its entropy spent up to a token.

Source: notes by others; code is announced, not public. Not given there, so ours: g, lam and the threshold; mean and std
of H are over the batch's tokens; a bucket holds the tokens of one group, and its std is unbiased, with 1e-6; P has a
weight of its own, 1 as in the sum above. lam cancels in the standardization but for the 1e-6. R is verl's reward.

Groups with a single outcome have A = 0 and learn from P alone: away from the reference where R is above the threshold,
back to it below. A single rollout is such a group with verl's A, its reward. Before the policy has left the reference
all s are 0 and so is P; differences of rounding between the two passes would be standardized like any others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, check_whole_number, from_section
from verl_ispo.methods.gtpo import standardized
from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.ep_grpo"


@dataclass(frozen=True)
class EPGRPOConfig:
    """Settings of EP-GRPO, the keys of ``algorithm.ep_grpo``.

    Args:
        gate_slope (`float`, *optional*, defaults to `1.0`):
            g, how steeply the gate follows entropy. Ours: not given in the notes. `0` halves every advantage.
        drift_scale (`float`, *optional*, defaults to `1.0`):
            lam, the factor of the log-ratio to the reference. Above 0. Ours likewise; it has next to no effect.
        reward_threshold (`float`, *optional*, defaults to `0.5`):
            Reward from which on a group of equal rewards counts as good. Ours likewise: between 0 and 1.
        buckets (`int`, *optional*, defaults to `10`):
            K, number of buckets of progress. Notes.
        progress_weight (`float`, *optional*, defaults to `1.0`):
            Weight of P. Ours; the notes add it as it is.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    gate_slope: float = 1.0
    drift_scale: float = 1.0
    reward_threshold: float = 0.5
    buckets: int = 10
    progress_weight: float = 1.0

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.gate_slope", self.gate_slope, low=0)
        check_number(f"{SECTION}.drift_scale", self.drift_scale, low=0, low_open=True)
        check_number(f"{SECTION}.reward_threshold", self.reward_threshold)
        check_whole_number(f"{SECTION}.buckets", self.buckets, low=1)
        check_number(f"{SECTION}.progress_weight", self.progress_weight, low=0)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> EPGRPOConfig:
        """Build from Hydra's ``algorithm.ep_grpo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def entropy_gate(entropy: torch.Tensor, mask: torch.Tensor, slope: float) -> torch.Tensor:
    """sigmoid(g (H_t - mean H) / (std H + 1e-6)) over the batch's tokens, `(batch, response_length)`; 0 elsewhere."""
    one_set = torch.zeros(int(mask.sum()), dtype=torch.int64)
    scaled = standardized(entropy[mask], one_set, mask.sum().reshape(1), by_std=True)
    return torch.zeros_like(entropy).masked_scatter(mask, torch.sigmoid(slope * scaled))


def polarity(
    outcome_advantage: torch.Tensor, reward: torch.Tensor, groups: RolloutGroups, threshold: float
) -> torch.Tensor:
    """d: sign(A) in a group whose rewards differ, else sign(R - threshold), `(batch,)`."""
    differs = (groups.spread(reward) > 0)[groups.ids]
    return torch.where(differs, outcome_advantage.sign(), (reward - threshold).sign())


def progress_bucket(entropy: torch.Tensor, mask: torch.Tensor, buckets: int) -> torch.Tensor:
    """Which of the buckets each token is in, by the share of its response's entropy spent up to it, itself included.

    0 for all tokens of a response without entropy (ours).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, int64.
    """
    spent = torch.where(mask, entropy.clamp(min=0.0), 0.0).cumsum(dim=-1)
    total = spent[:, -1:]
    share = torch.where(total > 0, buckets * spent / total.where(total > 0, 1.0), 0.0)
    return share.floor().long().clamp(max=buckets - 1)


def ep_grpo_advantage(
    outcome_advantage: torch.Tensor,
    reward: torch.Tensor,
    entropy: torch.Tensor,
    log_ratio: torch.Tensor,
    response_mask: torch.Tensor,
    groups: RolloutGroups,
    config: EPGRPOConfig,
) -> torch.Tensor:
    """The gated outcome and the process term of every token; 0 where not masked.

    Args:
        outcome_advantage (`torch.Tensor` of shape `(batch,)`): A.
        reward (`torch.Tensor` of shape `(batch,)`): R.
        entropy (`torch.Tensor` of shape `(batch, response_length)`): H of the old policy, nats.
        log_ratio (`torch.Tensor` of shape `(batch, response_length)`): log p - log p_ref under the old policy.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`).
        groups (`RolloutGroups`): of the batch.
        config (`EPGRPOConfig`).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, float64.
    """
    mask, entropy = response_mask.bool(), entropy.double()
    if not mask.any():
        return torch.zeros_like(entropy)
    gated = outcome_advantage.double().unsqueeze(-1) * entropy_gate(entropy, mask, config.gate_slope)
    direction = polarity(outcome_advantage, reward, groups, config.reward_threshold).double()
    signed = direction.unsqueeze(-1) * config.drift_scale * log_ratio.double()
    sets = config.buckets * groups.ids.unsqueeze(-1) + progress_bucket(entropy, mask, config.buckets)
    samples = torch.bincount(sets[mask], minlength=config.buckets * groups.count)
    progress = standardized(signed[mask], sets[mask], samples, by_std=True)
    return torch.where(mask, gated, 0.0).masked_scatter(mask, gated[mask] + config.progress_weight * progress)


def _advantage(batch: MethodBatch, config: EPGRPOConfig) -> torch.Tensor:
    mask = batch.response_mask.bool()
    # the same on all tokens of a rollout
    outcome = torch.where(mask, batch.grpo_advantage, 0.0).sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)
    return ep_grpo_advantage(
        outcome,
        batch.rewards.sum(dim=-1),
        batch.entropy,
        batch.log_prob - batch.ref_log_prob,
        batch.response_mask,
        batch.groups,
        config,
    )


METHOD = Method(
    name="ep_grpo",
    advantage=_advantage,
    needs=frozenset({Need.GRPO_ADVANTAGE, Need.ENTROPY, Need.LOG_PROB, Need.REFERENCE_LOG_PROB}),
    settings=EPGRPOConfig.from_mapping,
)
