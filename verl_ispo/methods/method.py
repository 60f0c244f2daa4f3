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
    REFERENCE_LOG_PROB = "log-probs of the response under the reference policy"
    RESPONSE_IDS = "the responses' token ids"
    PROMPT_KEY = "which prompt of the data each rollout answers"
    EXPERT = "which rollouts are traces of the data"
    PREFIX_SCORES = "log-probs of the ground truth behind parts of the response"


# The column of a loss that says which rows share a prompt.
GROUP_COLUMN = "group"


@dataclass(frozen=True)
class PrefixScores:
    """log p of the ground truth behind the first tokens of each response, from one forward over them.

    Attributes:
        cuts: how many tokens of the response come before the ground truth, `(batch, cuts)` int64, rising in each row.
            The first cut is 0, the prompt alone.
        mask: `(batch, cuts)` bool; a row of false where nothing was scored (no ground truth, padding).
        mean_log_prob: of the ground truth's tokens, nats per token, `(batch, cuts)` float32.
        mean_entropy: of the policy at these tokens, nats, same shape.
        tokens: of the ground truth, `(batch,)` int64; 0 where nothing was scored.
    """

    cuts: torch.Tensor
    mask: torch.Tensor
    mean_log_prob: torch.Tensor
    mean_entropy: torch.Tensor
    tokens: torch.Tensor


@dataclass(frozen=True)
class CutRequest:
    """One response, for a method to say behind which of its tokens the ground truth is scored.

    Attributes:
        entropy: of the response's tokens, nats, `(length,)` float32.
        token_texts: each token's own text; joined, nearly the response (a character may span tokens).
        trace_length: tokens before the answer's lead-in; the whole length where there is no answer.
    """

    entropy: torch.Tensor
    token_texts: Sequence[str]
    trace_length: int


@dataclass(frozen=True)
class PrefixCuts:
    """Where a method has the ground truth scored (`Need.PREFIX_SCORES`).

    Attributes:
        positions: from a response and the settings to the cuts behind 0, rising, each at most the response's length.
        lead_in: from the settings to the text between the cut and the ground truth.
    """

    positions: Callable[[CutRequest, Any], Sequence[int]]
    lead_in: Callable[[Any], str]


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
        ref_log_prob: of the sampled tokens under the reference policy, `(batch, response_length)` float32.
        response_ids: token ids, `(batch, response_length)` int64, 0 behind the response's end.
        prompt_keys: text that is the same for every rollout of a prompt, at every step and after a restart, and differs
            between prompts; `""` for padding rows.
        prefix_scores: of the cuts that the method's `prefix_cuts` names.
        expert: which rollouts are traces of the data, `(batch,)` bool; false for padding rows.
        step: number of this training step, from 1.
        total_steps: of the whole training.
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
    ref_log_prob: torch.Tensor | None = None
    response_ids: torch.Tensor | None = None
    prompt_keys: Sequence[str] | None = None
    prefix_scores: PrefixScores | None = None
    expert: torch.Tensor | None = None
    step: int = 1
    total_steps: int = 1
    state: Any | None = None


@dataclass(frozen=True)
class LossBatch:
    """One micro-batch for a policy loss, all of shape `(batch, response_length)`; ratio = exp(log_ratio).

    Rows that only pad the batch have an all-zero mask.

    Attributes:
        log_ratio: log p_new - log p_old of the sampled tokens, clamped to [-20, 20] as verl does.
        unclamped_log_ratio: the same before the clamp.
        advantages: of the tokens.
        response_mask: bool.
        clip_low, clip_high: the range is [1 - clip_low, 1 + clip_high].
        dual_clip: verl's ``clip_ratio_c``, the bound on the ratio of a negative advantage.
        importance_weights: verl's rollout correction, or `None`.
        old_log_prob: log p_old of the sampled tokens.
        entropy: of the current policy's next-token distribution, nats, detached; `None` unless the method declares
            `loss_needs_entropy`.
        columns: what the method's `loss_columns` gave for these rows, detached, by name.
    """

    log_ratio: torch.Tensor
    unclamped_log_ratio: torch.Tensor
    advantages: torch.Tensor
    response_mask: torch.Tensor
    clip_low: float
    clip_high: float
    dual_clip: float
    importance_weights: torch.Tensor | None
    old_log_prob: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    columns: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def row_column(self, name: str) -> torch.Tensor:
        """A column that `loss_columns` gave as one value per rollout, `(batch,)`; 0 for a row without tokens."""
        values, mask = self.columns[name], self.response_mask
        return torch.where(mask, values, 0).sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)

    @property
    def groups(self) -> RolloutGroups:
        """Which rows share a prompt, for a method that declares `whole_groups`; rows without tokens are alone."""
        ids = self.row_column(GROUP_COLUMN).round().long().tolist()
        has_tokens = self.response_mask.any(dim=-1).tolist()
        labels = [ids[row] if has_tokens[row] else f"padding {row}" for row in range(len(ids))]
        return RolloutGroups.from_labels(labels, device=self.response_mask.device)


@dataclass(frozen=True)
class TokenLoss:
    """What a loss rule gives: the loss before aggregation, and which tokens are clipped, `(batch, response_length)`."""

    loss: torch.Tensor
    clipped: torch.Tensor


def spread_over_tokens(row_values: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """Put one value per rollout on its tokens in equal parts, so that a row's sum over tokens is its value.

    For a loss of whole sequences or groups. With ``loss_agg_mode=seq-mean-token-sum`` verl then takes the mean of the
    values over the rollouts of the mini-batch, however it is cut into micro-batches.

    Args:
        row_values (`torch.Tensor` of shape `(batch,)`).
        response_mask (`torch.Tensor` of shape `(batch, response_length)`, bool).

    Returns:
        `torch.Tensor` of shape `(batch, response_length)`; 0 where not masked.
    """
    parts = row_values / response_mask.sum(dim=-1).clamp(min=1)
    return torch.where(response_mask, parts.unsqueeze(-1), 0.0)


@dataclass(frozen=True)
class MethodState:
    """What a method carries from step to step; the trainer keeps it in the checkpoint, as JSON of its fields.

    Attributes:
        name: of its file, ``<method>_<name>.json``.
        kind: a frozen dataclass of what JSON holds; without arguments it is the state before the first step.
        update: from the state before a step, the step's batch (its rewards are the scorer's) and the method's settings
            to the state after it.
    """

    name: str
    kind: type
    update: Callable[[Any, MethodBatch, Any], Any]


@dataclass(frozen=True)
class PromptCandidates:
    """What a method draws a step's prompts from where it needs no forward for that.

    Attributes:
        keys: of each candidate, as in `MethodBatch.prompt_keys`.
        keep: how many prompts the step trains on.
        step: number of the step, from 1.
        state: the method's state before it.
    """

    keys: Sequence[str]
    keep: int
    step: int
    state: Any


@dataclass(frozen=True)
class DrawnPrompts:
    """Which candidates a step trains on.

    Attributes:
        rows: indices of candidates, `(keep,)` int64; one may be there several times, each with rollouts of its own.
        score: what they were drawn by, `(candidates,)`, for the metrics; `None` where nothing was.
    """

    rows: torch.Tensor
    score: torch.Tensor | None = None


@dataclass(frozen=True)
class PromptChoice:
    """How a method chooses the prompts of a step: by `score` and `choose`, or by `draw`.

    Attributes:
        keep_fraction: from the settings to the share of the candidates that is kept, in (0, 1].
        score_name: what a prompt's score is called in the metrics.
        score: from the log-probs of the prompts' tokens but the first and their mask, both `(prompts, prompt_length)`,
            to one number per prompt.
        choose: from the scores, the number to keep, and progress in [0, 1] to the indices of the prompts to keep.
        draw: from the candidates and the settings to what is kept, without a forward.
        earlier: from the method's state to the keys of earlier prompts that are the next step's candidates; empty where
            these are new ones. With `draw` alone.
    """

    keep_fraction: Callable[[Any], float]
    score_name: str
    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    choose: Callable[[torch.Tensor, int, float], torch.Tensor] | None = None
    draw: Callable[[PromptCandidates, Any], DrawnPrompts] | None = None
    earlier: Callable[[Any], Sequence[str]] | None = None


Message = Mapping[str, Any]


@dataclass(frozen=True)
class HintedRollouts:
    """Rollouts of prompts with hints, for the prompts of a step that have no correct rollout.

    Attributes:
        columns: from the settings to the columns of the data that hold the hints, each a list of texts per prompt.
        begins: from the number of a step, from 1, and the settings to whether there are any in it.
        prompts: from a prompt's messages, its hints by column and the settings to prompts with hints, the weakest hint
            first; each gets one rollout.
        choose: from the verdicts of these rollouts to the index of the one that takes the place of the group's first
            rollout, together with its prompt; `None` for none.
    """

    columns: Callable[[Any], Sequence[str]]
    begins: Callable[[int, Any], bool]
    prompts: Callable[[Sequence[Message], Mapping[str, Sequence[str]], Any], Sequence[Sequence[Message]]]
    choose: Callable[[Sequence[bool]], int | None]


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
        token_loss: the rule of its policy loss, from a micro-batch and the settings; it then goes together with the
            estimator.
        loss_columns: from a batch, the settings and the advantages to what the loss reads beside verl's fields, by
            name: tensors of shape `(batch,)` or `(batch, response_length)`.
        loss_needs_entropy: whether the loss reads the current policy's entropy.
        whole_groups: whether the loss reads all rollouts of a prompt together; the trainer then keeps them in one
            micro-batch.
        keeps: from a batch and the settings to the rollouts that stay in the loss, `(batch,)` bool, or its tokens,
            `(batch, response_length)` bool; the others leave the mask and the numbers that the loss is divided by.
        prefix_cuts: where the ground truth is scored, for `Need.PREFIX_SCORES`.
        loss_metrics: metrics beside verl's clipped loss, which is then registered under the method's name.
        prompt_choice: which prompts a step trains on, where the method chooses.
        hinted_rollouts: further rollouts for groups without a correct one; in the mode ``ispo_sync`` alone.
        trace_column: from the settings to the column of the data with one trace for each prompt, which takes one of the
            prompt's n places among the rollouts; in the mode ``ispo_sync`` alone.
        state: what it carries from step to step.
        contradictions: from a look-up of verl's settings to the pairs that make no sense under this method.
        reward: what it rewards in place of the verifier's verdict, in words; `None` for a method that trains on the
            verdict or the score. ISPO's signals and the metrics keep the verdict as "correct" either way.
    """

    name: str
    advantage: Callable[[MethodBatch, Any], torch.Tensor]
    needs: frozenset[Need] = field(default_factory=frozenset)
    settings: Callable[[Settings], Any] | None = None
    works_without: Callable[[Any], bool] | None = None
    token_loss: Callable[[LossBatch, Any], TokenLoss] | None = None
    loss_columns: Callable[[MethodBatch, Any, torch.Tensor], Mapping[str, torch.Tensor]] | None = None
    loss_needs_entropy: bool = False
    whole_groups: bool = False
    keeps: Callable[[MethodBatch, Any], torch.Tensor] | None = None
    prefix_cuts: PrefixCuts | None = None
    loss_metrics: Callable[[LossBatch], dict[str, float]] | None = None
    prompt_choice: PromptChoice | None = None
    hinted_rollouts: HintedRollouts | None = None
    trace_column: Callable[[Any], str] | None = None
    state: MethodState | None = None
    contradictions: Callable[[Lookup], Iterator[Contradiction]] | None = None
    reward: str | None = None

    @property
    def brings_a_loss(self) -> bool:
        """Whether a policy loss is registered under the method's name."""
        return self.token_loss is not None or self.loss_metrics is not None

    @property
    def loss_reads_more(self) -> bool:
        """Whether the loss reads anything beyond what verl hands to a policy loss."""
        return self.token_loss is not None and (
            self.settings is not None or self.loss_columns is not None or self.loss_needs_entropy or self.whole_groups
        )

    def read_settings(self, section: Settings) -> Any:
        """The checked settings; an unknown key or a value out of range is a `ValueError`."""
        return None if self.settings is None else self.settings(section)
