"""HAPO (arXiv 2509.16591): advantages normalized over tokens, and a clip and an advantage that follow the entropy.

- Advantage: (R - mean) / (std + 1e-6) with mean and biased std over the group's tokens, each of which has its rollout's
  score, so that long rollouts count more. Where an |A| of the group is 5 or more, the whole group has GRPO's.
- Entropy: x = log max(H, 1e-8) of the current policy, less its 0.8 quantile over the micro-batch, divided by the root
  mean square; h = x / max for x > 0. For x <= 0 the code has h = x / min, which is not negative either, so that only
  h = 0 counts as low; the text has h = x / |min|, in [-1, 0] (`reading`).
- Clip: for h > 0 the upper width is (1 + h) clip_high; for h <= 0 the lower one is (1 - h) clip_low.
- Loss: verl's clipped one with A (1 + h) in place of A: for h > 0 where r is outside of (1 - low / 2, 1 + high / 2),
  for h <= 0 where it is inside, low and high being the widths that were just made.

Source: the authors' code (starriver030515/HAPO at 7671dde3e268); the text's range of h as told by others. The
temperature that follows the entropy needs a patched sampler and is left out. The quantile is the nearest value.

h is over a micro-batch, in the authors' code as here: the loss depends on how micro-batches are cut. h passes no
gradient.

All-correct and all-incorrect groups get 0, and so does a single rollout, whose tokens have one score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_choice, check_number, from_section
from verl_ispo.methods.clipped_loss import dual_clipped_loss
from verl_ispo.methods.method import LossBatch, Method, MethodBatch, TokenLoss
from verl_ispo.signals.groups import RolloutGroups, group_advantage

SECTION = "algorithm.hapo"
READINGS = ("code", "text")


@dataclass(frozen=True)
class HAPOConfig:
    """Settings of HAPO, the keys of ``algorithm.hapo``.

    Args:
        reading (`str`, *optional*, defaults to `"code"`):
            h of tokens below the quantile: in [0, 1] as the authors' code has it, or in [-1, 0] as the text (`"text"`).
        entropy_quantile (`float`, *optional*, defaults to `0.8`):
            Quantile of the log-entropies at which h is 0. Authors' scripts. In [0, 1].
        clip_weight (`float`, *optional*, defaults to `1.0`):
            How much h widens the clip. Authors' scripts. At least 0.
        advantage_weight (`float`, *optional*, defaults to `1.0`):
            How much h changes the advantage. Authors' scripts. In [0, 1], so that no advantage changes its sign.
        max_token_advantage (`float`, *optional*, defaults to `5.0`):
            From this |A| on, a group has GRPO's advantage. Authors' code. Above 0.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    reading: str = "code"
    entropy_quantile: float = 0.8
    clip_weight: float = 1.0
    advantage_weight: float = 1.0
    max_token_advantage: float = 5.0

    def __post_init__(self) -> None:
        check_choice(f"{SECTION}.reading", self.reading, READINGS)
        check_number(f"{SECTION}.entropy_quantile", self.entropy_quantile, low=0, high=1)
        check_number(f"{SECTION}.clip_weight", self.clip_weight, low=0)
        check_number(f"{SECTION}.advantage_weight", self.advantage_weight, low=0, high=1)
        check_number(f"{SECTION}.max_token_advantage", self.max_token_advantage, low=0, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> HAPOConfig:
        """Build from Hydra's ``algorithm.hapo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def hapo_advantage(
    scores: torch.Tensor,
    response_mask: torch.Tensor,
    groups: RolloutGroups,
    max_token_advantage: float,
    normalize_by_std: bool = True,
    epsilon: float = 1e-6,
) -> torch.Tensor:
    """(R - mean) / (std + epsilon) over the group's tokens, or GRPO's advantage where that is too large.

    Args:
        scores (`torch.Tensor` of shape `(batch,)`): R.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): rows without tokens have no weight, and 0.
        groups (`RolloutGroups`): of the rows.
        max_token_advantage (`float`): from this |A| on, a group has GRPO's.
        normalize_by_std (`bool`, *optional*, defaults to `True`): `False` leaves the division out.
        epsilon (`float`, *optional*, defaults to `1e-6`): authors' code.

    Returns:
        `torch.Tensor` of shape `(batch,)`, float64.
    """
    scores, tokens = scores.double(), response_mask.bool().sum(dim=-1).double()
    per_group = groups.reduce(tokens, "sum").clamp(min=1)
    # Measured from the group's smallest score, so that equal scores leave no rounding error to divide by epsilon.
    scores = scores - groups.reduce(scores, "amin")[groups.ids]
    mean = groups.reduce(tokens * scores, "sum") / per_group
    centred = torch.where(tokens > 0, scores - mean[groups.ids], 0.0)
    std = (groups.reduce(tokens * centred.square(), "sum") / per_group).sqrt()
    advantage = centred / (std[groups.ids] + epsilon) if normalize_by_std else centred
    too_large = groups.reduce(advantage.abs(), "amax") >= max_token_advantage
    grpo = group_advantage(scores, groups, normalize_by_std, min_group_std=0.0)
    return torch.where(too_large[groups.ids] & (tokens > 0), grpo, advantage)


def entropy_scale(entropy: torch.Tensor, response_mask: torch.Tensor, quantile: float, reading: str) -> torch.Tensor:
    """h of every token: 0 at the quantile of the log-entropies, 1 at their largest; 0 where not masked.

    Args:
        entropy (`torch.Tensor` of shape `(batch, response_length)`): nats, of the current policy.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`, bool).
        quantile (`float`): the nearest value is taken.
        reading (`str`): below the quantile h rises to 1 again (`"code"`) or falls to -1 (`"text"`).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, float64.
    """
    h = torch.zeros(entropy.shape, dtype=torch.float64, device=entropy.device)
    if not response_mask.any():
        return h
    x = entropy[response_mask].double().clamp(min=1e-8).log()
    x = x - x.sort().values[round(quantile * (len(x) - 1))]
    x = x / x.square().mean().clamp(min=1e-8).sqrt()
    # As in the authors' code, both extremes are at least 1e-8 away from 0.
    above, below = x.amax().clamp(min=1e-8), x.amin().clamp(max=-1e-8)
    h[response_mask] = torch.where(x > 0, x / above, x / (below if reading == "code" else -below))
    return h


def hapo_loss(batch: LossBatch, config: HAPOConfig) -> TokenLoss:
    """verl's clipped loss with widths and advantages that follow h."""
    h = entropy_scale(batch.entropy, batch.response_mask, config.entropy_quantile, config.reading)
    h = h.to(batch.advantages.dtype)
    clip_low = batch.clip_low * torch.where(h > 0, 1.0, 1 - config.clip_weight * h)
    clip_high = batch.clip_high * torch.where(h > 0, 1 + config.clip_weight * h, 1.0)
    ratio = batch.log_ratio.detach().exp()
    neutral = (ratio > 1 - clip_low / 2) & (ratio < 1 + clip_high / 2)
    scaled = batch.advantages * (1 + config.advantage_weight * h)
    advantages = torch.where((h > 0) == neutral, batch.advantages, scaled)
    return TokenLoss(*dual_clipped_loss(batch, advantages, clip_low, clip_high))


def _advantage(batch: MethodBatch, config: HAPOConfig) -> torch.Tensor:
    scores = batch.rewards.sum(dim=-1)
    return hapo_advantage(scores, batch.response_mask, batch.groups, config.max_token_advantage, batch.normalize_by_std)


METHOD = Method(
    name="hapo",
    advantage=_advantage,
    settings=HAPOConfig.from_mapping,
    token_loss=hapo_loss,
    loss_needs_entropy=True,
)
