"""GRPO's advantage on a reward of one's own, for controls and for methods without labels.

The scorer's score has no part in it, and neither has a KL penalty that verl takes off the score. ISPO's signals, where
they are computed beside such a method, and all metrics keep the verifier's verdict as "correct".
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from verl_ispo.methods.method import Contradiction, Lookup, MethodBatch
from verl_ispo.signals.groups import group_advantage


def advantage_of_reward(reward: torch.Tensor, batch: MethodBatch) -> torch.Tensor:
    """A = (reward - mean) / (std + 1e-6) in each group, as verl's GRPO has it; a group of one keeps its reward.

    Args:
        reward (`torch.Tensor` of shape `(batch,)`): of each rollout.
        batch (`MethodBatch`): of the same rollouts; ``norm_adv_by_std_in_grpo=false`` leaves the division out.

    Returns:
        `torch.Tensor` of shape `(batch,)`, float64; 0 for a row without tokens.
    """
    has_tokens = batch.response_mask.bool().any(dim=-1)
    advantage = group_advantage(reward.double(), batch.groups, batch.normalize_by_std, min_group_std=0.0)
    return torch.where(has_tokens, advantage, 0.0)


def refuse_filter_by_verdict(setting: Lookup) -> Iterator[Contradiction]:
    """Dynamic sampling goes by the scorer's verdict, so a method without labels would learn from them after all."""
    filter_key = "algorithm.filter_groups.enable"
    if setting(filter_key):
        yield Contradiction(
            "algorithm.adv_estimator",
            filter_key,
            "the filter keeps groups by the scorer's verdict, which this method does not train on",
            f"Set {filter_key}=false.",
        )
