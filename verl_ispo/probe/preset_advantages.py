"""The advantage that each preset would give to a batch of rollouts, by the project's own rewards and rules.

What a preset changes beside the advantage (loss, clip, length penalty, choice of prompts) plays no part here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from verl_ispo.config.ispo_config import SECTION, ISPOConfig
from verl_ispo.method_presets import method_names, read_preset
from verl_ispo.methods.method import Method, MethodBatch, Need
from verl_ispo.methods.registry import method_of
from verl_ispo.probe.scored_rollouts import ScoredRollouts
from verl_ispo.signals.composite import ISPOReward, compute_ispo_reward
from verl_ispo.signals.diagnostics import ObservedBatch
from verl_ispo.signals.groups import group_advantage, guarded_reward
from verl_ispo.signals.right_answer import RightAnswerScores
from verl_ispo.signals.running_ifd import RunningIFD, adjusted_ifd
from verl_ispo.user_error import UserError

BESIDE = ("grpo", "sign")
"""Shown beside the presets of ISPO: the baseline, and the method that gives every group an advantage."""
_PER_ROLLOUT = {Need.CORRECT, Need.GRPO_ADVANTAGE, Need.ISPO_SIGNALS}
"""What a rule may read to be one number per rollout."""


@dataclass(frozen=True)
class PresetRule:
    """How a preset computes an advantage.

    Attributes:
        estimator: `None` for verl's GRPO on the plain score.
        config: ISPO's settings.
        normalize_by_std: verl's ``norm_adv_by_std_in_grpo``.
    """

    estimator: str | None
    config: ISPOConfig
    normalize_by_std: bool

    @property
    def method(self) -> Method | None:
        """The method of this project behind it."""
        return method_of(self.estimator)

    @property
    def uses_signals(self) -> bool:
        """Whether the composite reward is trained on."""
        return self.method is not None and Need.ISPO_SIGNALS in self.method.needs


def preset_rule(name: str, overrides: Mapping[str, Any]) -> PresetRule:
    """The rule of one preset.

    Args:
        name (`str`): as in ``method=name``.
        overrides (`Mapping`): settings of ``algorithm.ispo`` that win over the preset's, as on a command line.

    Raises:
        UserError: no such preset, a setting that does not exist, or an estimator whose advantage differs from token to
            token or is verl's own and not GRPO's.
    """
    changes = read_preset(name).changes
    estimator = str(changes.get("algorithm.adv_estimator", "grpo"))
    method = method_of(estimator)
    # A rule with settings of its own may be another preset's, and one may go by lengths, which are not handed over.
    has_settings = method is not None and method.settings is not None and Need.ISPO_SIGNALS not in method.needs
    if estimator != "grpo" and (method is None or has_settings or not method.needs <= _PER_ROLLOUT):
        raise UserError(
            f"--methods {name}: the probe compares one advantage per rollout, and the estimator {estimator} is none of "
            f"GRPO, sign and ISPO; choose among {' '.join([*BESIDE, *signal_presets()])}"
        )
    own = {key.removeprefix(f"{SECTION}."): value for key, value in changes.items() if key.startswith(f"{SECTION}.")}
    try:
        config = ISPOConfig.from_mapping({**own, **overrides})
    except ValueError as error:
        raise UserError(str(error)) from error
    normalize = bool(changes.get("algorithm.norm_adv_by_std_in_grpo", True))
    return PresetRule(None if method is None else estimator, config, normalize)


def signal_presets() -> list[str]:
    """Every preset whose estimator uses ISPO's signals, the paper's first."""
    names = [name for name in method_names() if Need.ISPO_SIGNALS.value in read_preset(name).needs]
    return sorted(names, key=lambda name: (name != "ispo", name))


@dataclass(frozen=True)
class PresetBatch:
    """A batch under one preset's rule.

    Attributes:
        rule: of the preset.
        rollouts: the batch.
    """

    rule: PresetRule
    rollouts: ScoredRollouts

    @cached_property
    def _unguarded(self) -> ISPOReward:
        rollouts, config = self.rollouts, self.rule.config
        return compute_ispo_reward(
            score=rollouts.score,
            correct=rollouts.correct,
            log_prob=rollouts.log_prob,
            ref_log_prob=rollouts.ref_log_prob,
            entropy=rollouts.entropy,
            response_mask=rollouts.response_mask,
            answer_log_prob=rollouts.answer_log_prob,
            ablated_answer_log_prob=rollouts.ablated_answer_log_prob,
            answer_mask=rollouts.answer_mask,
            config=config,
            entropy_candidate_mask=rollouts.outside_answer,
        )

    @cached_property
    def _running_ifd(self) -> RunningIFD:
        """The running means after many steps like this batch: its own means (at a first step there are none)."""
        reward = self._unguarded
        return RunningIFD().updated(reward.measured_ifd, self.rollouts.correct, reward.answer_found, 0.0)

    def reward(
        self,
        measured_ifd: torch.Tensor | None = None,
        found: torch.Tensor | None = None,
        right_answer: RightAnswerScores | None = None,
    ) -> ISPOReward:
        """The reward with its guards; what is given replaces the batch's own, `(batch,)` each."""
        plain = self._unguarded
        measured_ifd = plain.measured_ifd if measured_ifd is None else measured_ifd
        found = plain.answer_found if found is None else found
        config, correct = self.rule.config, self.rollouts.correct
        ifd = adjusted_ifd(measured_ifd, correct, found, self._running_ifd, config)
        changed = replace(plain, measured_ifd=measured_ifd, ifd=ifd, answer_found=found)
        right_answer = self.rollouts.right_answer if right_answer is None else right_answer
        return guarded_reward(changed, correct, self.rollouts.groups, config, right_answer)

    def training_reward(self, reward: ISPOReward) -> torch.Tensor:
        """What the advantage is computed from, `(batch,)`."""
        return reward.total if self.rule.uses_signals else self.rollouts.score

    def advantage(self, reward: ISPOReward) -> torch.Tensor:
        """One advantage per rollout, `(batch,)`."""
        rule, groups = self.rule, self.rollouts.groups
        rewards = self.training_reward(reward)
        # verl's GRPO, which a test holds against verl's own
        grpo = group_advantage(rewards, groups, rule.normalize_by_std, min_group_std=0.0)
        if rule.method is None:
            return grpo
        batch = MethodBatch(
            rewards=rewards.unsqueeze(-1),
            response_mask=torch.ones(len(rewards), 1),
            groups=groups,
            normalize_by_std=rule.normalize_by_std,
            correct=self.rollouts.correct,
            grpo_advantage=grpo.unsqueeze(-1),
        )
        settings = rule.config if rule.uses_signals else rule.method.read_settings(None)
        advantage = rule.method.advantage(batch, settings)
        return advantage.squeeze(-1) if advantage.dim() > 1 else advantage

    @cached_property
    def observed(self) -> ObservedBatch:
        """The batch as the trainer's metrics read it."""
        rollouts, reward = self.rollouts, self.reward()
        return ObservedBatch(
            reward=reward,
            training_reward=self.training_reward(reward),
            correct=rollouts.correct,
            groups=rollouts.groups,
            answers=rollouts.answers,
            response_ids=rollouts.response_ids,
            response_mask=rollouts.response_mask,
            entropy=rollouts.entropy,
            answer_log_prob=rollouts.answer_log_prob,
            ablated_answer_log_prob=rollouts.ablated_answer_log_prob,
            answer_mask=rollouts.answer_mask,
            right_answer=rollouts.right_answer,
        )

    def if_one_changed(self, answer_is_there: bool) -> torch.Tensor:
        """The advantage that each incorrect answered rollout would get if it alone had an IFD of 0; NaN for the others.

        Args:
            answer_is_there (`bool`): `False`: it gives no answer. `True`: it gives its answer without a trace, so that
                both of its log-probs are the same.

        Returns:
            `torch.Tensor` of shape `(batch,)`.
        """
        groups, plain = self.rollouts.groups, self._unguarded
        changed = torch.full_like(plain.measured_ifd, torch.nan)
        eligible = ~self.rollouts.correct & plain.answer_found
        index_in_group = _index_in_group(groups.ids)
        for index in range(int(groups.size.max()) if groups.count else 0):
            rows = eligible & (index_in_group == index)
            if rows.any():
                ifd = torch.where(rows, 0.0, plain.measured_ifd)
                reward = self.reward(
                    ifd, plain.answer_found & ~(rows & (not answer_is_there)), self._without_traces(rows)
                )
                changed = torch.where(rows, self.advantage(reward), changed)
        return changed

    def _without_traces(self, rows: torch.Tensor) -> RightAnswerScores:
        """The correct answers' scores if some rollouts had no trace: both contexts are the same then."""
        scores = self.rollouts.right_answer
        given_trace = torch.where(rows.unsqueeze(-1), scores.ablated, scores.given_trace)
        return replace(scores, given_trace=given_trace)


def _index_in_group(group_ids: torch.Tensor) -> torch.Tensor:
    seen: dict[int, int] = {}
    indices = []
    for group in group_ids.tolist():
        indices.append(seen.get(group, 0))
        seen[group] = indices[-1] + 1
    return torch.tensor(indices, dtype=torch.long)


def same_rules(names: Sequence[str], overrides: Mapping[str, Any]) -> dict[PresetRule, list[str]]:
    """The presets by their rules: those that share one give the same advantages on any batch."""
    rules: dict[PresetRule, list[str]] = {}
    for name in names:
        rules.setdefault(preset_rule(name, overrides), []).append(name)
    return rules
