"""VESPO (arXiv 2602.10693): REINFORCE weighted by a soft bound on the likelihood ratio of the whole sequence.

    L_t = -phi(W) A log p_new,  phi(W) = exp(lam + k log W - lam W),  log W = sum over tokens of log p_new - log p_old

phi is a constant for the gradient, 1 at W = 1 and largest at W = k / lam. log W is kept within +-20, and each of its
terms too. (k, lam) = (2, 3) where A >= 0 and (3, 2) where A < 0. A is GRPO's. No clip.

Source: the authors' code (FloyedShen/VESPO at aa1f3045c346). With verl's rollout correction they add its log-weights
to log W; here these would multiply the loss instead, so the two together are refused.

Groups of equal scores have A = 0 and get no loss; a rollout alone in its group has verl's A = R.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import Contradiction, Lookup, LossBatch, Method, Need, TokenLoss

SECTION = "algorithm.vespo"


@dataclass(frozen=True)
class VESPOConfig:
    """Settings of VESPO, the keys of ``algorithm.vespo``.

    Args:
        k_positive (`float`, *optional*, defaults to `2.0`):
            k where A >= 0. At least 0. Authors' code.
        lam_positive (`float`, *optional*, defaults to `3.0`):
            lam where A >= 0. Above 0. Authors' code.
        k_negative (`float`, *optional*, defaults to `3.0`):
            k where A < 0. At least 0. Authors' code.
        lam_negative (`float`, *optional*, defaults to `2.0`):
            lam where A < 0. Above 0. Authors' code.
        max_abs_log_weight (`float`, *optional*, defaults to `20.0`):
            Bound on log W and on each of its terms. Above 0, at most 80. Authors' code.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    k_positive: float = 2.0
    lam_positive: float = 3.0
    k_negative: float = 3.0
    lam_negative: float = 2.0
    max_abs_log_weight: float = 20.0

    def __post_init__(self) -> None:
        for sign in ("positive", "negative"):
            check_number(f"{SECTION}.k_{sign}", getattr(self, f"k_{sign}"), low=0)
            check_number(f"{SECTION}.lam_{sign}", getattr(self, f"lam_{sign}"), low=0, low_open=True)
        # exp(80) is the last that float32 holds with room for a product
        check_number(f"{SECTION}.max_abs_log_weight", self.max_abs_log_weight, 0, 80, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> VESPOConfig:
        """Build from Hydra's ``algorithm.vespo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


@torch.no_grad()
def sequence_log_weight(log_ratio: torch.Tensor, response_mask: torch.Tensor, bound: float) -> torch.Tensor:
    """log W: sum of a rollout's log-ratios, its terms and itself within +-``bound``, `(batch,)` float64."""
    terms = torch.where(response_mask, log_ratio, 0.0).double().clamp(-bound, bound)
    return terms.sum(dim=-1).clamp(-bound, bound)


@torch.no_grad()
def soft_weight(log_weight: torch.Tensor, positive: torch.Tensor, config: VESPOConfig) -> torch.Tensor:
    """phi = exp(lam + k log W - lam W), 1 where W = 1.

    Args:
        log_weight (`torch.Tensor`): log W.
        positive (`torch.Tensor` of a shape that fits, bool): where A >= 0.
        config (`VESPOConfig`).

    Returns:
        `torch.Tensor` of the shapes' common shape, of the type of ``log_weight``.
    """
    k = torch.where(positive, config.k_positive, config.k_negative)
    lam = torch.where(positive, config.lam_positive, config.lam_negative)
    # no settings near the authors' come close to 80, the last that float32 holds with room for a product
    return (lam + k * log_weight - lam * log_weight.exp()).clamp(max=80).exp()


def vespo_loss(batch: LossBatch, config: VESPOConfig) -> TokenLoss:
    """-phi A log p of every token; none is clipped."""
    mask = batch.response_mask
    log_weight = sequence_log_weight(batch.unclamped_log_ratio, mask, config.max_abs_log_weight)
    advantages = torch.where(mask, batch.advantages, 0.0)
    weight = soft_weight(log_weight.unsqueeze(-1), advantages >= 0, config).to(advantages.dtype)
    log_prob = torch.where(mask, batch.old_log_prob + batch.unclamped_log_ratio, 0.0)
    return TokenLoss(-weight * advantages * log_prob, torch.zeros_like(mask))


def contradictions(setting: Lookup) -> Iterator[Contradiction]:
    """verl's importance weights, which belong into log W."""
    key = "algorithm.rollout_correction.rollout_is"
    if setting(key):
        yield Contradiction(
            "algorithm.adv_estimator",
            key,
            "VESPO bounds the ratio to the rollout engine's policy inside its own weight, and here these importance "
            "weights would multiply the loss unbounded",
            f"Set {key}=null.",
        )


METHOD = Method(
    name="vespo",
    advantage=lambda batch, settings: batch.grpo_advantage,
    needs=frozenset({Need.GRPO_ADVANTAGE}),
    settings=VESPOConfig.from_mapping,
    token_loss=vespo_loss,
    contradictions=contradictions,
)
