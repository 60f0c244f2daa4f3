"""ISPO's signals, composite reward and everything that the metrics need, from a step's batch."""

from __future__ import annotations

from collections.abc import Collection

import torch

from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.signals.answer_span import gather_answer
from verl_ispo.signals.composite import compute_ispo_reward
from verl_ispo.signals.critical_tokens import outside_the_answer
from verl_ispo.signals.diagnostics import ObservedBatch
from verl_ispo.signals.groups import guarded_reward
from verl_ispo.signals.running_ifd import RunningIFD
from verl_ispo.trainer.policy_pass import PolicyPass
from verl_ispo.trainer.refusals import UnsupportedSettingError
from verl_ispo.trainer.step_batch import StepBatch


def observe(
    step: StepBatch,
    policy_pass: PolicyPass,
    config: ISPOConfig,
    running_ifd: RunningIFD,
    end_of_sequence: Collection[int],
    trains_on_composite: bool,
) -> ObservedBatch:
    """Signals and rewards of the step's rollouts.

    Args:
        step (`StepBatch`): with responses, log-probs of policy and reference, and entropies.
        policy_pass (`PolicyPass`): of the same batch.
        config (`ISPOConfig`).
        running_ifd (`RunningIFD`): of the steps before.
        end_of_sequence (`Collection[int]`): token ids, for `exclude_answer_from_critical`.
        trains_on_composite (`bool`): whether the composite or the score is trained on.

    Raises:
        UnsupportedSettingError: there are no reference log-probs.
        NonFiniteSignalError: NaN or infinity where a mask is true, with field, row and position.
    """
    if not step.has("ref_log_prob"):
        raise UnsupportedSettingError("no reference log-probs: ISPO's drift filter needs the reference policy")
    answers = policy_pass.answers.scored.rows(step.rows)
    spans = answers.spans
    log_prob, entropy = step.padded("old_log_probs").float(), step.padded("entropy").float()
    response_ids = step.padded("responses")
    answer_log_prob, answer_mask = gather_answer(log_prob, spans)
    if policy_pass.given_log_prob is not None:
        given = policy_pass.given_log_prob[step.rows][:, : answer_mask.shape[1]]
        answer_log_prob = torch.where(answers.stated.unsqueeze(-1), given, answer_log_prob)
    ablated_answer_log_prob = policy_pass.ablated_log_prob[step.rows][:, : answer_mask.shape[1]]
    excludes = config.exclude_answer_from_critical
    outside = outside_the_answer(response_ids, spans, end_of_sequence) if excludes else None
    reward = compute_ispo_reward(
        score=step.score,
        correct=step.correct,
        log_prob=log_prob,
        ref_log_prob=step.padded("ref_log_prob").float(),
        entropy=entropy,
        response_mask=step.response_mask,
        answer_log_prob=answer_log_prob,
        ablated_answer_log_prob=ablated_answer_log_prob,
        answer_mask=answer_mask,
        config=config,
        entropy_candidate_mask=outside,
        running_ifd=running_ifd,
    )
    right_answer = None if policy_pass.right_answer is None else policy_pass.right_answer.rows(step.rows)
    reward = guarded_reward(reward, step.correct, step.groups, config, right_answer)
    return ObservedBatch(
        reward=reward,
        training_reward=reward.total if trains_on_composite else step.score,
        correct=step.correct,
        groups=step.groups,
        answers=answers,
        response_ids=response_ids,
        response_mask=step.response_mask,
        entropy=entropy,
        answer_log_prob=answer_log_prob,
        ablated_answer_log_prob=ablated_answer_log_prob,
        answer_mask=answer_mask,
        right_answer=right_answer,
    )
