"""DCPO (arXiv 2509.02333): advantages smoothed over a prompt's earlier epochs, and a clip range by the probability.

    M' = ((i - 1) M + m) / i,   S'^2 = ((i - 1) S^2 + s^2 + ((i - 1) / i) (m - M)^2) / i     the i-th time of a prompt
    n = (R - m) / s,  o = (R - M') / S',  A = the smaller in size of o / i + (1 - 1/i) n and n / i + (1 - 1/i) o
    r within [(1 + sqrt(max(0, 1 - 4 c_low / p_old))) / 2, min((1 + sqrt(1 + 4 c_high / p_old)) / 2, 10)]

m and s are mean and unbiased std of the group's scores, M and S what is kept of the prompt, which the checkpoint holds.
Loss and dual clip are PPO's, with these bounds on the ratio r.

Source: the authors' code (lime-RL/DCPO at 01787b0f6158). With a std of 0 the quotient is 0; a std below 1e-8 counts as
0 (ours: rounding). verl's ``norm_adv_by_std_in_grpo: false`` leaves out both divisions, as there.

At a prompt's first time A is GRPO's without its epsilon. Groups of equal scores get 0 then, and later an advantage
from earlier epochs, if scores differed there. A rollout alone in its group has s = 0 (ours: the code refuses it). A
prompt that stands twice in one step is compared with earlier steps alone, and both groups are then kept (ours).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import LossBatch, Method, MethodBatch, MethodState, Need, TokenLoss
from verl_ispo.signals.groups import RolloutGroups

SECTION = "algorithm.dcpo"
SMALLEST_STD = 1e-8


@dataclass(frozen=True)
class DCPOConfig:
    """Settings of DCPO, the keys of ``algorithm.dcpo``. c_low and c_high are verl's clip ratios.

    Args:
        max_ratio (`float`, *optional*, defaults to `10.0`):
            Upper bound of the upper bound of the ratio. Above 1. Authors' code.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    max_ratio: float = 10.0

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.max_ratio", self.max_ratio, low=1, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> DCPOConfig:
        """Build from Hydra's ``algorithm.dcpo``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


@dataclass(frozen=True)
class PromptHistory:
    """What is kept of the prompts.

    Attributes:
        seen: from a prompt's key to how often it was trained on, and the mean and std over these times.
    """

    seen: Mapping[str, Sequence[float]] = field(default_factory=dict)


def joined(past: Sequence[float], mean: float, std: float) -> tuple[int, float, float]:
    """i, M' and S' from what is kept of a prompt (i - 1, M, S) and the new group's mean and std."""
    before, past_mean, past_std = past
    times = int(before) + 1
    variance = before * past_std**2 + std**2 + before / times * (mean - past_mean) ** 2
    return times, (before * past_mean + mean) / times, math.sqrt(variance / times)


def smoothed_advantage(
    score: torch.Tensor,
    groups: RolloutGroups,
    prompt_keys: Sequence[str],
    history: PromptHistory,
    normalize_by_std: bool = True,
) -> torch.Tensor:
    """A of every rollout.

    Args:
        score (`torch.Tensor` of shape `(batch,)`): R.
        groups (`RolloutGroups`).
        prompt_keys: the prompt of every row; `""` for padding rows.
        history (`PromptHistory`): before this step.
        normalize_by_std (`bool`, *optional*, defaults to `True`): `False` leaves out the divisions by s and S'.

    Returns:
        `torch.Tensor` of shape `(batch,)`, float64; 0 for padding rows.
    """
    score = score.double()
    advantage = torch.zeros_like(score)
    for key, rows in _groups_of_prompts(groups, prompt_keys):
        own = score[rows]
        mean, std = _mean_and_std(own)
        times, all_mean, all_std = joined(history.seen.get(key, (0, 0.0, 0.0)), mean, std)
        new, old = own - mean, own - all_mean
        if normalize_by_std:
            new = new / std if std > SMALLEST_STD else 0.0 * new
            old = old / all_std if all_std > SMALLEST_STD else 0.0 * old
        mostly_new = old / times + (1 - 1 / times) * new
        mostly_old = new / times + (1 - 1 / times) * old
        advantage[rows] = torch.where(mostly_new.abs() < mostly_old.abs(), mostly_new, mostly_old)
    return advantage


def updated_history(history: PromptHistory, batch: MethodBatch, config: DCPOConfig) -> PromptHistory:
    """The history after a step; groups of one prompt count one after the other."""
    score, seen = batch.rewards.sum(dim=-1).double(), dict(history.seen)
    for key, rows in _groups_of_prompts(batch.groups, batch.prompt_keys):
        seen[key] = list(joined(seen.get(key, (0, 0.0, 0.0)), *_mean_and_std(score[rows])))
    return PromptHistory(seen)


def _groups_of_prompts(groups: RolloutGroups, prompt_keys: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
    for group in range(groups.count):
        rows = (groups.ids == group).nonzero().flatten()
        key = prompt_keys[int(rows[0])]
        if key:
            yield key, rows


def _mean_and_std(values: torch.Tensor) -> tuple[float, float]:
    """Mean and unbiased std; a single value has the std 0."""
    return values.mean().item(), values.std().item() if len(values) > 1 else 0.0


@torch.no_grad()
def ratio_bounds(
    old_log_prob: torch.Tensor, clip_low: float, clip_high: float, max_ratio: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The range of every token's ratio: wider for a less likely token, at least [1/2, ...].

    Args:
        old_log_prob (`torch.Tensor` of shape `(batch, response_length)`): log p_old.
        clip_low, clip_high (`float`): c_low and c_high.
        max_ratio (`float`): bound of the upper end.

    Returns:
        lower and upper end, both `(batch, response_length)` float64.
    """
    # within what float64 holds
    inverse = (-old_log_prob.double()).clamp(max=700).exp()
    low = (1 + (1 - 4 * clip_low * inverse).clamp(min=0).sqrt()) / 2
    high = ((1 + (1 + 4 * clip_high * inverse).sqrt()) / 2).clamp(max=max_ratio)
    return low, high


def dcpo_loss(batch: LossBatch, config: DCPOConfig) -> TokenLoss:
    """PPO's clipped loss with dual clip, and the bounds of each token."""
    mask = batch.response_mask
    ratio = torch.where(mask, batch.log_ratio, 0.0).exp()
    advantages = torch.where(mask, batch.advantages, 0.0)
    old_log_prob = torch.where(mask, batch.old_log_prob, 0.0)
    low, high = ratio_bounds(old_log_prob, batch.clip_low, batch.clip_high, config.max_ratio)
    bounded = torch.clamp(ratio, low.to(ratio.dtype), high.to(ratio.dtype))
    clipped_loss = torch.maximum(-advantages * ratio, -advantages * bounded)
    dual = torch.minimum(clipped_loss, -advantages * batch.dual_clip)
    clipped = mask & (-advantages * bounded > -advantages * ratio)
    return TokenLoss(torch.where(advantages < 0, dual, clipped_loss), clipped)


def _advantage(batch: MethodBatch, config: DCPOConfig) -> torch.Tensor:
    score = batch.rewards.sum(dim=-1)
    return smoothed_advantage(score, batch.groups, batch.prompt_keys, batch.state, batch.normalize_by_std)


METHOD = Method(
    name="dcpo",
    advantage=_advantage,
    needs=frozenset({Need.PROMPT_KEY}),
    settings=DCPOConfig.from_mapping,
    token_loss=dcpo_loss,
    state=MethodState(name="prompts", kind=PromptHistory, update=updated_history),
)
