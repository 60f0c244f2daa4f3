"""A-GRAE (arXiv 2602.05548): GRPO's advantage weighted by accuracy, positive ones damped while the step's is low.

s is GRPO's advantage, p the group's accuracy, mu the mean of p over the step's prompts.
A = (1 - mu) s / (2 (1 - sqrt(p) + 1e-6)) + mu s / (2 (sqrt(p) + 1e-6)); where A > 0 also times min(1, mu / a).

Source: the authors' code (Yu7-code/A-GRAE, commit 5f129eff8e6a). R is the verifier's verdict (ours: p is an accuracy
under a square root). All-correct and all-incorrect groups have s = 0. Ours: a group of one rollout gets 0, since the
division by 1e-6 would give it up to 5e5, and it counts in mu with its own outcome (there with 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.signals.groups import RolloutGroups, group_advantage

SECTION = "algorithm.a_grae"
EPSILON = 1e-6


@dataclass(frozen=True)
class AGRAEConfig:
    """Settings of A-GRAE, the keys of ``algorithm.a_grae``.

    Args:
        full_accuracy (`float`, *optional*, defaults to `1.0`):
            a, the mean accuracy of the step from which on positive advantages are whole. In (0, 1]. Authors' code: 1
            for mathematics, 0.5 for geometry and medicine.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    full_accuracy: float = 1.0

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.full_accuracy", self.full_accuracy, low=0, high=1, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> AGRAEConfig:
        """Build from Hydra's ``algorithm.a_grae``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def a_grae_advantage(
    correct: torch.Tensor,
    response_mask: torch.Tensor,
    groups: RolloutGroups,
    config: AGRAEConfig,
    normalize_by_std: bool = True,
) -> torch.Tensor:
    """The blend of both divisions, positive advantages damped; groups without tokens pad the batch.

    Args:
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict, R.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): 1 where the policy wrote the token.
        groups (`RolloutGroups`).
        config (`AGRAEConfig`).
        normalize_by_std (`bool`, *optional*, defaults to `True`): `False` leaves the std out of s, as in Dr.GRPO.

    Returns:
        `torch.Tensor` of shape `(batch,)`, float64.
    """
    outcome = correct.double()
    accuracy = groups.reduce(outcome, "mean")
    prompts = groups.with_tokens(response_mask)
    mean = accuracy[prompts].mean() if prompts.any() else accuracy.new_zeros(())
    grpo = group_advantage(outcome, groups, normalize_by_std, min_group_std=0.0, epsilon=EPSILON)
    root = accuracy.sqrt()[groups.ids]
    advantage = (1 - mean) * 0.5 * grpo / (1 - root + EPSILON) + mean * 0.5 * grpo / (root + EPSILON)
    damped = advantage * (mean / config.full_accuracy).clamp(max=1)
    return torch.where((groups.size == 1)[groups.ids], 0.0, torch.where(advantage > 0, damped, advantage))


def _advantage(batch: MethodBatch, config: AGRAEConfig) -> torch.Tensor:
    return a_grae_advantage(batch.correct, batch.response_mask, batch.groups, config, batch.normalize_by_std)


METHOD = Method(name="a_grae", advantage=_advantage, needs=frozenset({Need.CORRECT}), settings=AGRAEConfig.from_mapping)
