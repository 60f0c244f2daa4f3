"""ADORA: GRPO's advantage, a tenth of it in groups whose correct rollouts are not long enough.

A group keeps its advantages where the longest correct rollout is longer than the mean of the incorrect ones that are
shorter than the length limit; otherwise they are multiplied by 0.1.

Source: the authors' code (ShadeCloak/ADORA, commit c518485324b1) and blog; there is no arXiv number. "Correct" is the
verifier's verdict (ours; there a score above 1.01, since a format reward is in it). An empty side counts as minus
infinity, as there: a group without a correct rollout is damped, one without a counted incorrect rollout is not. So an
all-correct group is kept and an all-incorrect one damped, but with equal scores both are 0; a single rollout keeps its
score, damped if incorrect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.adora"


@dataclass(frozen=True)
class ADORAConfig:
    """Settings of ADORA, the keys of ``algorithm.adora``.

    Args:
        damping (`float`, *optional*, defaults to `0.1`):
            What a damped group's advantages are multiplied by. In [0, 1]; `1` is GRPO. Authors' code: 0.1.
        length_limit (`float`, *optional*):
            Tokens from which on an incorrect rollout counts as cut off and is left out of the mean. At least 1; `None`
            counts all. Authors' code: 3900 to 4054 where 4096 tokens are generated; the preset has
            ``data.max_response_length`` (ours).

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    damping: float = 0.1
    length_limit: float | None = None

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.damping", self.damping, low=0, high=1)
        if self.length_limit is not None:
            check_number(f"{SECTION}.length_limit", self.length_limit, low=1)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> ADORAConfig:
        """Build from Hydra's ``algorithm.adora``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def length_advantage(
    length: torch.Tensor, correct: torch.Tensor, groups: RolloutGroups, length_limit: float | None
) -> torch.Tensor:
    """Groups whose longest correct rollout is longer than the mean of their counted incorrect ones, `(count,)` bool.

    Args:
        length (`torch.Tensor` of shape `(batch,)`): tokens of each response.
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict.
        groups (`RolloutGroups`).
        length_limit (`float`, *optional*): incorrect rollouts of so many tokens or more are not counted.
    """
    length = length.double()
    counted = ~correct if length_limit is None else ~correct & (length < length_limit)
    longest = groups.reduce(torch.where(correct, length, -torch.inf), "amax")
    number = groups.reduce(counted.double(), "sum")
    mean = groups.reduce(torch.where(counted, length, 0.0), "sum") / number.clamp(min=1)
    return longest > torch.where(number > 0, mean, -torch.inf)


def _advantage(batch: MethodBatch, config: ADORAConfig) -> torch.Tensor:
    length = batch.response_mask.bool().sum(dim=-1)
    kept = length_advantage(length, batch.correct, batch.groups, config.length_limit)
    advantage = batch.grpo_advantage.double()
    return torch.where(kept[batch.groups.ids].unsqueeze(-1), advantage, config.damping * advantage)


METHOD = Method(
    name="adora",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT, Need.GRPO_ADVANTAGE}),
    settings=ADORAConfig.from_mapping,
)
