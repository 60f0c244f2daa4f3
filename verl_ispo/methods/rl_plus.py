"""RL-PLUS (arXiv 2508.00222): one rollout of each group is a trace from the data, with an importance weight of its own.

    own rollouts:     L = -A p / p_old                                           A = R - mean of the own rollouts' R
    the data's trace: L = -A sqrt(1 - sg p) 2 p / (p_old + w),  w = (p_old + 1) / 2

p is the policy's probability of a token now, p_old before the step; sg takes no gradient. No ratio is clipped and the
advantage is not divided by the standard deviation. The trace is graded like a rollout, so a wrong one is unlearned.

Source: the authors' code (YihongDong/RL-PLUS at eb4aa4d4e2d7). Ours: prompts without a trace have own rollouts only;
the mean of no own rollout is 0, where the authors stop; a trace is cut at ``data.max_response_length``, and then has no
end-of-sequence token, as there.

Own rollouts of an all-correct or all-incorrect group get nothing, and a single one its score. The trace gets R less
their mean, so a correct one counts fully where all own rollouts are incorrect, and not at all where all are correct.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from verl_ispo.config.section import check_number, from_section
from verl_ispo.methods.method import (
    Contradiction,
    Lookup,
    LossBatch,
    Method,
    MethodBatch,
    Need,
    TokenLoss,
)

SECTION = "algorithm.rl_plus"
EXPERT_COLUMN = "expert"


@dataclass(frozen=True)
class RLPlusConfig:
    """Settings of RL-PLUS, the keys of ``algorithm.rl_plus``.

    Args:
        trace_column (`str`, *optional*, defaults to `"target"`):
            Column of the data with one trace per prompt: a text, or a list of texts or chat messages whose first is
            it; empty where a prompt has none. The authors' data has this name.
        prior_weight (`float`, *optional*, defaults to `0.5`):
            w = prior_weight (p_old + 1), in place of the unknown probability under the trace's own policy. Above 0.
            Authors' code.
        exploration_power (`float`, *optional*, defaults to `0.5`):
            The advantage of a trace's token is multiplied by (1 - p) to this power. At least 0. Authors' code.

    Raises:
        ValueError: a value outside its range; the message names key, value and range.
    """

    trace_column: str = "target"
    prior_weight: float = 0.5
    exploration_power: float = 0.5

    def __post_init__(self) -> None:
        check_number(f"{SECTION}.prior_weight", self.prior_weight, low=0, low_open=True)
        check_number(f"{SECTION}.exploration_power", self.exploration_power, low=0)
        if not isinstance(self.trace_column, str) or not self.trace_column:
            raise ValueError(f"{SECTION}.trace_column must be the name of a column, got {self.trace_column!r}")

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | None) -> RLPlusConfig:
        """Build from Hydra's ``algorithm.rl_plus``; `None` gives the defaults, an unknown key is an error."""
        return from_section(cls, SECTION, settings)


def rl_plus_advantage(batch: MethodBatch) -> torch.Tensor:
    """R less the mean R of the group's own rollouts, `(batch,)` float64; the mean of fewer than two counts as 0."""
    reward = batch.rewards.sum(dim=-1).double()
    own = (~batch.expert).double()
    count = batch.groups.reduce(own, "sum")
    total = batch.groups.reduce(own * reward, "sum")
    mean = torch.where(count > 1, total / count.clamp(min=1), 0.0)
    return reward - mean[batch.groups.ids]


def rl_plus_loss(batch: LossBatch, config: RLPlusConfig) -> TokenLoss:
    """-A times the unclipped ratio on own rollouts, and the weight of a trace's tokens on traces."""
    mask, expert = batch.response_mask, batch.columns[EXPERT_COLUMN] > 0.5
    old = torch.where(mask, batch.old_log_prob, 0.0).exp()
    # the exponent is verl's for own rollouts, whose ratio is bounded by its clamp
    log_ratio = torch.where(mask & expert, batch.unclamped_log_ratio, torch.where(mask, batch.log_ratio, 0.0))
    probability = log_ratio.exp() * old
    unexplored = (1 - probability.detach()).clamp(min=0) ** config.exploration_power
    trace = 2 * probability / (old + config.prior_weight * (old + 1)) * unexplored
    weight = torch.where(expert, trace, log_ratio.exp())
    return TokenLoss(torch.where(mask, -batch.advantages * weight, 0.0), torch.zeros_like(mask))


def contradictions(setting: Lookup) -> Iterator[Contradiction]:
    """A KL penalty in the reward, which would be part of the own rollouts' mean and of the trace's reward."""
    kl_key = "algorithm.use_kl_in_reward"
    if setting(kl_key):
        yield Contradiction(
            "algorithm.adv_estimator",
            kl_key,
            "the mean of the own rollouts' scores is taken without a KL penalty",
            f"Set {kl_key}=false; actor_rollout_ref.actor.use_kl_loss=true has the penalty in the loss.",
        )


METHOD = Method(
    name="rl_plus",
    advantage=lambda batch, config: rl_plus_advantage(batch),
    needs=frozenset({Need.EXPERT}),
    settings=RLPlusConfig.from_mapping,
    token_loss=rl_plus_loss,
    loss_columns=lambda batch, config, advantages: {EXPERT_COLUMN: batch.expert.float()},
    trace_column=lambda config: config.trace_column,
    contradictions=contradictions,
)
