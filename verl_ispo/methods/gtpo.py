"""GTPO (arXiv 2508.04349; 2508.03772 has the same name): token rewards shaped by the policy's entropy.

A token of a correct rollout gets a1 + a2 (H_t / sum of H) d_t, one of an incorrect rollout
-a1 - a2 ((1/H_t) / sum of 1/H) h_t. The sums run over the group's correct (or incorrect) rollouts that are active at
position t of the response; d_t and h_t are how many these are. Then the token rewards of correct and of incorrect
rollouts are normalized apart, each by their own mean and std in the group.

Source: the two rewards, a1 = 1, a2 = 0.1, the 1e-8 and the normalization apart come from re-implementations that
agree, not from the authors' code. Which std and epsilon the paper takes is not known (one re-implementation has the
biased std); ours are those of verl's GRPO, unbiased and 1e-6. Gating groups without a correct rollout is ours.

Normalized apart, the advantages of a group's correct tokens add up to 0, and so do those of its incorrect ones. So a1
has no effect and the outcome is not rewarded as such; where entropies are equal, or only one rollout is correct (or
incorrect), no advantage is left. `normalization="together"` (ours) is GRPO plus the entropy term instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch

from verl_ispo.config.section import check_choice, check_number, from_section
from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.signals.checks import check_finite, check_same_shape
from verl_ispo.signals.groups import RolloutGroups

NORMALIZATIONS = ("apart", "together")
ALL_WRONG_MODES = ("off", "paper")

ConfigT = TypeVar("ConfigT", bound="EntropyRewardConfig")


@dataclass(frozen=True)
class EntropyRewardConfig:
    """Settings that GTPO and GRPO-S share (arXiv 2508.04349).

    Args:
        outcome_weight (`float`, *optional*, defaults to `1.0`):
            a1, the weight of the outcome. Re-implementations. Without effect where correct and incorrect
            rewards are normalized apart.
        entropy_weight (`float`, *optional*, defaults to `0.1`):
            a2, the weight of the entropy term. Re-implementations. Normalized apart, it cancels except for the
            1e-6, and `0` leaves no advantage.
        normalization (`str`, *optional*, defaults to `"apart"`):
            `"apart"` (paper, by re-implementations): correct and incorrect rewards each by their own mean and
            std.
            `"together"` (ours): all rewards of the group by one mean and std, so that equal entropies (and, for GTPO,
            equal lengths) give GRPO's advantage.
        all_wrong_groups (`str`, *optional*, defaults to `"off"`):
            What a group without any correct rollout learns from: nothing (`"off"`, ours), or the differences in
            entropy, scaled to full size (`"paper"`).

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    section: ClassVar[str]

    outcome_weight: float = 1.0
    entropy_weight: float = 0.1
    normalization: str = "apart"
    all_wrong_groups: str = "off"

    def __post_init__(self) -> None:
        for name in ("outcome_weight", "entropy_weight"):
            check_number(f"{self.section}.{name}", getattr(self, name), low=0)
        check_choice(f"{self.section}.normalization", self.normalization, NORMALIZATIONS)
        check_choice(f"{self.section}.all_wrong_groups", self.all_wrong_groups, ALL_WRONG_MODES)

    @classmethod
    def from_mapping(cls: type[ConfigT], settings: Mapping[str, Any] | None) -> ConfigT:
        """Build from Hydra's section; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, cls.section, settings)


class GTPOConfig(EntropyRewardConfig):
    """Keys of ``algorithm.gtpo``, those of `EntropyRewardConfig`."""

    section = "algorithm.gtpo"


def gtpo_advantage(
    entropy: torch.Tensor,
    response_mask: torch.Tensor,
    correct: torch.Tensor,
    groups: RolloutGroups,
    config: GTPOConfig,
    normalize_by_std: bool = True,
) -> torch.Tensor:
    """GTPO's advantage of every token; rows without tokens get 0 and do not affect the others.

    Args:
        entropy (`torch.Tensor` of shape `(batch, response_length)`): of the old policy, nats; taken as a constant.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): a rollout is active where it is not 0.
        correct (`torch.Tensor` of shape `(batch,)`, bool).
        groups (`RolloutGroups`): of the batch.
        config (`GTPOConfig`).
        normalize_by_std (`bool`, *optional*, defaults to `True`): `False` (ours, as in Dr.GRPO) only subtracts means.

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, float64; finite.

    Raises:
        SignalShapeError: shapes contradict each other.
        NonFiniteSignalError: an entropy is NaN or infinite where the mask is not 0.
    """
    check_same_shape(tuple(response_mask.shape), entropy=entropy)
    check_same_shape((response_mask.shape[0],), correct=correct, group_ids=groups.ids)
    active = response_mask.bool()
    check_finite(active, entropy=entropy)
    rewards = entropy_rewards(entropy.detach(), active, correct, groups, config)
    return normalized_rewards(rewards, active, correct, groups, config, normalize_by_std)


def entropy_rewards(
    entropy: torch.Tensor,
    active: torch.Tensor,
    correct: torch.Tensor,
    groups: RolloutGroups,
    config: EntropyRewardConfig,
) -> torch.Tensor:
    """The rewards before normalization: `right_reward` or `wrong_reward`, 0 where not active.

    Args:
        entropy (`torch.Tensor` of shape `(batch, length)`): may hold anything where ``active`` is false. A value below
            0, which only rounding can give, counts as 0.
        active (`torch.Tensor` of shape `(batch, length)`, bool).
        correct (`torch.Tensor` of shape `(batch,)`, bool).
        groups (`RolloutGroups`): of the batch.
        config (`EntropyRewardConfig`).

    Returns:
        `torch.Tensor` of shape `(batch, length)`, float64: rewards of equal entropies have to differ by far less
        than the 1e-6 that is added to the std.
    """
    is_correct = correct.bool().unsqueeze(-1)
    entropy = entropy.double().clamp(min=0.0)
    right = right_reward(entropy, active & is_correct, groups, config)
    wrong = wrong_reward(entropy, active & ~is_correct, groups, config)
    return torch.where(active, torch.where(is_correct, right, wrong), 0.0)


def right_reward(
    entropy: torch.Tensor, active: torch.Tensor, groups: RolloutGroups, config: EntropyRewardConfig
) -> torch.Tensor:
    """a1 R + a2 (H_t / sum of H) d_t with R = 1; ``active`` marks correct rollouts alone. `(batch, length)`."""
    return config.outcome_weight + config.entropy_weight * relative_weight(entropy, active, groups)


def wrong_reward(
    entropy: torch.Tensor,
    active: torch.Tensor,
    groups: RolloutGroups,
    config: EntropyRewardConfig,
    epsilon: float = 1e-8,
) -> torch.Tensor:
    """-a1 - a2 ((1/H_t) / sum of 1/H) h_t with 1e-8 on H; ``active`` marks incorrect rollouts. `(batch, length)`."""
    return -config.outcome_weight - config.entropy_weight * relative_weight(1 / (entropy + epsilon), active, groups)


def relative_weight(weight: torch.Tensor, active: torch.Tensor, groups: RolloutGroups) -> torch.Tensor:
    """(w_t / sum of w) n_t over the group's n_t rollouts active at position t: 1 on average, 1 where all are equal.

    Ours: also 1 where every weight is 0, the limit of equal weights.

    Args:
        weight (`torch.Tensor` of shape `(batch, length)`, float64): finite and not below 0.
        active (`torch.Tensor` of shape `(batch, length)`, bool).
        groups (`RolloutGroups`).

    Returns:
        `torch.Tensor` of shape `(batch, length)`, float64; 1 where not active.
    """
    total = _group_sum_by_position(torch.where(active, weight, 0.0), groups)
    number = _group_sum_by_position(active.double(), groups)
    shared = active & (total > 0)
    return torch.where(shared, weight / total.where(shared, 1.0) * number, 1.0)


def normalized_rewards(
    rewards: torch.Tensor,
    active: torch.Tensor,
    correct: torch.Tensor,
    groups: RolloutGroups,
    config: EntropyRewardConfig,
    normalize_by_std: bool,
) -> torch.Tensor:
    """(r - mean) / (std + 1e-6), apart or together as configured, and 0 in gated groups.

    Together (ours), a rollout counts as one sample in the correction of the std, since its tokens share one outcome.
    With that, equal rewards on rollouts of equal length give GRPO's advantage.

    Args:
        rewards (`torch.Tensor` of shape `(batch, length)`, float64).
        active (`torch.Tensor` of shape `(batch, length)`, bool).
        correct (`torch.Tensor` of shape `(batch,)`, bool).
        groups (`RolloutGroups`).
        config (`EntropyRewardConfig`).
        normalize_by_std (`bool`): `False` leaves the division out.

    Returns:
        `torch.Tensor` of shape `(batch, length)`, float64; 0 where not active.
    """
    if config.normalization == "apart":
        set_ids, set_count = 2 * groups.ids + correct.long(), 2 * groups.count
        row_samples = active.sum(dim=-1)
    else:
        set_ids, set_count = groups.ids, groups.count
        row_samples = active.any(dim=-1).long()
    samples = torch.zeros(set_count, dtype=torch.int64).index_add(0, set_ids, row_samples)
    value_sets = set_ids.unsqueeze(-1).expand(active.shape)[active]
    advantage = torch.zeros_like(rewards)
    advantage[active] = standardized(rewards[active], value_sets, samples, normalize_by_std)
    if config.all_wrong_groups == "off":
        advantage[groups.all_wrong(correct)[groups.ids]] = 0.0
    return advantage


def standardized(
    values: torch.Tensor, sets: torch.Tensor, samples: torch.Tensor, by_std: bool, epsilon: float = 1e-6
) -> torch.Tensor:
    """(v - mean) / (std + epsilon) inside each set; exactly 0 in a set of equal values.

    Args:
        values (`torch.Tensor` of shape `(count,)`).
        sets (`torch.Tensor` of shape `(count,)`, int64): the set of each value.
        samples (`torch.Tensor` of shape `(sets,)`, int64): independent samples in each set; the variance is the mean
            square times samples / (samples - 1).
        by_std (`bool`): `False` leaves the division out.
        epsilon (`float`, *optional*, defaults to `1e-6`): as in verl's GRPO.

    Returns:
        `torch.Tensor` of shape `(count,)`.
    """

    def reduce(of: torch.Tensor, how: str) -> torch.Tensor:
        start = torch.zeros(samples.shape, dtype=values.dtype)
        return start.scatter_reduce(0, sets, of, reduce=how, include_self=False)

    # Measured from the smallest value, so that equal values leave no rounding error to divide by epsilon.
    values = values - reduce(values, "amin")[sets]
    centred = values - reduce(values, "mean")[sets]
    if not by_std:
        return centred
    variance = reduce(centred**2, "mean") * samples / (samples - 1).clamp(min=1)
    return centred / (variance.sqrt() + epsilon)[sets]


def _group_sum_by_position(values: torch.Tensor, groups: RolloutGroups) -> torch.Tensor:
    """Each row's group sum at every position, `(batch, length)`."""
    total = values.new_zeros(groups.count, values.shape[-1]).index_add(0, groups.ids, values)
    return total[groups.ids]


def _advantage(batch: MethodBatch, config: GTPOConfig) -> torch.Tensor:
    return gtpo_advantage(
        batch.entropy, batch.response_mask, batch.correct, batch.groups, config, batch.normalize_by_std
    )


METHOD = Method(
    name="gtpo",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT, Need.ENTROPY}),
    settings=GTPOConfig.from_mapping,
)
