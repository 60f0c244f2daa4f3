"""ISPO (arXiv 2606.08815) as a method: the group's advantage on the composite reward, and what an ISPO run watches.

The signals and the composite reward are in `verl_ispo.signals`. The trainer puts the composite where verl reads
rewards, so here it is `MethodBatch.rewards`, and the advantage is GRPO's unless a guard (ours) changes the std.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.methods.method import Contradiction, Lookup, LossBatch, Method, MethodBatch, MethodState, Need
from verl_ispo.signals.groups import group_advantage
from verl_ispo.signals.running_ifd import RunningIFD


def ispo_advantage(batch: MethodBatch, config: ISPOConfig) -> torch.Tensor:
    """(R - mean) / std inside each group, R being the composite reward of eq. 8.

    Without a floor under the std this is verl's own GRPO on those rewards, so with both weights 0 it is bitwise GRPO.

    Args:
        batch (`MethodBatch`): `rewards` holds composite rewards, less verl's KL penalty where it has one.
        config (`ISPOConfig`): `min_group_std` and `same_outcome_std` are read here.

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, or `(batch,)` with one of the two guards.
    """
    one_success = config.same_outcome_std == "one_success"
    if config.min_group_std == 0 and not one_success:
        return batch.grpo_advantage
    groups = batch.groups
    same_outcome = groups.all_wrong(batch.correct) | groups.all_right(batch.correct) if one_success else None
    rewards = batch.rewards.sum(dim=-1)
    return group_advantage(rewards, groups, batch.normalize_by_std, config.min_group_std, same_outcome)


def has_no_signals(config: ISPOConfig) -> bool:
    """Whether the composite reward is the outcome, and no guard needs verdicts."""
    return config.ifd_weight == 0 and config.token_weight == 0 and config.same_outcome_std == "own"


def next_running_ifd(before: RunningIFD, batch: MethodBatch, config: ISPOConfig) -> RunningIFD:
    """The running means of Conditional IFD with one more step (ours, for `ifd_reference`)."""
    observed = batch.ispo_signals
    reward = observed.reward
    return before.updated(reward.measured_ifd, observed.correct, reward.answer_found, config.ifd_running_decay)


@torch.no_grad()
def sign_metrics(batch: LossBatch) -> dict[str, float]:
    """What an ISPO run watches in the clipped loss:

    - ``actor/zero_grad_frac``: share of tokens without a gradient, because of a zero advantage, a clipped ratio, a
      log-ratio beyond verl's clamp at 20, or a rollout-correction weight of zero;
    - ``actor/pg_clipfrac/{positive,negative}_adv``: share of all tokens that are clipped and have an advantage of that
      sign; the two add up to all that are clipped;
    - ``actor/ppo_kl/{positive,negative}_adv``: those tokens' part of ``actor/ppo_kl``.
    """
    ratio = batch.log_ratio.exp()
    positive, negative = batch.advantages > 0, batch.advantages < 0
    # max() picks the clipped branch, which is constant, above the range for A > 0 and below it for A < 0; the dual
    # clip adds ratios above it for A < 0.
    clipped_positive = positive & (ratio > 1 + batch.clip_high)
    clipped_negative = negative & ((ratio < 1 - batch.clip_low) | (ratio > batch.dual_clip))
    no_gradient = (batch.advantages == 0) | clipped_positive | clipped_negative
    no_gradient = no_gradient | (batch.unclamped_log_ratio.abs() > 20.0)
    if batch.importance_weights is not None:
        no_gradient = no_gradient | (batch.importance_weights == 0)
    tokens = batch.response_mask.sum().clamp(min=1)

    def share(values: torch.Tensor) -> float:
        return float(torch.where(batch.response_mask, values.float(), 0).sum() / tokens)

    return {
        "actor/zero_grad_frac": share(no_gradient),
        "actor/pg_clipfrac/positive_adv": share(clipped_positive),
        "actor/pg_clipfrac/negative_adv": share(clipped_negative),
        "actor/ppo_kl/positive_adv": share(torch.where(positive, -batch.log_ratio, 0)),
        "actor/ppo_kl/negative_adv": share(torch.where(negative, -batch.log_ratio, 0)),
    }


def contradictions(setting: Lookup) -> Iterator[Contradiction]:
    """verl's settings that remove what ISPO learns from."""
    filter_key = "algorithm.filter_groups.enable"
    for group_key in ("algorithm.ispo.all_wrong_groups", "algorithm.ispo.all_right_groups"):
        if setting(filter_key) and setting(group_key) != "off":
            yield Contradiction(
                filter_key,
                group_key,
                "the filter throws away the groups of equal outcome that ISPO is to learn from",
                f"Set {filter_key}=false, or both algorithm.ispo.all_wrong_groups and all_right_groups to off.",
            )
    std_key = "algorithm.norm_adv_by_std_in_grpo"
    if setting(std_key) is False:
        for scale_key, off in (("algorithm.ispo.min_group_std", 0), ("algorithm.ispo.same_outcome_std", "own")):
            if setting(scale_key) not in (off, None):
                yield Contradiction(
                    std_key,
                    scale_key,
                    "without the division there is no std to change",
                    f"Set {std_key}=true or {scale_key}={off}.",
                )


METHOD = Method(
    name="ispo",
    advantage=ispo_advantage,
    needs=frozenset({Need.ISPO_SIGNALS, Need.CORRECT, Need.GRPO_ADVANTAGE}),
    settings=ISPOConfig.from_mapping,
    works_without=has_no_signals,
    loss_metrics=sign_metrics,
    state=MethodState(name="running_ifd", kind=RunningIFD, update=next_running_ifd),
    contradictions=contradictions,
)
