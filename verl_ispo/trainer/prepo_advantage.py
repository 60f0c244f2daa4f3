"""verl's advantage estimator ``prepo``: GRPO's advantage times PREPO's weight of the rollout (arXiv 2511.00794)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, register_adv_est

from verl_ispo.methods.prepo import PREPOConfig, relative_entropy_weight
from verl_ispo.trainer.batch_signals import current_batch_signals


@register_adv_est("prepo")
def compute_prepo_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    index: np.ndarray,
    config: DictConfig | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """w_i A, A being verl's own GRPO.

    In PREPO w_i multiplies the clipped loss. It is not negative, and the clipped surrogate, dual clip included, is
    positively homogeneous in A, so on the advantage it does the same and verl's losses stay as they are.

    Args:
        token_level_rewards (`torch.Tensor` of shape `(batch, response_length)`): outcome rewards.
        response_mask (`torch.Tensor` of shape `(batch, response_length)`).
        index (`np.ndarray` of shape `(batch,)`): prompt of each row.
        config (`DictConfig`, *optional*): verl's ``algorithm`` section; ``norm_adv_by_std_in_grpo`` is read, and
            ``prepo`` is checked (its settings are for the choice of prompts).

    Returns:
        `(advantages, returns)`, both of shape `(batch, response_length)`.

    Raises:
        MissingBatchSignalsError: outside of an ISPO trainer mode.
        ValueError: an unknown setting, or one out of range.
    """
    settings = config if config is not None else {}
    PREPOConfig.from_mapping(settings.get("prepo"))
    signals = current_batch_signals("prepo")
    grpo, _ = compute_grpo_outcome_advantage(
        token_level_rewards=token_level_rewards,
        response_mask=response_mask,
        index=index,
        norm_adv_by_std_in_grpo=bool(settings.get("norm_adv_by_std_in_grpo", True)),
    )
    advantages = relative_entropy_weight(signals.entropy, response_mask).unsqueeze(-1) * grpo
    return advantages, advantages
