"""Delta-L normalization (arXiv 2509.07558): GRPO's advantage times a power of the response's length.

x_i = (L_i / mean L)^(-alpha) and A_i = (GRPO's advantage) x_i / (mean of x); both means run over the batch. The loss is
the sum over a response's tokens and then the mean over responses, which the preset sets: with alpha = 1 long and short
responses count alike, with alpha = 0 they count by length.

Source: the authors' code (zerolllin/Delta-L-Normalization, commit 89da5b9dff1f). Responses without tokens have
no x and are left out of both means (ours). All-correct and all-incorrect groups have a GRPO advantage of 0; a single
rollout keeps its score, as in verl's GRPO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import Method, MethodBatch, Need

SECTION = "algorithm.delta_l"


@dataclass(frozen=True)
class DeltaLConfig:
    """Settings of Delta-L normalization, the keys of ``algorithm.delta_l``.

    Args:
        alpha (`float`, *optional*, defaults to `0.75`):
            The power of the length. In [0, 1]. Authors' code: 0.75 for mathematics, 1 for countdown.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    alpha: float = 0.75

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.alpha", self.alpha, low=0, high=1)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> DeltaLConfig:
        """Build from Hydra's ``algorithm.delta_l``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def length_weight(response_mask: torch.Tensor, alpha: float) -> torch.Tensor:
    """x_i / (mean of x) with x_i = (L_i / mean L)^(-alpha); 0 for rows without tokens (arXiv 2509.07558).

    Args:
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): 1 where the policy wrote the token.
        alpha (`float`): in [0, 1].

    Returns:
        `torch.Tensor` of shape `(batch,)`, float64; its mean over rows with tokens is 1.
    """
    length = response_mask.bool().sum(dim=-1).double()
    written = length > 0
    weight = torch.zeros_like(length)
    if written.any():
        power = (length[written] / length[written].mean()) ** -alpha
        weight[written] = power / power.mean()
    return weight


def _advantage(batch: MethodBatch, config: DeltaLConfig) -> torch.Tensor:
    return batch.grpo_advantage.double() * length_weight(batch.response_mask, config.alpha).unsqueeze(-1)


METHOD = Method(
    name="delta_l",
    advantage=_advantage,
    needs=frozenset({Need.GRPO_ADVANTAGE}),
    settings=DeltaLConfig.from_mapping,
)
