"""Lets a method choose the prompts that a step trains on: draw more, score them, keep some (`PromptChoice`).

Candidates that are scored are so by the policy that is about to write the rollouts, in one forward over the prompts
alone. That forward runs while the rollout engine holds its weights and cache, so on a GPU it needs memory beside them.
A method that draws by its own state needs none; it may also take prompts of an earlier step anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import uuid
from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder
from verl.workers.utils.padding import response_from_nested

from verl_ispo.methods.method import PromptCandidates
from verl_ispo.methods.registry import method_of
from verl_ispo.trainer.forward_rows import forward_rows, with_forward_settings
from verl_ispo.trainer.refusals import UnsupportedSettingError
from verl_ispo.trainer.verl_workarounds.trainer_workarounds import TrainerWorkarounds

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))


def candidate_count(kept: int, keep_fraction: float, drawn_at_once: int) -> int:
    """B of K / B = keep_fraction, rounded up to whole draws of the data loader."""
    return math.ceil(kept / keep_fraction / drawn_at_once) * drawn_at_once


def prompt_key(token_ids: Sequence[int]) -> str:
    """Text that stands for a prompt, the same at every step and after a restart: a hash of its token ids."""
    return hashlib.blake2b(str([int(token) for token in token_ids]).encode(), digest_size=8).hexdigest()


def rows_with_keys(keys: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Index of the first row with each wanted key; `None` where one has no row."""
    row_of: dict[str, int] = {}
    for row, key in enumerate(keys):
        row_of.setdefault(key, row)
    return [row_of[key] for key in wanted] if row_of.keys() >= set(wanted) else None


def prompt_rows(prompts: Sequence[Sequence[int]], row_multiple: int) -> TensorDict:
    """One row per prompt for verl's ``compute_log_prob``: its first token as "prompt", the others as "response".

    A prompt of one token gets that token as a stand-in, whose log-prob nobody reads. The last row is repeated until the
    number of rows divides, as workers and micro-batches require.
    """
    padded = [*prompts, *[prompts[-1]] * (-len(prompts) % row_multiple)]
    heads = [torch.tensor(prompt[:1]) for prompt in padded]
    tails = [torch.tensor(list(prompt[1:]) or list(prompt)) for prompt in padded]
    return forward_rows(heads, tails)


class PromptSelectionMixin(TrainerWorkarounds):
    """verl's V1 trainer in which the method of ``algorithm.adv_estimator`` may choose the prompts."""

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        self.method = method_of(config.algorithm.adv_estimator)
        self.prompt_choice = None if self.method is None else self.method.prompt_choice
        if self.prompt_choice is not None:
            self._choice_settings = self._method_settings
            self._keep_fraction = self.prompt_choice.keep_fraction(self._choice_settings)
        self._selection_metrics: dict[str, float] = {}
        # the keys of prompts by a hash of their messages, and the prompts that were drawn last with theirs
        self._prompt_keys: dict[bytes, str] = {}
        self._last_drawn: tuple[TensorDict, list[str]] | None = None

    @property
    def _method_settings(self) -> Any:
        """The checked settings of the method that is trained."""
        return self.method.read_settings(self.config.algorithm.get(self.method.name))

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()
        if self.prompt_choice is not None or (self.method is not None and self.method.hinted_rollouts is not None):
            # Built as in verl's agent loops, so that the scored prompt is the one that is answered.
            model = omega_conf_to_dataclass(self.config.actor_rollout_ref.model)
            self._prompt_builder = create_continuous_token_builder(
                self.tokenizer,
                hf_model_type=getattr(model.hf_config, "model_type", None),
                chat_template_kwargs=self.config.data.get("apply_chat_template_kwargs", {}),
            )

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        if self.prompt_choice is not None and len(self.train_dataset) < self._candidates(self._kept_prompts()):
            keep_key = f"algorithm.{self.method.name}.keep_fraction"
            raise UnsupportedSettingError(
                f"adv_estimator={self.method.name} draws {self._candidates(self._kept_prompts())} candidates per step "
                f"(data.train_batch_size / {keep_key}), and data.train_files has {len(self.train_dataset)} prompts. "
                f"Lower data.train_batch_size, raise {keep_key}, or give more data."
            )

    def prepare_step(self) -> dict:
        return {**super().prepare_step(), **self._selection_metrics}

    def _kept_prompts(self) -> int:
        return int(self.config.data.train_batch_size)

    def _candidates(self, kept: int) -> int:
        drawn_at_once = self.config.data.get("gen_batch_size", None) or self.config.data.train_batch_size
        return candidate_count(kept, self._keep_fraction, int(drawn_at_once))

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        if self.prompt_choice is None:
            return super()._next_train_batch(num_prompts)
        kept = num_prompts or self._kept_prompts()
        if self.prompt_choice.draw is not None:
            earlier = self._earlier_prompts()
            return self._draw(kept, super()._next_train_batch(self._candidates(kept)) if earlier is None else earlier)
        candidates = super()._next_train_batch(self._candidates(kept))
        prompts = [self._prompt_builder.build_initial_tokens(list(messages)) for messages in candidates["raw_prompt"]]
        log_probs = self._prompt_log_probs_of(prompts)
        mask = [torch.full((len(row),), len(prompt) > 1) for row, prompt in zip(log_probs, prompts, strict=True)]
        score = self.prompt_choice.score(
            torch.nn.utils.rnn.pad_sequence(log_probs, batch_first=True),
            torch.nn.utils.rnn.pad_sequence(mask, batch_first=True),
        )
        chosen = self.prompt_choice.choose(score, kept, self.global_steps / self.total_training_steps)
        name = f"{self.method.name}/{self.prompt_choice.score_name}"
        self._selection_metrics = {
            f"{name}/candidates": float(score.mean()),
            f"{name}/kept": float(score[chosen].mean()),
        }
        # In the data loader's order, so that the choice is all that the method changes.
        return tu.index_select_tensor_dict(candidates, sorted(chosen.tolist()))

    def _draw(self, kept: int, candidates: TensorDict) -> TensorDict:
        """The prompts that the method draws by its state."""
        keys = [self._prompt_key(messages) for messages in candidates["raw_prompt"]]
        state = self.method_states[self.method.name]
        drawn = self.prompt_choice.draw(
            PromptCandidates(keys, kept, int(self.global_steps), state), self._choice_settings
        )
        name = f"{self.method.name}/{self.prompt_choice.score_name}"
        self._selection_metrics = {}
        if drawn.score is not None:
            self._selection_metrics = {
                f"{name}/candidates": float(drawn.score.mean()),
                f"{name}/kept": float(drawn.score[drawn.rows].mean()),
            }
        rows = sorted(drawn.rows.tolist())
        batch = tu.index_select_tensor_dict(candidates, rows)
        self._last_drawn = (batch, [keys[row] for row in rows])
        if len(set(rows)) < len(rows):
            # verl keeps rollouts apart by this name of their prompt
            tu.assign_non_tensor(batch, uid=[str(uuid.uuid4()) for _ in rows])
        return batch

    def _prompt_key(self, messages: Sequence[Any]) -> str:
        """As `MethodBatch.prompt_keys` has it once the prompt has been answered."""
        known_by = hashlib.blake2b(json.dumps(list(messages), sort_keys=True, default=str).encode()).digest()
        if known_by not in self._prompt_keys:
            tokens = self._prompt_builder.build_initial_tokens(list(messages))
            # verl's agent loops keep the end of a prompt that is too long
            self._prompt_keys[known_by] = prompt_key(
                tokens[-int(self.config.actor_rollout_ref.rollout.prompt_length) :]
            )
        return self._prompt_keys[known_by]

    def _earlier_prompts(self) -> TensorDict | None:
        """The earlier prompts that the method wants as candidates, under new names; `None` where it wants none."""
        choice, state = self.prompt_choice, self.method_states[self.method.name]
        wanted = [] if choice.earlier is None else list(choice.earlier(state))
        if not wanted:
            return None
        batch, keys = self._last_drawn or (None, [])
        rows = rows_with_keys(keys, wanted)
        if rows is None:
            batch, rows = self._prompts_of_the_data(wanted), list(range(len(wanted)))
        batch = tu.index_select_tensor_dict(batch, rows)
        tu.assign_non_tensor(batch, uid=[str(uuid.uuid4()) for _ in rows])
        tu.assign_non_tensor_data(batch, "global_steps", self.global_steps)
        return batch

    def _prompts_of_the_data(self, wanted: Sequence[str]) -> TensorDict:
        """After a restart: the prompts with these keys, from the data.

        Raises:
            UnsupportedSettingError: the data or the chat template have changed.
        """
        logger.info(f"looking through data.train_files for the {len(wanted)} prompts of the step before the restart")
        found: dict[str, dict[str, Any]] = {}
        for row in range(len(self.train_dataset)):
            item = self.train_dataset[row]
            key = self._prompt_key(item["raw_prompt"])
            if key in wanted:
                found.setdefault(key, item)
            if len(found) == len(wanted):
                return tu.get_tensordict(self.train_dataloader.collate_fn([found[key] for key in wanted]))
        raise UnsupportedSettingError(
            f"adv_estimator={self.method.name} repeats {len(wanted)} prompts of the step before the restart, and "
            f"data.train_files has {len(found)} of them. Resume with the data and the chat template of the checkpoint, "
            "or from an earlier one."
        )

    def _prompt_log_probs_of(self, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Log-probs of each prompt's tokens but the first, under the current policy."""
        dispatch = self.actor_rollout_wg._query_dispatch_info("actor")
        rollout = self.config.actor_rollout_ref.rollout
        micro_batch = 1 if rollout.log_prob_use_dynamic_bsz else rollout.log_prob_micro_batch_size_per_gpu
        rows = with_forward_settings(prompt_rows(prompts, (max(dispatch) + 1) * micro_batch), rollout.temperature)
        output = self.actor_rollout_wg.compute_log_prob(rows)
        log_probs = response_from_nested(output["log_probs"], rows["response_mask"]).unbind()
        return [row.float() for row in log_probs[: len(prompts)]]
