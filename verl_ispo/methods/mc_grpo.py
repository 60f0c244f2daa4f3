"""MC-GRPO (arXiv 2601.22582): the group's median as baseline, and the rollout that has it leaves the loss.

    A = (R - median) / (MAD + 1e-3), MAD = median of |R - median|, over the G + 1 rollouts of a prompt

Both medians are the lower ones. R is the scorer's score. G + 1 is ``actor_rollout_ref.rollout.n`` itself.

Source: the authors' code (lotusroot-kim/MC-GRPO at da077455d4cb). With 0/1 scores both medians are outcomes, and MAD is
always 0: rollouts of the more frequent outcome get 0, the others 1000 or -1000. Groups whose scores are all equal get
nothing. Ours: a rollout alone in its group gets nothing and stays in the loss. Of several rollouts at the median the
one of lower median length leaves, whatever the order of rows; it has A = 0, so only the number of tokens that the loss
is divided by depends on it (the authors take the one that torch's median names).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import Contradiction, Lookup, Method, MethodBatch
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.mc_grpo"
# An advantage this near to 0 counts as 0 in the rescaling. Authors' code.
ZERO = 1e-6


@dataclass(frozen=True)
class MCGRPOConfig:
    """Settings of MC-GRPO, the keys of ``algorithm.mc_grpo``.

    Args:
        mad_epsilon (`float`, *optional*, defaults to `1e-3`):
            Added to MAD, in units of score. Above 0. Authors' code.
        rescale_nonzero (`bool`, *optional*, defaults to `False`):
            Multiply a group's advantages by its rollouts / its advantages that are not 0. The authors' trainer for
            GSM8K does so, the one for MATH does not.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    mad_epsilon: float = 1e-3
    rescale_nonzero: bool = False

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.mad_epsilon", self.mad_epsilon, low=0, low_open=True)
        if not isinstance(self.rescale_nonzero, bool):
            raise ValueError(f"{SECTION}.rescale_nonzero must be true or false, got {self.rescale_nonzero!r}")

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> MCGRPOConfig:
        """Build from Hydra's ``algorithm.mc_grpo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def group_median(values: torch.Tensor, groups: RolloutGroups) -> torch.Tensor:
    """The lower median of each group's values, `(groups,)`."""
    return torch.stack([values[groups.ids == group].median() for group in range(groups.count)])


def mc_grpo_advantage(reward: torch.Tensor, groups: RolloutGroups, config: MCGRPOConfig) -> torch.Tensor:
    """A = (R - median) / (MAD + epsilon), and the rescaling if that is set.

    Args:
        reward (`torch.Tensor` of shape `(batch,)`): R.
        groups (`RolloutGroups`): of the rows.
        config (`MCGRPOConfig`).

    Returns:
        `torch.Tensor` of shape `(batch,)`, float64.
    """
    centred = reward.double() - group_median(reward.double(), groups)[groups.ids]
    mad = group_median(centred.abs(), groups)
    advantage = centred / (mad + config.mad_epsilon)[groups.ids]
    if config.rescale_nonzero:
        nonzero = advantage.abs() > ZERO
        share = groups.reduce(nonzero.double(), "mean")
        advantage = torch.where(nonzero, advantage / share[groups.ids].clamp(min=1 / len(reward)), advantage)
    return advantage


def not_the_median(batch: MethodBatch, config: MCGRPOConfig) -> torch.Tensor:
    """Which rollouts stay in the loss, `(batch,)` bool: all but one of each group, which has the median's score."""
    reward, lengths = batch.rewards.sum(dim=-1), batch.response_mask.sum(dim=-1)
    median = group_median(reward, batch.groups)
    kept = torch.ones(len(reward), dtype=torch.bool, device=reward.device)
    for group in range(batch.groups.count):
        if batch.groups.size[group] > 1:
            at_median = ((batch.groups.ids == group) & (reward == median[group])).nonzero().squeeze(-1)
            by_length = at_median[lengths[at_median].argsort(stable=True)]
            kept[by_length[(len(by_length) - 1) // 2]] = False
    return kept


def contradictions(setting: Lookup) -> Iterator[Contradiction]:
    """A KL penalty in the reward, without which the row that leaves the loss is chosen."""
    kl_key = "algorithm.use_kl_in_reward"
    if setting(kl_key):
        yield Contradiction(
            "algorithm.adv_estimator",
            kl_key,
            "MC-GRPO's medians are those of the scores, without a KL penalty",
            f"Set {kl_key}=false; actor_rollout_ref.actor.use_kl_loss=true has the penalty in the loss.",
        )


def _advantage(batch: MethodBatch, config: MCGRPOConfig) -> torch.Tensor:
    return mc_grpo_advantage(batch.rewards.sum(dim=-1), batch.groups, config)


METHOD = Method(
    name="mc_grpo",
    advantage=_advantage,
    settings=MCGRPOConfig.from_mapping,
    keeps=not_the_median,
    contradictions=contradictions,
)
