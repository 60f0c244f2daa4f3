"""PSR, NSR and W-REINFORCE (arXiv 2506.01347): correct and incorrect rollouts weighted apart, without a baseline.

A = w+ for a correct rollout and -w- for an incorrect one. PSR is (w+, w-) = (1, 0), NSR is (0, 1), W-REINFORCE is
(0.1, 1); (1, 1) is the sign advantage.

Source: the authors' code (TianHongZXY/RLVR-Decomposed, commit a5d4e7c1df60). R is the verifier's verdict, so shaped
scores have no influence (ours). Groups play no part: an all-correct group, an all-incorrect one and a single rollout
get the same advantages as any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import Method, MethodBatch, Need

SECTION = "algorithm.w_reinforce"


@dataclass(frozen=True)
class WReinforceConfig:
    """Settings of PSR, NSR and W-REINFORCE, the keys of ``algorithm.w_reinforce``.

    Args:
        correct_weight (`float`, *optional*, defaults to `0.1`):
            w+, the advantage of a correct rollout. At least 0. Authors' code: 0.1, PSR 1, NSR 0.
        incorrect_weight (`float`, *optional*, defaults to `1.0`):
            w-, the size of an incorrect rollout's negative advantage. At least 0. Authors' code: 1, PSR 0, NSR 1.

    Raises:
        ValueError: a value outside its range, or both weights 0, with which nothing would be learned.
    """

    correct_weight: float = 0.1
    incorrect_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("correct_weight", "incorrect_weight"):
            check_number(f"{SECTION}.{name}", getattr(self, name), low=0)
        if self.correct_weight == self.incorrect_weight == 0:
            raise ValueError(
                f"{SECTION}.correct_weight and {SECTION}.incorrect_weight are both 0, so that every advantage is 0. "
                "Set one of them above 0."
            )

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> WReinforceConfig:
        """Build from Hydra's ``algorithm.w_reinforce``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def weighted_reinforce_advantage(correct: torch.Tensor, config: WReinforceConfig) -> torch.Tensor:
    """w+ for a correct rollout, -w- for an incorrect one (arXiv 2506.01347).

    Args:
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict.
        config (`WReinforceConfig`).

    Returns:
        `torch.Tensor` of shape `(batch,)`, float64.
    """
    verdict = correct.double()
    return config.correct_weight * verdict - config.incorrect_weight * (1 - verdict)


def _advantage(batch: MethodBatch, config: WReinforceConfig) -> torch.Tensor:
    return weighted_reinforce_advantage(batch.correct, config)


METHOD = Method(
    name="w_reinforce",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT}),
    settings=WReinforceConfig.from_mapping,
)
