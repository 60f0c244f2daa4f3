"""Off-policy sequence mask of DeepSeek-V3.2 (arXiv 2512.02556): rollouts to unlearn that have become unlikely are left.

GRPO's clipped loss, 0 for the tokens of a rollout with A < 0 and mean over its tokens of log p_old - log p_new above
0.5: it is no longer what the policy would write, and pushing it further down says little. Rollouts with A >= 0 stay.

Source: TRL, which has the rule of the report and says that the report gives no bound; 0.5 is TRL's. The report compares
with the policy of the rollout engine; here log p_old is what verl recomputes, unless its rollout correction says
otherwise (ours). Masked rollouts still count in what the loss is divided by, as in TRL.

The report's unbiased KL estimate, the ratio times k3, is not offered: no method of this comparison has a KL term, and
the reference's log-probs would cost a forward also without one. ``actor.use_kl_loss`` adds verl's own estimate.

The mask is of each rollout by itself, so the loss does not depend on how micro-batches are cut. The advantage is
GRPO's: 0 in all-correct and all-incorrect groups, and a single rollout keeps its reward. At the old policy it is GRPO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.clipped_loss import dual_clipped_loss
from verl_ispo.methods.method import LossBatch, Method, Need, TokenLoss

SECTION = "algorithm.deepseek_mask"


@dataclass(frozen=True)
class DeepSeekMaskConfig:
    """Settings of the mask, the keys of ``algorithm.deepseek_mask``.

    Args:
        max_divergence (`float`, *optional*, defaults to `0.5`):
            Bound on the mean of log p_old - log p_new of a rollout with A < 0, nats per token. TRL. At least 0.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    max_divergence: float = 0.5

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.max_divergence", self.max_divergence, low=0)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> DeepSeekMaskConfig:
        """Build from Hydra's section; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def divergence(log_ratio: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """Mean over a row's masked tokens of log p_old - log p_new, `(batch,)` float64; 0 for a row without tokens.

    Args:
        log_ratio (`torch.Tensor` of shape `(batch, response_length)`): log p_new - log p_old.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`, bool).
    """
    total = torch.where(response_mask, -log_ratio.double(), 0.0).sum(dim=-1)
    return total / response_mask.sum(dim=-1).clamp(min=1)


def deepseek_mask_loss(batch: LossBatch, config: DeepSeekMaskConfig) -> TokenLoss:
    """verl's clipped loss, 0 where A < 0 in a rollout that has diverged; such tokens count as clipped."""
    loss, clipped = dual_clipped_loss(batch)
    far = divergence(batch.unclamped_log_ratio.detach(), batch.response_mask) > config.max_divergence
    left_out = batch.response_mask & far.unsqueeze(-1) & (batch.advantages < 0)
    return TokenLoss(torch.where(left_out, 0.0, loss), clipped | left_out)


METHOD = Method(
    name="deepseek_mask",
    advantage=lambda batch, settings: batch.grpo_advantage,
    needs=frozenset({Need.GRPO_ADVANTAGE}),
    settings=DeepSeekMaskConfig.from_mapping,
    token_loss=deepseek_mask_loss,
)
