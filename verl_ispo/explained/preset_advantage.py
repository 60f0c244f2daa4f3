"""The advantage that a preset gives to a batch of rollouts, without verl.

What a preset changes beside the advantage (policy loss, clip, length penalty, choice of prompts) plays no part here.
verl's own estimators are repeated in a few lines each; a test holds them against verl's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.method_presets import MethodPreset, method_section
from verl_ispo.methods.method import Method, MethodBatch, Need, PrefixScores
from verl_ispo.methods.registry import method_of
from verl_ispo.signals.composite import ISPOReward, compute_ispo_reward
from verl_ispo.signals.groups import RolloutGroups, group_advantage, guarded_reward
from verl_ispo.signals.right_answer import RightAnswerScores
from verl_ispo.signals.running_ifd import RunningIFD

_FIELDS = {
    Need.CORRECT: "correct",
    Need.LOG_PROB: "log_prob",
    Need.ENTROPY: "entropy",
    Need.PROMPT_LOG_PROB: "prompt_log_prob",
    Need.ANSWER_TEXT: "answer_texts",
    Need.REFERENCE_LOG_PROB: "ref_log_prob",
    Need.RESPONSE_IDS: "response_ids",
    Need.PROMPT_KEY: "prompt_keys",
}
"""Fields of the batch that a method may need and that are not computed here."""
ScorePrefixes = Callable[[Method, Any], PrefixScores]
"""From a method and its settings to the ground truth's scores behind the cuts that it names."""


@dataclass(frozen=True)
class AnswerScores:
    """What ISPO's composite reward reads beyond a `MethodBatch`; shapes as in `compute_ispo_reward`.

    Attributes:
        given_trace, ablated: the answer's log-probs with the trace and without it, `(batch, answer_length)`.
        mask: `(batch, answer_length)` bool.
        outside_answer: tokens that the entropy filter may choose, `(batch, response_length)` bool.
        right_answer: the correct answers behind the traces; `None` where they were not scored.
    """

    given_trace: torch.Tensor
    ablated: torch.Tensor
    mask: torch.Tensor
    outside_answer: torch.Tensor
    right_answer: RightAnswerScores | None = None


@dataclass(frozen=True)
class KnownRollouts:
    """Some rollouts with what is known of them; fields of ``batch`` that are not known are `None`.

    Attributes:
        batch: one step's rollouts; its rewards are the scorer's.
        answers: for ISPO's presets.
        score_prefixes: for methods with `Need.PREFIX_SCORES`.
    """

    batch: MethodBatch
    answers: AnswerScores | None = None
    score_prefixes: ScorePrefixes | None = None


def estimator_of(preset: MethodPreset) -> str:
    """verl's ``algorithm.adv_estimator`` under a preset."""
    return str(preset.changes.get("algorithm.adv_estimator", "grpo"))


def settings_of(preset: MethodPreset, method: Method) -> Any:
    """The checked settings of a method under a preset."""
    return method.read_settings(method_section(preset, method.name))


def what_is_missing(preset: MethodPreset, known: KnownRollouts) -> list[str]:
    """What the preset's advantage needs and the rollouts do not have, in words; empty if it can be computed."""
    estimator = estimator_of(preset)
    method = method_of(estimator)
    if method is None:
        return [] if estimator in VERLS_OWN else [f"verl's own estimator {estimator}, which is not repeated here"]
    needs = set(method.needs)
    if Need.ISPO_SIGNALS in needs:
        needs |= {Need.LOG_PROB, Need.ENTROPY, Need.REFERENCE_LOG_PROB}
    missing = [need for need, name in _FIELDS.items() if need in needs and getattr(known.batch, name) is None]
    if Need.PREFIX_SCORES in needs and known.score_prefixes is None:
        missing.append(Need.PREFIX_SCORES)
    if Need.ISPO_SIGNALS in needs:
        if known.answers is None:
            missing.append(Need.ISPO_SIGNALS)
        elif settings_of(preset, method).all_wrong_groups == "right_answer" and known.answers.right_answer is None:
            missing.append(Need.PREFIX_SCORES)
    return [need.value for need in missing]


def preset_advantage(preset: MethodPreset, known: KnownRollouts) -> torch.Tensor:
    """A preset's advantage of every token, at the first step of a training.

    The running means of `ifd_reference` are those of these rollouts, as after many steps like them.

    Args:
        preset (`MethodPreset`).
        known (`KnownRollouts`): of which `what_is_missing` finds nothing.

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`, float64; 0 where not masked.
    """
    batch = replace(known.batch, normalize_by_std=bool(preset.changes.get("algorithm.norm_adv_by_std_in_grpo", True)))
    mask, method = batch.response_mask, method_of(estimator_of(preset))
    if method is None:
        return VERLS_OWN[estimator_of(preset)](batch).double() * mask
    settings = settings_of(preset, method)
    if Need.ISPO_SIGNALS in method.needs:
        batch = replace(batch, rewards=_on_last_token(_composite(known, settings).total, mask))
    batch = replace(
        batch,
        grpo_advantage=_grpo(batch),
        prefix_scores=known.score_prefixes(method, settings) if Need.PREFIX_SCORES in method.needs else None,
        state=None if method.state is None else method.state.kind(),
        # rollouts that are at hand are the policy's, none of them a trace of the data
        expert=torch.zeros(len(mask), dtype=torch.bool) if batch.expert is None else batch.expert,
    )
    advantage = method.advantage(batch, settings).double()
    return (advantage.unsqueeze(-1) if advantage.dim() == 1 else advantage) * mask


def _composite(known: KnownRollouts, config: ISPOConfig) -> ISPOReward:
    batch, answers = known.batch, known.answers

    def reward(running: RunningIFD | None) -> ISPOReward:
        return compute_ispo_reward(
            score=batch.rewards.sum(dim=-1),
            correct=batch.correct,
            log_prob=batch.log_prob,
            ref_log_prob=batch.ref_log_prob,
            entropy=batch.entropy,
            response_mask=batch.response_mask,
            answer_log_prob=answers.given_trace,
            ablated_answer_log_prob=answers.ablated,
            answer_mask=answers.mask,
            config=config,
            entropy_candidate_mask=answers.outside_answer,
            running_ifd=running,
        )

    first = reward(None)
    running = RunningIFD().updated(first.measured_ifd, batch.correct, first.answer_found, 0.0)
    return guarded_reward(reward(running), batch.correct, batch.groups, config, answers.right_answer)


def _on_last_token(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Scores of rollouts where verl has them, `(batch, response_length)`."""
    position = torch.arange(mask.shape[1])
    last = torch.where(mask.bool(), position, -1).amax(dim=-1, keepdim=True)
    return torch.where(position == last, scores.unsqueeze(-1), 0.0)


def _grpo(batch: MethodBatch) -> torch.Tensor:
    scores = batch.rewards.sum(dim=-1)
    return group_advantage(scores, batch.groups, batch.normalize_by_std, 0.0).unsqueeze(-1) * batch.response_mask


def _rloo(batch: MethodBatch) -> torch.Tensor:
    scores, groups = batch.rewards.sum(dim=-1), batch.groups
    others = (groups.size / (groups.size - 1).clamp(min=1))[groups.ids]
    advantage = torch.where((groups.size == 1)[groups.ids], scores, others * (scores - _group_mean(scores, groups)))
    return advantage.unsqueeze(-1) * batch.response_mask


def _reinforce_plus_plus(batch: MethodBatch) -> torch.Tensor:
    return _whitened(batch.rewards.sum(dim=-1, keepdim=True) * batch.response_mask, batch.response_mask)


def _reinforce_plus_plus_baseline(batch: MethodBatch) -> torch.Tensor:
    scores, groups = batch.rewards.sum(dim=-1), batch.groups
    centred = torch.where((groups.size == 1)[groups.ids], scores, scores - _group_mean(scores, groups))
    return _whitened(centred.unsqueeze(-1) * batch.response_mask, batch.response_mask)


def _group_mean(scores: torch.Tensor, groups: RolloutGroups) -> torch.Tensor:
    return groups.reduce(scores, "mean")[groups.ids]


def _whitened(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(v - mean) / sqrt(var + 1e-8) over all tokens of the batch, the variance unbiased."""
    written = values[mask.bool()]
    return torch.where(mask.bool(), (values - written.mean()) / (written.var() + 1e-8).sqrt(), 0.0)


VERLS_OWN: Mapping[str, Callable[[MethodBatch], torch.Tensor]] = {
    "grpo": _grpo,
    "rloo": _rloo,
    "reinforce_plus_plus": _reinforce_plus_plus,
    "reinforce_plus_plus_baseline": _reinforce_plus_plus_baseline,
}
"""verl's estimators that are repeated here, each to `(batch, response_length)`."""
