"""Registers every method of `verl_ispo.methods` with verl: advantage estimators and policy losses.

Only this module knows both a method and verl's signatures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from verl.trainer.ppo.core_algos import (
    agg_loss,
    compute_grpo_outcome_advantage,
    compute_policy_loss_vanilla,
    register_adv_est,
    register_policy_loss,
)
from verl.utils.torch_functional import masked_mean
from verl.workers.config import ActorConfig

from verl_ispo.methods.method import LossBatch, Method, MethodBatch, Need
from verl_ispo.methods.registry import methods
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.trainer.hand_over import KnownOfBatch, handed_over_batch
from verl_ispo.trainer.method_loss import KnownOfLoss, handed_over_to_loss

ISPO_TRAINER_MODES = ("ispo_sync", "ispo_colocate_async", "ispo_separate_async")


class MissingSignalsError(RuntimeError):
    """An estimator was called where nothing provides what it needs; the message names the key to set."""


def advantage_estimator(method: Method) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """verl's advantage estimator for a method: `(advantages, returns)`, both `(batch, response_length)`.

    Raises, when called:
        MissingSignalsError: outside of an ISPO trainer mode, unless the method's settings make it GRPO.
        ValueError: an unknown setting of the method, or one out of range.
    """

    def compute_advantage(
        token_level_rewards: torch.Tensor,
        response_mask: torch.Tensor,
        index: np.ndarray,
        config: DictConfig | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        algorithm = config if config is not None else {}
        settings = method.read_settings(algorithm.get(method.name))
        known = handed_over_batch()
        if known is None:
            if method.works_without is None or not method.works_without(settings):
                raise MissingSignalsError(_missing(method))
            known = KnownOfBatch()
        normalize_by_std = bool(algorithm.get("norm_adv_by_std_in_grpo", True))
        grpo_advantage = None
        if Need.GRPO_ADVANTAGE in method.needs:
            grpo_advantage, _returns = compute_grpo_outcome_advantage(
                token_level_rewards=token_level_rewards,
                response_mask=response_mask,
                index=index,
                norm_adv_by_std_in_grpo=normalize_by_std,
            )
        batch = MethodBatch(
            rewards=token_level_rewards,
            response_mask=response_mask,
            groups=RolloutGroups.from_labels(index),
            normalize_by_std=normalize_by_std,
            grpo_advantage=grpo_advantage,
            **{part.name: getattr(known, part.name) for part in fields(KnownOfBatch)},
        )
        advantages = method.advantage(batch, settings).to(token_level_rewards.dtype)
        if advantages.dim() == 1:
            advantages = advantages.unsqueeze(-1) * response_mask
        return advantages, advantages

    return compute_advantage


def _missing(method: Method) -> str:
    state = ["its state from step to step"] if method.state is not None else []
    needs = ", ".join(sorted(need.value for need in method.needs) + state)
    return (
        f"algorithm.adv_estimator={method.name} needs {needs}, which stock trainer modes do not hand to an estimator. "
        f"Set trainer.v1.trainer_mode to one of {', '.join(ISPO_TRAINER_MODES)} (with trainer.use_v1=true), or "
        "algorithm.adv_estimator=grpo."
    )


def policy_loss(method: Method) -> Callable[..., tuple[torch.Tensor, dict[str, Any]]]:
    """verl's policy loss for a method: its own token loss, or verl's clipped loss with the method's metrics."""

    def compute_policy_loss(
        old_log_prob: torch.Tensor,
        log_prob: torch.Tensor,
        advantages: torch.Tensor,
        response_mask: torch.Tensor,
        loss_agg_mode: str = "token-mean",
        config: ActorConfig | None = None,
        rollout_is_weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        log_ratio = log_prob - old_log_prob
        known = handed_over_to_loss()
        if known is None:
            if method.loss_columns is not None or method.loss_needs_entropy or method.whole_groups:
                raise MissingSignalsError(_missing(method))
            known = KnownOfLoss(method.read_settings(None))
        batch = LossBatch(
            log_ratio=log_ratio.clamp(-20.0, 20.0),  # verl's bounds
            unclamped_log_ratio=log_ratio,
            advantages=advantages,
            response_mask=response_mask.bool(),
            clip_low=config.clip_ratio if config.clip_ratio_low is None else config.clip_ratio_low,
            clip_high=config.clip_ratio if config.clip_ratio_high is None else config.clip_ratio_high,
            dual_clip=config.get("clip_ratio_c", 3.0),
            importance_weights=rollout_is_weights,
            old_log_prob=old_log_prob,
            entropy=known.entropy,
            columns=known.columns,
        )
        if method.token_loss is None:
            loss, metrics = compute_policy_loss_vanilla(
                old_log_prob=old_log_prob,
                log_prob=log_prob,
                advantages=advantages,
                response_mask=response_mask,
                loss_agg_mode=loss_agg_mode,
                config=config,
                rollout_is_weights=rollout_is_weights,
            )
            return loss, {**metrics, **method.loss_metrics(batch)}
        found = method.token_loss(batch, known.settings)
        token_loss = found.loss if rollout_is_weights is None else found.loss * rollout_is_weights
        loss = agg_loss(
            loss_mat=token_loss, loss_mask=response_mask, loss_agg_mode=loss_agg_mode, **config.global_batch_info
        )
        return loss, {
            "actor/pg_clipfrac": masked_mean(found.clipped.float(), batch.response_mask).item(),
            "actor/ppo_kl": masked_mean(-batch.log_ratio.detach(), batch.response_mask).item(),
        }

    return compute_policy_loss


for _method in methods().values():
    register_adv_est(_method.name)(advantage_estimator(_method))
    if _method.brings_a_loss:
        register_policy_loss(_method.name)(policy_loss(_method))
