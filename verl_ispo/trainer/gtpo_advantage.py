"""verl's advantage estimator ``gtpo``: GTPO's entropy-shaped token rewards (arXiv 2508.04349), normalised."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from verl.trainer.ppo.core_algos import register_adv_est

from verl_ispo.methods.gtpo import GTPOConfig, gtpo_advantage
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.trainer.batch_signals import current_batch_signals


@register_adv_est("gtpo")
def compute_gtpo_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    config: DictConfig | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """GTPO's advantage from the batch's entropy and verdicts.

    The outcome R is the verifier's verdict: shaped scores and KL in the reward have no influence.

    Args:
        token_level_rewards (`torch.Tensor` of shape `(batch, response_length)`): only its type is used.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`).
        index (`np.ndarray` of shape `(batch,)`): prompt of each row.
        config (`DictConfig`, *optional*): verl's ``algorithm`` section; ``gtpo`` (see `GTPOConfig`) and
            ``norm_adv_by_std_in_grpo`` are read. The paper divides by the std; ``false`` leaves that out (ours).

    Returns:
        `(advantages, returns)`, both of shape `(batch, response_length)`.

    Raises:
        MissingBatchSignalsError: outside of an ISPO trainer mode.
    """
    settings = config if config is not None else {}
    gtpo_config = GTPOConfig.from_mapping(settings.get("gtpo"))
    signals = current_batch_signals("gtpo")
    advantages = gtpo_advantage(
        entropy=signals.entropy,
        response_mask=response_mask,
        correct=signals.correct,
        groups=RolloutGroups.from_labels(index),
        config=gtpo_config,
        normalize_by_std=bool(settings.get("norm_adv_by_std_in_grpo", True)),
    ).to(token_level_rewards.dtype)
    return advantages, advantages
