"""What a method is: its settings, its rule as a pure function of one batch, and what it needs.

A module of this package that holds a ``METHOD`` is a method; `verl_ispo.methods.registry` finds it, and everything that
knows methods (verl's registries, refusals, ``verl-ispo doctor``, ``verl-ispo methods``) reads it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch

from verl_ispo.signals.diagnostics import ObservedBatch
from verl_ispo.signals.groups import RolloutGroups


class Need(Enum):
    """Fields of `MethodBatch` beyond rewards, masks and groups; the value is its name in messages."""

    CORRECT = "the verifier's verdict"
    LOG_PROB = "log-probs of the response"
    ENTROPY = "the policy's entropy"
    PROMPT_LOG_PROB = "log-probs of the prompt"
    ANSWER_TEXT = "the answers' texts"
    GRPO_ADVANTAGE = "GRPO's advantage"
    ISPO_SIGNALS = "ISPO's signals"


@dataclass(frozen=True)
class MethodBatch:
    """One step's rollouts under the rollout policy, detached; what a method has not declared as a need is `None`.

    Rows that only pad the batch are included: they have an all-zero mask and a group of their own.

    Attributes:
        rewards: what verl's estimators read, `(batch, response_length)` float32: the score on the last token, less the
            KL penalty where verl has one.
        response_mask: `(batch, response_length)`, 1 where the policy wrote the token.
        groups: which rollouts share a prompt.
        normalize_by_std: verl's ``norm_adv_by_std_in_grpo``.
        correct: the verifier's verdict, `(batch,)` bool; false for padding rows.
        log_prob: of the sampled tokens, `(batch, response_length)` float32.
        entropy: of the next-token distribution, nats, same shape.
        prompt_log_prob: of the prompt's tokens but the first, `(batch, prompt_length)` float32, left-aligned.
        prompt_mask: `(batch, prompt_length)` bool.
        answer_texts: text of each rollout's answer, `None` for one without an answer.
        grpo_advantage: verl's own GRPO on the rewards, `(batch, response_length)`.
        ispo_signals: ISPO's signals and rewards, without padding rows.
        state: the method's state before this step, where it declares one.
    """

    rewards: torch.Tensor
    response_mask: torch.Tensor
    groups: RolloutGroups
    normalize_by_std: bool = True
    correct: torch.Tensor | None = None
    log_prob: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    prompt_log_prob: torch.Tensor | None = None
    prompt_mask: torch.Tensor | None = None
    answer_texts: Sequence[str | None] | None = None
    grpo_advantage: torch.Tensor | None = None
    ispo_signals: ObservedBatch | None = None
    state: Any | None = None


@dataclass(frozen=True)
class LossBatch:
    """One micro-batch for a policy loss, all of shape `(batch, response_length)`; ratio = exp(log_ratio).

    Attributes:
        log_ratio: log p_new - log p_old of the sampled tokens, clamped to [-20, 20] as verl does.
        unclamped_log_ratio: the same before the clamp.
        advantages: of the tokens.
        response_mask: bool.
        clip_low, clip_high: the range is [1 - clip_low, 1 + clip_high].
        dual_clip: verl's ``clip_ratio_c``, the bound on the ratio of a negative advantage.
        importance_weights: verl's rollout correction, or `None`.
    """

    log_ratio: torch.Tensor
    unclamped_log_ratio: torch.Tensor
    advantages: torch.Tensor
    response_mask: torch.Tensor
    clip_low: float
    clip_high: float
    dual_clip: float
    importance_weights: torch.Tensor | None


@dataclass(frozen=True)
class TokenLoss:
    """What a loss rule gives: the loss before aggregation, and which tokens are clipped, `(batch, response_length)`."""

    loss: torch.Tensor
    clipped: torch.Tensor


@dataclass(frozen=True)
class MethodState:
    """What a method carries from step to step; the trainer keeps it in the checkpoint, as JSON of its fields.

    Attributes:
        name: of its file, ``<method>_<name>.json``.
        kind: a frozen dataclass of numbers; without arguments it is the state before the first step.
        update: from the state before a step, the step's batch (its rewards are the scorer's) and the method's settings
            to the state after it.
    """

    name: str
    kind: type
    update: Callable[[Any, MethodBatch, Any], Any]


@dataclass(frozen=True)
class PromptChoice:
    """How a method chooses the prompts of a step from a larger number of candidates.

    Attributes:
        keep_fraction: from the settings to the share of the candidates that is kept, in (0, 1].
        score: from the log-probs of the prompts' tokens but the first and their mask, both `(prompts, prompt_length)`,
            to one number per prompt.
        score_name: what that number is called in the metrics.
        choose: from the scores, the number to keep, and progress in [0, 1] to the indices of the prompts to keep.
    """

    keep_fraction: Callable[[Any], float]
    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    score_name: str
    choose: Callable[[torch.Tensor, int, float], torch.Tensor]


@dataclass(frozen=True)
class Contradiction:
    """Two settings, one of which makes the other void; keys are verl's dotted ones."""

    first: str
    second: str
    why: str
    remedy: str


Settings = Mapping[str, Any] | None
Lookup = Callable[[str], Any]


@dataclass(frozen=True)
class Method:
    """One method of this project, chosen by ``algorithm.adv_estimator=<name>``.

    Attributes:
        name: of the estimator, of the section ``algorithm.<name>`` and of the policy loss, where it brings one.
        advantage: the rule, from a batch and the settings to advantages of shape `(batch,)` or
            `(batch, response_length)`.
        needs: fields of the batch that it reads.
        settings: from the section ``algorithm.<name>`` to a checked dataclass; `None` if there are none.
        works_without: from the settings to whether it computes the same without its needs, as GRPO does, so that
            it can also run in verl's stock trainer modes.
        token_loss: the rule of its policy loss, which then goes together with the estimator.
        loss_metrics: metrics beside verl's clipped loss, which is then registered under the method's name.
        prompt_choice: which prompts a step trains on, where the method chooses.
        state: what it carries from step to step.
        contradictions: from a look-up of verl's settings to the pairs that make no sense under this method.
    """

    name: str
    advantage: Callable[[MethodBatch, Any], torch.Tensor]
    needs: frozenset[Need] = field(default_factory=frozenset)
    settings: Callable[[Settings], Any] | None = None
    works_without: Callable[[Any], bool] | None = None
    token_loss: Callable[[LossBatch], TokenLoss] | None = None
    loss_metrics: Callable[[LossBatch], dict[str, float]] | None = None
    prompt_choice: PromptChoice | None = None
    state: MethodState | None = None
    contradictions: Callable[[Lookup], Iterator[Contradiction]] | None = None

    @property
    def brings_a_loss(self) -> bool:
        """Whether a policy loss is registered under the method's name."""
        return self.token_loss is not None or self.loss_metrics is not None

    def read_settings(self, section: Settings) -> Any:
        """The checked settings; an unknown key or a value out of range is a `ValueError`."""
        return None if self.settings is None else self.settings(section)
