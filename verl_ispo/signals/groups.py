"""What a group of G rollouts is needed for: outcome classes, guards (ours), spread, a floor under the std (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.signals.composite import ISPOReward, composite_reward, reward_parts
from verl_ispo.signals.right_answer import RightAnswerScores, right_answer_gain


@dataclass(frozen=True)
class RolloutGroups:
    """Which rollouts share a prompt.

    Attributes:
        ids: `(batch,)` int64 in [0, count).
        count: number of groups.
        size: `(count,)` int64.
    """

    ids: torch.Tensor
    count: int
    size: torch.Tensor

    @classmethod
    def from_labels(cls, labels: Sequence[Any] | np.ndarray, device: torch.device | str = "cpu") -> RolloutGroups:
        """From any hashable labels, one per row; only their equality matters. ``device``: where the values are."""
        numbers: dict[Any, int] = {}
        ids = torch.tensor(
            [numbers.setdefault(label, len(numbers)) for label in labels], dtype=torch.int64, device=device
        )
        return cls(ids=ids, count=len(numbers), size=torch.bincount(ids, minlength=len(numbers)))

    def reduce(self, values: torch.Tensor, how: str) -> torch.Tensor:
        """Per-group `amin`, `amax`, `mean` or `sum` of `(batch,)` values, shape `(count,)`."""
        start = values.new_zeros(self.count)
        return start.scatter_reduce(0, self.ids, values, reduce=how, include_self=False)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Largest minus smallest value of each group, `(count,)`."""
        return self.reduce(values, "amax") - self.reduce(values, "amin")

    def with_tokens(self, response_mask: torch.Tensor) -> torch.Tensor:
        """Groups with at least one token, `(count,)` bool; the others only pad the batch, and no prompt is theirs."""
        return self.reduce(response_mask.bool().any(dim=-1).float(), "amax") > 0

    def all_wrong(self, correct: torch.Tensor) -> torch.Tensor:
        """Groups without a correct rollout, `(count,)` bool."""
        return self.reduce(correct.float(), "amax") == 0

    def all_right(self, correct: torch.Tensor) -> torch.Tensor:
        """Groups without an incorrect rollout, `(count,)` bool."""
        return self.reduce(correct.float(), "amin") == 1


def guarded_reward(
    reward: ISPOReward,
    correct: torch.Tensor,
    groups: RolloutGroups,
    config: ISPOConfig,
    right_answer: RightAnswerScores | None = None,
) -> ISPOReward:
    """The reward with the guards (ours) in its parts and total, per group; with the defaults it is unchanged.

    With `all_wrong_groups="right_answer"` the sequence term of a group without a correct rollout is ifd_weight times
    the gain of the correct answer, with a plus sign. A rollout of such a group that was not scored has its group's
    lowest gain, or 0 where none was scored. One without an answer then gets the group's lowest composite: never more
    than an answered one, and all get the same where nobody answered. With ifd_weight 0 it is `"token_only"`.

    Args:
        reward (`ISPOReward`): of the batch, from `compute_ispo_reward`.
        correct (`torch.Tensor` of shape `(batch,)`, bool).
        groups (`RolloutGroups`): of the batch.
        config (`ISPOConfig`): `all_wrong_groups`, `all_right_groups` and `missing_answer` are read here, and the bounds
            of the correct answer's gain, `max_abs_ifd` and `min_right_answer_gain`.
        right_answer (`RightAnswerScores`, *optional*): of the batch; needed with `all_wrong_groups="right_answer"`,
            and read in groups without a correct rollout alone.

    Returns:
        `ISPOReward`.

    Raises:
        ValueError: `all_wrong_groups="right_answer"` without ``right_answer``.
        NonFiniteSignalError: NaN or infinity among the correct answers' log-probs.
    """
    ifd, ifd_sign = reward.ifd, 2.0 * correct.float() - 1.0
    takes_lowest = ~reward.answer_found if config.missing_answer == "group_min" else None
    ifd_weight = torch.full_like(ifd_sign, config.ifd_weight)
    token_weight = torch.full_like(ifd_sign, config.token_weight)
    classes = (
        (groups.all_wrong(correct), config.all_wrong_groups),
        (groups.all_right(correct), config.all_right_groups),
    )
    for group_mask, mode in classes:
        rows = group_mask[groups.ids]
        if mode in ("informative", "right_answer"):
            ifd_sign = torch.where(rows, 1.0, ifd_sign)
        if mode == "right_answer":
            if right_answer is None:
                raise ValueError("all_wrong_groups='right_answer' needs right_answer, the correct answers' log-probs")
            ifd = torch.where(rows, _bounded_gain(right_answer, groups, config), ifd)
            if takes_lowest is None and config.ifd_weight > 0:
                takes_lowest = rows & ~reward.answer_found
        if mode in ("off", "token_only"):
            ifd_weight = torch.where(rows, 0.0, ifd_weight)
        if mode == "off":
            token_weight = torch.where(rows, 0.0, token_weight)
    parts = reward_parts(reward.parts.outcome, ifd, reward.token_reward, ifd_sign, ifd_weight, token_weight)
    total = composite_reward(parts)
    if takes_lowest is not None:
        lowest = torch.where(takes_lowest, groups.reduce(total, "amin")[groups.ids], total)
        parts, total = replace(parts, missing_answer=lowest - total), lowest
    return replace(reward, parts=parts, total=total)


def _bounded_gain(scores: RightAnswerScores, groups: RolloutGroups, config: ISPOConfig) -> torch.Tensor:
    """The gain of the correct answer within its bounds, `(batch,)`; the group's lowest where it was not scored."""
    gain, scored = right_answer_gain(scores), scores.scored
    if config.max_abs_ifd is not None:
        gain = gain.clamp(-config.max_abs_ifd, config.max_abs_ifd)
    if config.min_right_answer_gain is not None:
        gain = gain.clamp(min=config.min_right_answer_gain)
    lowest = groups.reduce(torch.where(scored, gain, torch.inf), "amin")
    return torch.where(scored, gain, torch.where(lowest.isinf(), 0.0, lowest)[groups.ids])


def one_success_std(group_size: torch.Tensor) -> torch.Tensor:
    """Unbiased standard deviation of one success among G outcomes, 1 / sqrt(G), `(count,)` (ours)."""
    return group_size.float().rsqrt()


def group_advantage(
    rewards: torch.Tensor,
    groups: RolloutGroups,
    normalize_by_std: bool,
    min_group_std: float,
    one_success_std_in: torch.Tensor | None = None,
    epsilon: float = 1e-6,
) -> torch.Tensor:
    """(R - mean) / (max(std, min_group_std) + epsilon) inside each group; floor and one-success std are ours.

    As in verl's GRPO the std is the unbiased one, and a group of one keeps its reward as it is.

    Args:
        rewards (`torch.Tensor` of shape `(batch,)`).
        groups (`RolloutGroups`).
        normalize_by_std (`bool`): `False` leaves the division out, as in Dr.GRPO.
        min_group_std (`float`): floor under the std, in units of reward.
        one_success_std_in (`torch.Tensor` of shape `(count,)`, bool, *optional*): groups whose std is replaced by that
            of one success among as many rollouts.
        epsilon (`float`, *optional*, defaults to `1e-6`): as verl's.

    Returns:
        `torch.Tensor` of shape `(batch,)`.
    """
    alone = groups.size == 1
    mean = torch.where(alone, 0.0, groups.reduce(rewards, "mean"))
    centred = rewards - mean[groups.ids]
    if not normalize_by_std:
        return centred
    variance = groups.reduce(centred**2, "sum") / (groups.size - 1).clamp(min=1)
    std = variance.sqrt()
    if one_success_std_in is not None:
        std = torch.where(one_success_std_in, one_success_std(groups.size), std)
    std = torch.where(alone, 1.0, std.clamp(min=min_group_std))
    return centred / (std[groups.ids] + epsilon)
