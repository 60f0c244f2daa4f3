"""What a method declares, at the hooks of verl's trainer: fields of the batch, its loss, whole groups, states."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.debug import marked_timer
from verl.utils.seqlen_balancing import get_group_balanced_partitions
from verl.workers.utils.padding import response_to_nested

from verl_ispo.config.ispo_trainer_config import ISPOTrainerConfig
from verl_ispo.config.signal_use import observes_signals
from verl_ispo.methods.method import GROUP_COLUMN, MethodBatch, Need, PrefixScores
from verl_ispo.methods.registry import method_of, methods
from verl_ispo.signals.diagnostics import ObservedBatch
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.trainer.expert_traces import ExpertTracesMixin
from verl_ispo.trainer.forward_rows import nested_rows
from verl_ispo.trainer.hand_over import KnownOfBatch
from verl_ispo.trainer.method_loss import COLUMN_PREFIX, method_loss
from verl_ispo.trainer.policy_pass import FoundAnswers, PolicyPass
from verl_ispo.trainer.prefix_forward import scores_behind_prefixes
from verl_ispo.trainer.prompt_selection import prompt_key
from verl_ispo.trainer.refusals import UnsupportedSettingError
from verl_ispo.trainer.repeatable_order import repeatable_order
from verl_ispo.trainer.step_batch import StepBatch, fetch, prompt_of, store


class MethodHooksMixin(ExpertTracesMixin):
    """verl's V1 trainer, in which the method of ``algorithm.adv_estimator`` gets what it declares."""

    ispo_trainer_config: ISPOTrainerConfig
    # of the old-log-prob pass, until the advantage is computed
    _policy_pass: PolicyPass | None = None

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        # for the method that is trained, and for ISPO where its signals are computed
        self.method_states = {
            name: method.state.kind()
            for name, method in methods().items()
            if method.state is not None and (method is self.method or (name == "ispo" and observes_signals(config)))
        }

    @property
    def _needs(self) -> frozenset[Need]:
        """What the method that is trained needs of a batch."""
        return frozenset() if self.method is None else self.method.needs

    def _setup(self) -> None:
        super()._setup()
        if self.method is not None and self.method.loss_reads_more:
            actor_config = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
            self.actor_rollout_wg.set_loss_fn(partial(method_loss, actor_config, self._method_settings))

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        if self.ispo_trainer_config.repeatable_order:
            batch.reorder(repeatable_order(batch))
        batch = super()._balance_batch(batch, metrics, *args, **kwargs)
        if self.method is not None and self.method.whole_groups:
            batch.reorder(whole_groups_order(batch, self._rollouts_per_prompt, self._data_parallel_size()))
        return batch

    @property
    def _rollouts_per_prompt(self) -> int:
        return int(self.config.actor_rollout_ref.rollout.n)

    def _data_parallel_size(self) -> int:
        # verl asks the workers for this when it balances the batch, and keeps the answer.
        return max(self.actor_rollout_wg._dispatch_info["actor"]) + 1

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.method is not None and self.method.whole_groups:
            batch.extra_info["force_group_size"] = self._rollouts_per_prompt
        return super()._update_actor(batch, metrics)

    def _prefix_scores(self, batch: KVBatchMeta, answers: FoundAnswers, metrics: dict) -> PrefixScores:
        """A further forward, over the ground truth behind parts of the responses."""
        with marked_timer("prefix_scores", self.timing_raw):
            scores, found = scores_behind_prefixes(
                batch,
                self.actor_rollout_wg,
                self.config,
                self.method,
                answers.prompts,
                answers.responses,
                answers.spans,
                self._token_text(),
                encode=lambda text: self.tokenizer.encode(text, add_special_tokens=False),
            )
        metrics.update(found)
        return scores

    def _known(self, step: StepBatch, observed: ObservedBatch | None) -> KnownOfBatch:
        """What the method needs of the batch beyond verl's rewards, on verl's rows."""
        kept = self._policy_pass

        def where(need: Need, value: Callable[[], Any]) -> Any:
            return value() if need in self._needs else None

        def padded(name: str) -> torch.Tensor:
            return step.on_verls_rows(step.padded(name).float())

        prompts = where(Need.PROMPT_LOG_PROB, lambda: kept.prompt_log_probs)
        return KnownOfBatch(
            correct=where(Need.CORRECT, lambda: step.on_verls_rows(step.correct)),
            log_prob=where(Need.LOG_PROB, lambda: padded("old_log_probs")),
            entropy=where(Need.ENTROPY, lambda: padded("entropy")),
            prompt_log_prob=None if prompts is None else _padded_rows(prompts),
            prompt_mask=None if prompts is None else _padded_rows([torch.ones_like(row).bool() for row in prompts]),
            answer_texts=where(Need.ANSWER_TEXT, lambda: self._answer_texts(step)),
            ispo_signals=where(Need.ISPO_SIGNALS, lambda: observed),
            ref_log_prob=where(Need.REFERENCE_LOG_PROB, lambda: padded("ref_log_prob")),
            response_ids=where(Need.RESPONSE_IDS, lambda: step.on_verls_rows(step.padded("responses")).long()),
            prompt_keys=where(Need.PROMPT_KEY, lambda: prompt_keys(step)),
            expert=where(Need.EXPERT, lambda: step.on_verls_rows(step.expert)),
            prefix_scores=where(Need.PREFIX_SCORES, lambda: kept.prefix_scores),
            step=int(self.global_steps),
            total_steps=int(self.total_training_steps),
            state=None if self.method is None else self.method_states.get(self.method.name),
        )

    def _answer_texts(self, step: StepBatch) -> tuple[str | None, ...]:
        """Text of each rollout's answer, on verl's rows; `None` for rows without one."""
        texts: list[str | None] = [None] * step.verl_rows
        answers = self._policy_pass.answers
        spans, responses = answers.spans, answers.responses
        for row in step.rows.tolist():
            start, end = int(spans.start[row]), int(spans.end[row])
            if end > start:
                texts[row] = self.tokenizer.decode(responses[row][start:end].tolist(), skip_special_tokens=True)
        return tuple(texts)

    def _method_batch(self, step: StepBatch, known: KnownOfBatch) -> MethodBatch:
        """The step for what follows its advantage; the rewards are the scorer's."""
        return MethodBatch(
            rewards=step.on_verls_rows(step.padded("rm_scores")),
            response_mask=step.on_verls_rows(step.response_mask),
            groups=RolloutGroups.from_labels([prompt_of(key) for key in self._policy_pass.keys]),
            normalize_by_std=bool(self.config.algorithm.get("norm_adv_by_std_in_grpo", True)),
            **{part.name: getattr(known, part.name) for part in fields(KnownOfBatch)},
        )

    def _hand_to_the_loss(self, batch: KVBatchMeta, method_batch: MethodBatch) -> None:
        """Store what the method's loss reads, and take what it leaves out of the mask; ``batch`` then names it too."""
        method = self.method
        if method is None or not (method.loss_columns or method.whole_groups or method.keeps):
            return
        data = fetch(batch, ["advantages", "response_mask", "loss_mask"])
        columns: dict[str, torch.Tensor] = {}
        if method.loss_columns is not None:
            advantages = data["advantages"].to_padded_tensor(0)
            columns |= method.loss_columns(method_batch, self._method_settings, advantages)
        if method.whole_groups:
            columns[GROUP_COLUMN] = method_batch.groups.ids
        stored = {
            f"{COLUMN_PREFIX}{name}": response_to_nested(
                _on_tokens(values.float(), method_batch.response_mask), data["response_mask"]
            )
            for name, values in columns.items()
        }
        if method.keeps is not None:
            kept = method.keeps(method_batch, self._method_settings)
            kept = response_to_nested(_on_tokens(kept, method_batch.response_mask), data["response_mask"])
            for name in ("response_mask", "loss_mask"):
                # by values, since nested tensors of equal lengths from two places do not multiply
                mask = data[name].values()
                stored[name] = nested_rows(mask * kept.values().to(mask.dtype), data[name].offsets().diff())
        store(batch, **stored)
        if batch.fields is not None:  # what the workers fetch
            batch.fields = sorted({*batch.fields, *stored})

    def _update_states(self, method_batch: MethodBatch, observed: ObservedBatch | None) -> None:
        """Carry the methods' states over to the next step."""
        for name, before in self.method_states.items():
            method = methods()[name]
            settings = method.read_settings(self.config.algorithm.get(name))
            batch = method_batch if name != "ispo" else replace(method_batch, ispo_signals=observed)
            self.method_states[name] = method.state.update(before, batch, settings)

    def _save_states(self, folder: Path) -> None:
        for name, state in self.method_states.items():
            (folder / _state_file(name)).write_text(json.dumps(asdict(state)))

    def _load_states(self, folder: Path) -> None:
        for name in self.method_states:
            if (folder / _state_file(name)).exists():
                values: Mapping[str, Any] = json.loads((folder / _state_file(name)).read_text())
                self.method_states[name] = methods()[name].state.kind(**values)


def whole_groups_order(batch: KVBatchMeta, rollouts_per_prompt: int, data_parallel_size: int) -> list[int]:
    """Row indices that put each prompt's rollouts side by side, as many prompts on each worker, balanced by tokens.

    Raises:
        UnsupportedSettingError: a prompt has not all its rollouts in the batch.
    """
    # verl's fill rows have keys of their own, so that they count as prompts with too few rollouts
    rows_of: dict[str, list[int]] = {}
    for row, key in enumerate(batch.keys):
        rows_of.setdefault(prompt_of(key), []).append(row)
    incomplete = {prompt: len(rows) for prompt, rows in rows_of.items() if len(rows) != rollouts_per_prompt}
    if incomplete or len(rows_of) % data_parallel_size:
        raise UnsupportedSettingError(
            f"this loss compares all {rollouts_per_prompt} rollouts of a prompt (actor_rollout_ref.rollout.n), and of "
            f"the batch's {len(rows_of)} prompts {len(incomplete)} have another number, on {data_parallel_size} "
            "workers. Let data.train_batch_size and actor_rollout_ref.actor.ppo_mini_batch_size be multiples of the "
            "number of workers."
        )
    rows = [row for of_prompt in rows_of.values() for row in of_prompt]
    lengths = [batch.tags[row]["seq_len"] for row in rows]
    parts = get_group_balanced_partitions(lengths, [prompt_of(batch.keys[row]) for row in rows], data_parallel_size)
    return [rows[index] for part in parts for index in part]


def prompt_keys(step: StepBatch) -> tuple[str, ...]:
    """A hash of each rollout's prompt, on verl's rows; `""` for padding rows."""
    keys = [""] * step.verl_rows
    for row, prompt in zip(step.rows.tolist(), step.tokens("prompts"), strict=True):
        keys[row] = prompt_key(prompt.tolist())
    return tuple(keys)


def _on_tokens(values: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """Values per rollout on all its tokens; values per token as they are."""
    return values.unsqueeze(-1).expand(response_mask.shape) if values.dim() == 1 else values


def _state_file(method: str) -> str:
    return f"{method}_{method_of(method).state.name}.json"


def _padded_rows(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
