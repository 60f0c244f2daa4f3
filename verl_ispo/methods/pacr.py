"""PACR (arXiv 2510.22255): a process advantage from how each step raises the log-prob of the ground truth.

    c_k = log p(ground truth | prompt, steps 1..k),  g_k = c_k - c_{k-1},  G_k = sum over t >= k of gamma^(t-k) g_t
    A = l_O A_O + l_P A_P,  A_P = (G_k - min G) / (max G - min G) over all steps of the group's rollouts

A_O is GRPO's advantage.

Source: notes by others on a later paper of the same authors (2605.13467), which restates these equations; the paper's
full text has not been read. Not given there, so ours: both weights, gamma, what separates steps, the text before the
ground truth, a bound on the number of steps. Ours too: steps end where the response opens its own answer, lead-in and
answer get l_O A_O alone, and A_P is 0 where all G of a group are equal or nothing was scored.

A_P is never below 0, so it raises every step of a group. Groups with a single outcome have A_O = 0 and learn from A_P
alone; a single rollout has verl's GRPO advantage, its reward, and A_P over its own steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import CutRequest, Method, MethodBatch, Need, PrefixCuts, PrefixScores
from verl_ispo.methods.segments import check_step_settings, on_segments, step_ends
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.pacr"


@dataclass(frozen=True)
class PACRConfig:
    r"""Settings of PACR, the keys of ``algorithm.pacr``.

    Args:
        outcome_weight (`float`, *optional*, defaults to `1.0`):
            l_O, the weight of GRPO's advantage. Ours: not given in the notes.
        progress_weight (`float`, *optional*, defaults to `0.1`):
            l_P, the weight of the steps' advantage. Ours likewise. At 0.1 it turns no sign in a mixed group of fewer
            than 100 rollouts. `0` with `outcome_weight=1` is GRPO.
        gamma (`float`, *optional*, defaults to `1.0`):
            Discount of later steps' gains, in [0, 1]. Ours likewise. `1` makes G_k the gain from step k to the end.
        step_separator (`str`, *optional*, defaults to `"\n\n"`):
            Text that ends a step. Ours likewise.
        max_steps (`int`, *optional*, defaults to `16`):
            Most steps of a response, each of which costs a forward; `None` for no bound. Ours. Where there are more,
            neighbours are joined.
        lead_in (`str`, *optional*, defaults to `"\\boxed{"`):
            Text between a step and the ground truth. Ours.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    outcome_weight: float = 1.0
    progress_weight: float = 0.1
    gamma: float = 1.0
    step_separator: str = "\n\n"
    max_steps: int | None = 16
    lead_in: str = "\\boxed{"

    def __post_init__(self) -> None:
        for name in ("outcome_weight", "progress_weight"):
            check_number(f"{SECTION}.{name}", getattr(self, name), low=0)
        check_number(f"{SECTION}.gamma", self.gamma, low=0, high=1)
        check_step_settings(SECTION, self.step_separator, self.max_steps, self.lead_in)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> PACRConfig:
        """Build from Hydra's ``algorithm.pacr``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def discounted_gains(scores: PrefixScores, gamma: float) -> torch.Tensor:
    """G_k of each step, `(batch, cuts - 1)` float64; 0 where there is no step."""
    confidence = scores.mean_log_prob.double() * scores.tokens.unsqueeze(-1)
    gains = torch.where(scores.mask[:, 1:], confidence.diff(dim=-1), 0.0)
    total = torch.zeros_like(gains)
    later = gains.new_zeros(len(gains))
    for step in reversed(range(gains.shape[-1])):
        later = gains[:, step] + gamma * later
        total[:, step] = later
    return total


def process_advantage(gains: torch.Tensor, has_step: torch.Tensor, groups: RolloutGroups) -> torch.Tensor:
    """A_P: the min-max of G over the steps of each group, in [0, 1]; 0 where all are equal and where there is no step.

    Args:
        gains (`torch.Tensor` of shape `(batch, steps)`): G.
        has_step (`torch.Tensor` of shape `(batch, steps)`, bool).
        groups (`RolloutGroups`): of the rows.

    Returns:
        `torch.Tensor` of shape `(batch, steps)`.
    """
    if not gains.shape[-1]:
        return gains
    lowest = groups.reduce(torch.where(has_step, gains, torch.inf).amin(dim=-1), "amin")[groups.ids].unsqueeze(-1)
    highest = groups.reduce(torch.where(has_step, gains, -torch.inf).amax(dim=-1), "amax")[groups.ids].unsqueeze(-1)
    differs = has_step & (highest > lowest)
    return torch.where(differs, (gains - lowest) / torch.where(differs, highest - lowest, 1.0), 0.0)


def pacr_advantage(
    outcome_advantage: torch.Tensor,
    response_mask: torch.Tensor,
    groups: RolloutGroups,
    scores: PrefixScores,
    config: PACRConfig,
) -> torch.Tensor:
    """l_O A_O + l_P A_P of every token; 0 where not masked.

    Args:
        outcome_advantage (`torch.Tensor` of shape `(batch, response_length)`): A_O.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`).
        groups (`RolloutGroups`): of the batch.
        scores (`PrefixScores`): behind the steps' ends.
        config (`PACRConfig`).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, float64.
    """
    gains = discounted_gains(scores, config.gamma)
    process = process_advantage(gains, scores.mask[:, 1:], groups)
    on_tokens = on_segments(process, scores, response_mask.shape[-1])
    total = config.outcome_weight * outcome_advantage.double() + config.progress_weight * on_tokens
    return torch.where(response_mask.bool(), total, 0.0)


def _advantage(batch: MethodBatch, config: PACRConfig) -> torch.Tensor:
    return pacr_advantage(batch.grpo_advantage, batch.response_mask, batch.groups, batch.prefix_scores, config)


def _ends(request: CutRequest, config: PACRConfig) -> list[int]:
    return step_ends(request.token_texts, config.step_separator, request.trace_length, config.max_steps)


METHOD = Method(
    name="pacr",
    advantage=_advantage,
    needs=frozenset({Need.GRPO_ADVANTAGE, Need.PREFIX_SCORES}),
    settings=PACRConfig.from_mapping,
    prefix_cuts=PrefixCuts(positions=_ends, lead_in=lambda config: config.lead_in),
)
