"""verl's advantage estimator ``ispo``: group-relative, on the composite reward of eq. 8."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, register_adv_est

from verl_ispo.config.rollout_dump_config import split_ispo_settings
from verl_ispo.signals.groups import RolloutGroups, group_advantage

ISPO_TRAINER_MODES = ("ispo_sync", "ispo_colocate_async", "ispo_separate_async")

_correct_of_composite: ContextVar[torch.Tensor | None] = ContextVar("correct_of_composite", default=None)


class MissingIntrinsicSignalsError(RuntimeError):
    """``adv_estimator=ispo`` was called on rewards into which nobody put ISPO's signals."""


@contextmanager
def composite_rewards(correct: torch.Tensor) -> Iterator[None]:
    """Inside, the rewards that verl hands to the estimator are composite ones. Entered by the ISPO trainer alone.

    Args:
        correct (`torch.Tensor` of shape `(batch,)`, bool): the verdicts, which composite rewards no longer show.
    """
    token = _correct_of_composite.set(correct)
    try:
        yield
    finally:
        _correct_of_composite.reset(token)


@register_adv_est("ispo")
def compute_ispo_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    config: DictConfig | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(R - mean) / std inside each group, R being the composite reward that the trainer has put into the rewards.

    Without a floor under the std this is verl's own GRPO on those rewards, so with both weights 0 it gives GRPO's bits.

    Args:
        token_level_rewards (`torch.Tensor` of shape `(batch, response_length)`): composite rewards, minus verl's KL
            penalty where ``use_kl_in_reward`` is set.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`).
        index (`np.ndarray` of shape `(batch,)`): prompt of each row.
        config (`DictConfig`, *optional*): verl's ``algorithm`` section; ``norm_adv_by_std_in_grpo`` and
            ``ispo.{min_group_std,same_outcome_std}`` are read.

    Returns:
        `(advantages, returns)`, both of shape `(batch, response_length)`.

    Raises:
        MissingIntrinsicSignalsError: outside of an ISPO trainer mode, unless both weights are 0.
    """
    settings = config if config is not None else {}
    ispo_config, _ = split_ispo_settings(settings.get("ispo"))
    has_signals = ispo_config.ifd_weight != 0 or ispo_config.token_weight != 0
    correct = _correct_of_composite.get()
    if has_signals and correct is None:
        raise MissingIntrinsicSignalsError(
            "algorithm.adv_estimator=ispo, but the rewards carry no intrinsic signal: stock trainer modes do not "
            "compute them, and this would be GRPO under another name. Set trainer.v1.trainer_mode to one of "
            f"{', '.join(ISPO_TRAINER_MODES)} (with trainer.use_v1=true), or algorithm.adv_estimator=grpo."
        )
    normalize_by_std = bool(settings.get("norm_adv_by_std_in_grpo", True))
    one_success = ispo_config.same_outcome_std == "one_success" and correct is not None
    if ispo_config.min_group_std == 0 and not one_success:
        return compute_grpo_outcome_advantage(
            token_level_rewards=token_level_rewards,
            response_mask=response_mask,
            index=index,
            norm_adv_by_std_in_grpo=normalize_by_std,
        )
    rewards = token_level_rewards.sum(dim=-1)
    groups = RolloutGroups.from_labels(index)
    same_outcome = groups.all_wrong(correct) | groups.all_right(correct) if one_success else None
    advantage = group_advantage(rewards, groups, normalize_by_std, ispo_config.min_group_std, same_outcome)
    advantages = advantage.unsqueeze(-1) * response_mask
    return advantages, advantages
