"""verl's advantage estimator ``progrpo``: GRPO's advantage plus ProGRPO's term (arXiv 2602.05281)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, register_adv_est

from verl_ispo.methods.progrpo import ProGRPOConfig, confidence_gap, progrpo_advantage
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.trainer.batch_signals import current_batch_signals


@register_adv_est("progrpo")
def compute_progrpo_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    config: DictConfig | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A + a (c(q) - c(o)) outside of all-wrong groups, A being verl's own GRPO; see `verl_ispo.methods.progrpo`.

    Args:
        token_level_rewards (`torch.Tensor` of shape `(batch, response_length)`): outcome rewards.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`).
        index (`np.ndarray` of shape `(batch,)`): prompt of each row.
        config (`DictConfig`, *optional*): verl's ``algorithm`` section; ``norm_adv_by_std_in_grpo`` and ``progrpo`` are
            read.

    Returns:
        `(advantages, returns)`, both of shape `(batch, response_length)`.

    Raises:
        MissingBatchSignalsError: outside of an ISPO trainer mode.
        ValueError: an unknown setting, or one out of range.
    """
    settings = config if config is not None else {}
    progrpo_config = ProGRPOConfig.from_mapping(settings.get("progrpo"))
    signals = current_batch_signals("progrpo")
    grpo, _ = compute_grpo_outcome_advantage(
        token_level_rewards=token_level_rewards,
        response_mask=response_mask,
        index=index,
        norm_adv_by_std_in_grpo=bool(settings.get("norm_adv_by_std_in_grpo", True)),
    )
    gap = confidence_gap(
        signals.log_prob,
        response_mask,
        signals.prompt_log_prob,
        signals.prompt_mask,
        progrpo_config.low_probability_fraction,
    )
    groups = RolloutGroups.from_labels(index)
    advantages = progrpo_advantage(grpo, response_mask, gap, signals.correct, groups, progrpo_config)
    return advantages, advantages
