"""D3S (arXiv 2509.22115): GRPO on the rollouts and tokens that say most, few at first and all in the end.

1. Of each prompt the rollouts stay whose A has the largest variance: some of the largest and some of the smallest A.
2. Of all that stay, a part of the step stays by the same rule, across prompts.
3. Of their tokens those with the largest |A| H stay, H being the entropy of the policy that wrote them.

A is GRPO's of all rollouts and is not normalized again. What does not stay leaves the loss and its denominators. The
shares of 1 to 3 go in a straight line from initial to final values.

Source: notes by others. All shares are ours, since the paper's are not known. Ours, too: numbers are rounded up, two
rollouts of a prompt at least; progress is (step - 1) / (total steps - 1); of rollouts with equal A those of larger mean
entropy stay; of equal choices the one with fewer large A; of tokens with equal |A| H all.

In all-correct and all-incorrect groups A is 0, as in GRPO: they leave at step 2 as long as others vary more. A single
rollout keeps its reward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.signals.groups import RolloutGroups, group_advantage

SECTION = "algorithm.d3s"
# Differences below this are rounding, not a reason to choose.
DIGITS = 9


@dataclass(frozen=True)
class D3SConfig:
    """Settings of D3S, the keys of ``algorithm.d3s``; every share is ours and in (0, 1].

    Args:
        initial_prompt_share, final_prompt_share (`float`, *optional*, default to `0.5` and `1.0`):
            Share of each prompt's rollouts that stays.
        initial_batch_share, final_batch_share (`float`, *optional*, default to `0.8` and `1.0`):
            Share of these that stays across prompts.
        initial_token_share, final_token_share (`float`, *optional*, default to `0.4` and `1.0`):
            Share of their tokens that stays. With the other two a training starts at 16 % of the tokens; the notes
            speak of less than 20 %.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    initial_prompt_share: float = 0.5
    final_prompt_share: float = 1.0
    initial_batch_share: float = 0.8
    final_batch_share: float = 1.0
    initial_token_share: float = 0.4
    final_token_share: float = 1.0

    def __post_init__(self) -> None:
        for key in fields(self):
            check_number(f"{SECTION}.{key.name}", getattr(self, key.name), low=0, high=1, low_open=True)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> D3SConfig:
        """Build from Hydra's ``algorithm.d3s``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)

    def shares(self, step: int, total_steps: int) -> tuple[float, float, float]:
        """Of the prompts' rollouts, the step's rollouts and their tokens, at a step counted from 1."""
        progress = min((step - 1) / max(total_steps - 1, 1), 1.0)
        pairs = (
            (self.initial_prompt_share, self.final_prompt_share),
            (self.initial_batch_share, self.final_batch_share),
            (self.initial_token_share, self.final_token_share),
        )
        return tuple(initial + progress * (final - initial) for initial, final in pairs)


def largest_variance(advantage: torch.Tensor, entropy: torch.Tensor, number: int) -> torch.Tensor:
    """Indices of the ``number`` rollouts whose A has the largest variance: the largest A and the smallest.

    Args:
        advantage (`torch.Tensor` of shape `(rollouts,)`, float64).
        entropy (`torch.Tensor` of shape `(rollouts,)`, float64): of rollouts with equal A the larger comes first.
        number (`int`): from 1 to the number of rollouts.

    Returns:
        `torch.Tensor` of shape `(number,)`, int64.
    """
    # From the largest A to the smallest; among equal A the larger entropy is nearer to the end where it is taken.
    values = advantage.round(decimals=DIGITS)
    keys = torch.stack([-values, torch.where(values > 0, -entropy, entropy)], dim=-1).tolist()
    order = sorted(range(len(keys)), key=keys.__getitem__)
    ordered = values[order]
    sums = torch.nn.functional.pad(torch.stack([ordered, ordered.square()]).cumsum(dim=-1), (1, 0))
    of_largest = torch.arange(number + 1, device=values.device)
    chosen = sums[:, of_largest] + sums[:, -1:] - sums[:, len(order) - number + of_largest]
    variance = chosen[1] / number - (chosen[0] / number).square()
    largest = int((variance >= variance.max() - 10**-DIGITS).nonzero()[0])
    kept = order[:largest] + order[len(order) - number + largest :]
    return torch.tensor(kept, dtype=torch.int64, device=values.device)


def kept_rollouts(
    advantage: torch.Tensor,
    entropy: torch.Tensor,
    has_tokens: torch.Tensor,
    groups: RolloutGroups,
    prompt_share: float,
    batch_share: float,
) -> torch.Tensor:
    """Which rollouts stay, of each prompt and then of the step, `(batch,)` bool.

    Args:
        advantage, entropy (`torch.Tensor` of shape `(batch,)`, float64): A and the mean entropy of a rollout.
        has_tokens (`torch.Tensor` of shape `(batch,)`, bool): rows without tokens never stay and do not count.
        groups (`RolloutGroups`): of the rows.
        prompt_share, batch_share (`float`): of the rollouts that stay.
    """
    of_prompts = []
    for group in range(groups.count):
        rows = ((groups.ids == group) & has_tokens).nonzero().flatten()
        if len(rows):
            number = min(max(_share_of(len(rows), prompt_share), 2), len(rows))
            of_prompts.append(rows[largest_variance(advantage[rows], entropy[rows], number)])
    kept = torch.zeros_like(has_tokens)
    if of_prompts:
        rows = torch.cat(of_prompts).sort().values
        kept[rows[largest_variance(advantage[rows], entropy[rows], _share_of(len(rows), batch_share))]] = True
    return kept


def kept_tokens(score: torch.Tensor, candidates: torch.Tensor, share: float) -> torch.Tensor:
    """The candidates with the largest scores, ties at the end of the share included, of their shape, bool.

    Args:
        score (`torch.Tensor` of shape `(batch, response_length)`, float64): |A| H.
        candidates (`torch.Tensor` of shape `(batch, response_length)`, bool): tokens of the rollouts that stay.
        share (`float`): of the candidates that stay.
    """
    count = int(candidates.sum())
    if not count:
        return candidates
    score = score.round(decimals=DIGITS)
    least = score[candidates].sort(descending=True).values[_share_of(count, share) - 1]
    return candidates & (score >= least)


def _share_of(count: int, share: float) -> int:
    return max(1, math.ceil(count * share - 1e-9))


def _keeps(batch: MethodBatch, config: D3SConfig) -> torch.Tensor:
    mask, groups = batch.response_mask.bool(), batch.groups
    prompt_share, batch_share, token_share = config.shares(batch.step, batch.total_steps)
    scores = batch.rewards.double().sum(dim=-1)
    advantage = group_advantage(scores, groups, batch.normalize_by_std, min_group_std=0.0)
    entropy = torch.where(mask, batch.entropy.double(), 0.0)
    mean_entropy = entropy.sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)
    rollouts = kept_rollouts(advantage, mean_entropy, mask.any(dim=-1), groups, prompt_share, batch_share)
    return kept_tokens(advantage.abs().unsqueeze(-1) * entropy, mask & rollouts.unsqueeze(-1), token_share)


METHOD = Method(
    name="d3s",
    advantage=lambda batch, settings: batch.grpo_advantage,
    needs=frozenset({Need.GRPO_ADVANTAGE, Need.ENTROPY}),
    settings=D3SConfig.from_mapping,
    keeps=_keeps,
)
