"""AVSPO (arXiv 2605.21125): in groups of one outcome, virtual rewards enter the mean and the std of GRPO's advantage.

A = (R - mean) / (std + 1e-4) over the group's G outcomes and m virtual ones; mixed groups keep GRPO's advantage.

Source: text and authors' code differ, and `virtual_rewards` chooses.

- "stratified", the text, as a re-implementation by others has it (just-a-go/SOVA-TW-GRPO, commit 9c37c9ecd6c7); the
  authors' README names the same first threshold and power. Only where the share c of collapsed groups in the step
  exceeds a threshold, m = ceil(G c^0.5) within [1, G] rewards: 1 - k / (m + 1) in all-correct groups and
  0.1 (m - k + 1) / m in all-incorrect ones, k = 1..m. Biased std. The threshold starts at 0.5; after each step it moves
  by 0.01 (c - threshold), forward if the step's accuracy has risen and back if it has fallen, within [0.1, 0.9].
- "opposite", the authors' code (hexixiang/ACR, commit ca40ccf62954): one virtual reward of the other outcome in each
  group, and only if all rollouts of the step have one outcome. Unbiased std, no threshold.

R is the verifier's verdict, and "collapsed" goes by it (ours). A single rollout is a collapsed group (ours).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_choice, check_number, from_section
from verl_ispo.methods.method import Contradiction, Lookup, Method, MethodBatch, MethodState, Need
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.avspo"
VIRTUAL_REWARDS = ("stratified", "opposite")


@dataclass(frozen=True)
class AVSPOConfig:
    """Settings of AVSPO, the keys of ``algorithm.avspo``; all but the first and the last are for `"stratified"` alone.

    Args:
        virtual_rewards (`str`, *optional*, defaults to `"stratified"`):
            Which rewards are added, and when: `"stratified"` (text) or `"opposite"` (authors' code).
        initial_threshold (`float`, *optional*, defaults to `0.5`):
            Share of collapsed groups above which the first step adds rewards. In [0, 1].
        threshold_rate (`float`, *optional*, defaults to `0.01`):
            How far the threshold moves in one step. In [0, 1].
        threshold_min (`float`, *optional*, defaults to `0.1`):
            The threshold's lower bound. In [0, 1].
        threshold_max (`float`, *optional*, defaults to `0.9`):
            The threshold's upper bound. In [0, 1], not below the lower one.
        sensitivity (`float`, *optional*, defaults to `0.5`):
            Power of the share in the number of virtual rewards. In (0, 1].
        anchor_reward (`float`, *optional*, defaults to `0.1`):
            The largest virtual reward of an all-incorrect group. Above 0.
        epsilon (`float`, *optional*, defaults to `1e-4`):
            Added to the std of a collapsed group. Above 0.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    virtual_rewards: str = "stratified"
    initial_threshold: float = 0.5
    threshold_rate: float = 0.01
    threshold_min: float = 0.1
    threshold_max: float = 0.9
    sensitivity: float = 0.5
    anchor_reward: float = 0.1
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        check_choice(f"{SECTION}.virtual_rewards", self.virtual_rewards, VIRTUAL_REWARDS)
        for name in ("initial_threshold", "threshold_rate", "threshold_min"):
            check_number(f"{SECTION}.{name}", getattr(self, name), low=0, high=1)
        check_number(f"{SECTION}.threshold_max", self.threshold_max, low=self.threshold_min, high=1)
        check_number(f"{SECTION}.sensitivity", self.sensitivity, low=0, high=1, low_open=True)
        for name in ("anchor_reward", "epsilon"):
            check_number(f"{SECTION}.{name}", getattr(self, name), low=0, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> AVSPOConfig:
        """Build from Hydra's ``algorithm.avspo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


@dataclass(frozen=True)
class CollapseThreshold:
    """What AVSPO carries from step to step.

    Attributes:
        threshold: share of collapsed groups above which a step adds rewards; `None` before the first step, for
            `initial_threshold`.
        accuracy: of the step before; `None` before the first.
    """

    threshold: float | None = None
    accuracy: float | None = None


def collapsed_groups(correct: torch.Tensor, response_mask: torch.Tensor, groups: RolloutGroups) -> torch.Tensor:
    """Groups with tokens whose rollouts are all correct or all incorrect, `(count,)` bool."""
    return groups.with_tokens(response_mask) & (groups.all_wrong(correct) | groups.all_right(correct))


def collapse_rate(correct: torch.Tensor, response_mask: torch.Tensor, groups: RolloutGroups) -> float:
    """c, the share of collapsed groups among those with tokens; 0 without any."""
    prompts = int(groups.with_tokens(response_mask).sum())
    return int(collapsed_groups(correct, response_mask, groups).sum()) / max(prompts, 1)


def stratified_rewards(outcome: float, number: int, anchor_reward: float) -> torch.Tensor:
    """1 - k / (m + 1) below an outcome of 1, anchor (m - k + 1) / m above one of 0, k = 1..m; `(number,)` float64."""
    k = torch.arange(1, number + 1, dtype=torch.float64)
    return 1 - k / (number + 1) if outcome else anchor_reward * (number - k + 1) / number


def virtual_rewards(outcome: float, size: int, rate: float, config: AVSPOConfig) -> torch.Tensor:
    """The virtual rewards of a collapsed group.

    Args:
        outcome (`float`): of all its rollouts, 0 or 1.
        size (`int`): G.
        rate (`float`): c.
        config (`AVSPOConfig`).

    Returns:
        `torch.Tensor` of shape `(m,)`, float64.
    """
    if config.virtual_rewards == "opposite":
        return torch.tensor([1.0 - outcome], dtype=torch.float64)
    # 1e-9 undoes rounding such as 4 * 0.25 ** 0.5 = 2.0000000000000004.
    number = min(max(math.ceil(size * rate**config.sensitivity - 1e-9), 1), size)
    return stratified_rewards(outcome, number, config.anchor_reward)


def avspo_advantage(
    grpo_advantage: torch.Tensor,
    correct: torch.Tensor,
    response_mask: torch.Tensor,
    groups: RolloutGroups,
    state: CollapseThreshold,
    config: AVSPOConfig,
) -> torch.Tensor:
    """GRPO's advantage, and that with virtual rewards in the collapsed groups of a step that adds them.

    Args:
        grpo_advantage (`torch.Tensor` of shape `(batch, response_length)`): verl's own.
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): 1 where the policy wrote the token.
        groups (`RolloutGroups`).
        state (`CollapseThreshold`): before this step.
        config (`AVSPOConfig`).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, float64.
    """
    advantage = grpo_advantage.double().clone()
    rate = collapse_rate(correct, response_mask, groups)
    if not _adds_rewards(correct, response_mask, groups, rate, state, config):
        return advantage
    mask = response_mask.bool()
    for group in collapsed_groups(correct, response_mask, groups).nonzero().flatten().tolist():
        rows = groups.ids == group
        outcome, size = float(correct[rows][0]), int(groups.size[group])
        added = virtual_rewards(outcome, size, rate, config)
        together = torch.cat([torch.full((size,), outcome, dtype=torch.float64), added])
        std = together.std(unbiased=config.virtual_rewards == "opposite")
        value = (outcome - together.mean()) / (std + config.epsilon)
        advantage[rows] = torch.where(mask[rows], value, 0.0)
    return advantage


def _adds_rewards(
    correct: torch.Tensor,
    response_mask: torch.Tensor,
    groups: RolloutGroups,
    rate: float,
    state: CollapseThreshold,
    config: AVSPOConfig,
) -> bool:
    if config.virtual_rewards == "opposite":
        outcomes = correct[groups.with_tokens(response_mask)[groups.ids]]
        return len(outcomes) > 0 and bool((outcomes == outcomes[0]).all())
    return rate > (config.initial_threshold if state.threshold is None else state.threshold)


def next_threshold(before: CollapseThreshold, batch: MethodBatch, config: AVSPOConfig) -> CollapseThreshold:
    """The threshold after one more step; with `"opposite"`, which has none, it stays as it is."""
    rows = batch.groups.with_tokens(batch.response_mask)[batch.groups.ids]
    if config.virtual_rewards == "opposite" or not rows.any():
        return before
    rate = collapse_rate(batch.correct, batch.response_mask, batch.groups)
    accuracy = float(batch.correct[rows].double().mean())
    threshold = config.initial_threshold if before.threshold is None else before.threshold
    if before.accuracy is not None:
        direction = (accuracy > before.accuracy) - (accuracy < before.accuracy)
        moved = threshold + config.threshold_rate * direction * (rate - threshold)
        threshold = min(max(moved, config.threshold_min), config.threshold_max)
    return CollapseThreshold(threshold, accuracy)


def contradictions(setting: Lookup) -> Iterator[Contradiction]:
    """verl's group filter removes what AVSPO adds to GRPO."""
    filter_key = "algorithm.filter_groups.enable"
    if setting(filter_key):
        yield Contradiction(
            "algorithm.adv_estimator",
            filter_key,
            "the filter throws away the groups of one outcome that AVSPO is to learn from",
            f"Set {filter_key}=false.",
        )


def _advantage(batch: MethodBatch, config: AVSPOConfig) -> torch.Tensor:
    state = batch.state or CollapseThreshold()
    return avspo_advantage(batch.grpo_advantage, batch.correct, batch.response_mask, batch.groups, state, config)


METHOD = Method(
    name="avspo",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT, Need.GRPO_ADVANTAGE}),
    settings=AVSPOConfig.from_mapping,
    state=MethodState(name="collapse_threshold", kind=CollapseThreshold, update=next_threshold),
    contradictions=contradictions,
)
