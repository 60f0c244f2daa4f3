"""RL-ZVP (arXiv 2509.21880): GRPO, and in groups of one outcome an advantage from the tokens' entropy.

A_t = a H_t in an all-correct group, -a (max over the response of H - H_t) in an all-incorrect one, GRPO's advantage
in a mixed one. H is a constant.

Source: full text, eq. 5; a = 0.1 is the best of the four in its table 3 (Qwen3-1.7B-Base on MATH), where 0.2 is close
and 0.05 and 0.3 are not better than GRPO. Whether a group has one outcome goes by the verifier's verdict, not by the
score, which may be shaped (ours). A group of one rollout is all correct or all incorrect (ours: the paper has none).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import Contradiction, Lookup, Method, MethodBatch, Need
from verl_ispo.signals.checks import check_finite, check_same_shape
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.rl_zvp"


@dataclass(frozen=True)
class RLZVPConfig:
    """Settings of RL-ZVP, the keys of ``algorithm.rl_zvp``.

    Args:
        entropy_weight (`float`, *optional*, defaults to `0.1`):
            a, the advantage per nat of entropy in groups of one outcome. Above 0. Paper: 0.1.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    entropy_weight: float = 0.1

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.entropy_weight", self.entropy_weight, low=0, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> RLZVPConfig:
        """Build from Hydra's ``algorithm.rl_zvp``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def zero_variance_advantage(
    entropy: torch.Tensor, response_mask: torch.Tensor, correct: torch.Tensor, config: RLZVPConfig
) -> torch.Tensor:
    """a H_t for a correct rollout, -a (max H - H_t) for an incorrect one, whatever its group (eq. 5).

    Args:
        entropy (`torch.Tensor` of shape `(batch, response_length)`): of the rollout policy, nats. Below 0, which only
            rounding can give, it counts as 0.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`): 1 where the policy wrote the token.
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict.
        config (`RLZVPConfig`).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, float64; 0 where masked.

    Raises:
        SignalShapeError: shapes that do not fit.
        NonFiniteSignalError: an entropy is NaN or infinite where the mask is not 0.
    """
    check_same_shape(tuple(response_mask.shape), entropy=entropy)
    check_same_shape((response_mask.shape[0],), correct=correct)
    mask = response_mask.bool()
    check_finite(mask, entropy=entropy)
    entropy = torch.where(mask, entropy.detach().double().clamp(min=0), 0.0)
    highest = entropy.amax(dim=-1, keepdim=True) if entropy.shape[-1] else entropy
    shaped = torch.where(correct.bool().unsqueeze(-1), entropy, entropy - highest)
    return torch.where(mask, config.entropy_weight * shaped, 0.0)


def rl_zvp_advantage(
    grpo_advantage: torch.Tensor,
    zero_variance: torch.Tensor,
    correct: torch.Tensor,
    groups: RolloutGroups,
) -> torch.Tensor:
    """GRPO's advantage in groups of both outcomes, `zero_variance_advantage` in the others.

    Args:
        grpo_advantage (`torch.Tensor` of shape `(batch, response_length)`): verl's own.
        zero_variance (`torch.Tensor` of shape `(batch, response_length)`).
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verifier's verdict.
        groups (`RolloutGroups`).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, float64.
    """
    one_outcome = (groups.all_wrong(correct) | groups.all_right(correct))[groups.ids]
    return torch.where(one_outcome.unsqueeze(-1), zero_variance, grpo_advantage.double())


def contradictions(setting: Lookup) -> Iterator[Contradiction]:
    """verl's group filter removes what RL-ZVP adds to GRPO."""
    filter_key = "algorithm.filter_groups.enable"
    if setting(filter_key):
        yield Contradiction(
            "algorithm.adv_estimator",
            filter_key,
            "the filter throws away the groups of one outcome that RL-ZVP is to learn from",
            f"Set {filter_key}=false.",
        )


def _advantage(batch: MethodBatch, config: RLZVPConfig) -> torch.Tensor:
    zero_variance = zero_variance_advantage(batch.entropy, batch.response_mask, batch.correct, config)
    return rl_zvp_advantage(batch.grpo_advantage, zero_variance, batch.correct, batch.groups)


METHOD = Method(
    name="rl_zvp",
    advantage=_advantage,
    needs=frozenset({Need.CORRECT, Need.ENTROPY, Need.GRPO_ADVANTAGE}),
    settings=RLZVPConfig.from_mapping,
    contradictions=contradictions,
)
