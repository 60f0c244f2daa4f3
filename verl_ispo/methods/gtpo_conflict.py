"""GTPO with conflict tokens (arXiv 2508.03772; `verl_ispo.methods.gtpo` is 2508.04349, which shares the name).

A conflict token is one that a rollout with A > 0 and one with A < 0 of the same prompt share at the same place. Only
the unbroken run of them from the start of a response counts, and the one at its end, where places are counted from the
end.

- On a conflict token the loss weighs 2 for A > 0 and 0 for A < 0, elsewhere 1; a token of both runs gets the product.
- A becomes A - 0.1 H with the rollout's mean entropy H, and 0 where H is above 0.7.
- Loss: -A weight log p, mean over the rollout's tokens, divided by the number of its conflict tokens (at least 1).
  No ratio and no clip.

Source: the authors' code (winstonsmith1897/GTPO at 5d33811e8ea1). Ours: A is verl's GRPO (its epsilon is 1e-6), H is
that of the policy that wrote the rollouts, which at the first update is the current one, and only tokens that the
policy wrote have places. Weight and division are in the advantage of each token; the loss adds the rest.

In all-correct and all-incorrect groups A is 0 and -0.1 H is left, so that every rollout is pushed down, the least sure
ones most. A single rollout keeps its reward, less 0.1 H.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import LossBatch, Method, MethodBatch, Need, TokenLoss
from verl_ispo.signals.groups import RolloutGroups, group_advantage

SECTION = "algorithm.gtpo_conflict"


@dataclass(frozen=True)
class GTPOConflictConfig:
    """Settings of GTPO with conflict tokens, the keys of ``algorithm.gtpo_conflict``.

    Args:
        positive_weight (`float`, *optional*, defaults to `2.0`):
            Of a conflict token where A > 0. Authors' code. At least 0.
        negative_weight (`float`, *optional*, defaults to `0.0`):
            Of a conflict token where A < 0. Authors' code. At least 0.
        entropy_weight (`float`, *optional*, defaults to `0.1`):
            How much of the mean entropy is taken from A. Authors' code. At least 0.
        max_entropy (`float`, *optional*, defaults to `0.7`):
            Rollouts of a larger mean entropy have A = 0, nats. Authors' code. At least 0.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    positive_weight: float = 2.0
    negative_weight: float = 0.0
    entropy_weight: float = 0.1
    max_entropy: float = 0.7

    def __post_init__(self) -> None:
        for name in ("positive_weight", "negative_weight", "entropy_weight", "max_entropy"):
            check_number(f"{SECTION}.{name}", getattr(self, name), low=0)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> GTPOConflictConfig:
        """Build from Hydra's section; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def shared_runs(ids: torch.Tensor, present: torch.Tensor, sign: torch.Tensor, groups: RolloutGroups) -> torch.Tensor:
    """The unbroken run, from the left, of tokens that rows of both signs share at a place, `(batch, length)` bool.

    Args:
        ids (`torch.Tensor` of shape `(batch, length)`, int64): tokens, left-aligned.
        present (`torch.Tensor` of shape `(batch, length)`, bool): where a row has a token.
        sign (`torch.Tensor` of shape `(batch,)`): of A; rows of sign 0 take no part.
        groups (`RolloutGroups`): of the rows.
    """
    shared = torch.zeros_like(present)
    for group in range(groups.count):
        rows = groups.ids == group
        up, down = (rows & (sign > 0)).nonzero().flatten(), (rows & (sign < 0)).nonzero().flatten()
        if not len(up) or not len(down):
            continue
        same = ids[up].unsqueeze(1) == ids[down].unsqueeze(0)
        same &= present[up].unsqueeze(1) & present[down].unsqueeze(0)
        shared[up], shared[down] = same.any(dim=1), same.any(dim=0)
    return shared.long().cumprod(dim=-1).bool()


def conflict_runs(
    response_ids: torch.Tensor, response_mask: torch.Tensor, sign: torch.Tensor, groups: RolloutGroups
) -> tuple[torch.Tensor, torch.Tensor]:
    """The runs of conflict tokens from the start and at the end of each response.

    Args:
        response_ids (`torch.Tensor` of shape `(batch, response_length)`, int64).
        response_mask (`torch.Tensor` of shape `(batch, response_length)`, bool).
        sign (`torch.Tensor` of shape `(batch,)`): of A.
        groups (`RolloutGroups`): of the rows.

    Returns:
        `(start, end)`, of the shape of the mask, bool.
    """
    left = (~response_mask).long().argsort(dim=-1, stable=True)
    ids, present = response_ids.gather(1, left), response_mask.gather(1, left)
    place = torch.arange(ids.shape[1], device=ids.device)
    # Maps a place to the one as far from the end, and back.
    mirrored = (present.sum(dim=-1, keepdim=True) - 1 - place).clamp(min=0)
    start = shared_runs(ids, present, sign, groups)
    end = shared_runs(ids.gather(1, mirrored), present, sign, groups).gather(1, mirrored) & present
    nowhere = torch.zeros_like(response_mask)
    return nowhere.scatter(1, left, start), nowhere.scatter(1, left, end)


def gtpo_conflict_advantage(
    advantage: torch.Tensor,
    entropy: torch.Tensor,
    response_ids: torch.Tensor,
    response_mask: torch.Tensor,
    groups: RolloutGroups,
    config: GTPOConflictConfig,
) -> torch.Tensor:
    """(A - 0.1 H) weight / number of conflict tokens of every token; 0 where not masked.

    Args:
        advantage (`torch.Tensor` of shape `(batch,)`, float64): A.
        entropy (`torch.Tensor` of shape `(batch, response_length)`): nats.
        response_ids (`torch.Tensor` of shape `(batch, response_length)`, int64).
        response_mask (`torch.Tensor` of shape `(batch, response_length)`).
        groups (`RolloutGroups`): of the rows.
        config (`GTPOConflictConfig`).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, float64.
    """
    mask = response_mask.bool()
    length = mask.sum(dim=-1).clamp(min=1)
    mean_entropy = torch.where(mask, entropy.double(), 0.0).sum(dim=-1) / length
    shaped = advantage - config.entropy_weight * mean_entropy
    shaped = torch.where(mean_entropy > config.max_entropy, 0.0, shaped)
    start, end = conflict_runs(response_ids, mask, advantage.sign(), groups)
    on_conflict = torch.where(advantage > 0, config.positive_weight, config.negative_weight).unsqueeze(-1).double()
    weight = torch.where(start, on_conflict, 1.0) * torch.where(end, on_conflict, 1.0)
    conflicts = (start | end).sum(dim=-1).clamp(min=1)
    return torch.where(mask, (shaped / conflicts).unsqueeze(-1) * weight, 0.0)


def gtpo_conflict_loss(batch: LossBatch, config: GTPOConflictConfig) -> TokenLoss:
    """-A sg(1 / r) r, which has the value -A and the gradient of -A log p."""
    change = torch.where(batch.response_mask, batch.unclamped_log_ratio, 0.0)
    return TokenLoss(-batch.advantages * (change - change.detach()).exp(), torch.zeros_like(batch.response_mask))


def _advantage(batch: MethodBatch, config: GTPOConflictConfig) -> torch.Tensor:
    scores, groups = batch.rewards.double().sum(dim=-1), batch.groups
    # Measured from the group's smallest score, so that equal scores have no sign from rounding.
    lowest = torch.where(groups.size == 1, 0.0, groups.reduce(scores, "amin"))
    advantage = group_advantage(scores - lowest[groups.ids], groups, batch.normalize_by_std, min_group_std=0.0)
    return gtpo_conflict_advantage(advantage, batch.entropy, batch.response_ids, batch.response_mask, groups, config)


METHOD = Method(
    name="gtpo_conflict",
    advantage=_advantage,
    needs=frozenset({Need.ENTROPY, Need.RESPONSE_IDS}),
    settings=GTPOConflictConfig.from_mapping,
    token_loss=gtpo_conflict_loss,
)
