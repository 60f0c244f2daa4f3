"""ASPO (arXiv 2510.06062, Archer 2.0): tokens of positive advantage weigh 1 / r, and uncertain ones get a wider clip.

r' is max(r, 1 - e) for A < 0 and min(r, 1 + e) otherwise; e is 0.2 for a token of low entropy, 0.4 for the others. Low
is an entropy up to the 0.8 quantile of its response under the current policy.

- A < 0: -A r'; where r' > 3, -3 A log p, so that the token keeps a gradient of bounded size.
- A >= 0: -A (r' / sg r') / sg r', so that a token that has become less likely is pushed harder, by 1 / r'; where
  1 / r' > 3, -3 A log p.

Source: the authors' code (wizard-III/Archer2.0 at b08d963d5d65), whose mask of low entropies is named
``high_entropy_mask``. Log-ratios are clamped to [-20, 20]. Its KL term of 0.001 is left out, as in all of this
comparison.

The quantile is of a response's own tokens, so the loss does not depend on how micro-batches are cut. The advantage is
GRPO's: 0 in all-correct and all-incorrect groups, and a single rollout keeps its reward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import LossBatch, Method, Need, TokenLoss

SECTION = "algorithm.aspo"


@dataclass(frozen=True)
class ASPOConfig:
    """Settings of ASPO, the keys of ``algorithm.aspo``.

    Args:
        entropy_quantile (`float`, *optional*, defaults to `0.8`):
            Up to this quantile of its response a token's entropy is low. Authors' code. In [0, 1].
        low_entropy_clip (`float`, *optional*, defaults to `0.2`):
            e of tokens of low entropy. Authors' code. In [0, 1).
        high_entropy_clip (`float`, *optional*, defaults to `0.4`):
            e of the other tokens. Authors' code. In [0, 1).
        max_weight (`float`, *optional*, defaults to `3.0`):
            Bound on the weight of a token, r' or 1 / r'. Authors' code. Above 1.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    entropy_quantile: float = 0.8
    low_entropy_clip: float = 0.2
    high_entropy_clip: float = 0.4
    max_weight: float = 3.0

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.entropy_quantile", self.entropy_quantile, low=0, high=1)
        for name in ("low_entropy_clip", "high_entropy_clip"):
            check_number(f"{SECTION}.{name}", getattr(self, name), low=0, high=1, high_open=True)
        check_number(f"{SECTION}.max_weight", self.max_weight, low=1, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> ASPOConfig:
        """Build from Hydra's ``algorithm.aspo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def low_entropy(entropy: torch.Tensor, response_mask: torch.Tensor, quantile: float) -> torch.Tensor:
    """Tokens with an entropy up to the quantile of their row's masked tokens, `(batch, response_length)` bool.

    Args:
        entropy (`torch.Tensor` of shape `(batch, response_length)`): nats.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`, bool).
        quantile (`float`): between two values it is interpolated.
    """
    masked = torch.where(response_mask, entropy.double(), math.nan)
    return masked <= masked.nanquantile(quantile, dim=-1, keepdim=True)


def aspo_loss(batch: LossBatch, config: ASPOConfig) -> TokenLoss:
    """The asymmetric loss of every token; clipped where r' is not r or the weight is bounded."""
    mask, advantages = batch.response_mask, batch.advantages
    ratio = torch.where(mask, batch.log_ratio, 0.0).exp()
    low = low_entropy(batch.entropy, mask, config.entropy_quantile)
    width = torch.where(low, config.low_entropy_clip, config.high_entropy_clip).to(ratio.dtype)
    negative = advantages < 0
    clipped_ratio = torch.where(negative, torch.maximum(ratio, 1 - width), torch.minimum(ratio, 1 + width))
    constant = clipped_ratio.detach()
    loss = -advantages * torch.where(negative, clipped_ratio, clipped_ratio / constant / constant)
    too_heavy = torch.where(negative, constant, 1 / constant) > config.max_weight
    log_prob = torch.where(mask, batch.old_log_prob + batch.unclamped_log_ratio, 0.0)
    bounded = -advantages * config.max_weight * log_prob
    clipped = mask & (too_heavy | (constant != ratio.detach()))
    return TokenLoss(torch.where(too_heavy, bounded, loss), clipped)


METHOD = Method(
    name="aspo",
    advantage=lambda batch, settings: batch.grpo_advantage,
    needs=frozenset({Need.GRPO_ADVANTAGE}),
    settings=ASPOConfig.from_mapping,
    token_loss=aspo_loss,
    loss_needs_entropy=True,
)
