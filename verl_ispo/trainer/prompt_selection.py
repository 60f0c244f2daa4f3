"""Lets a method choose the prompts that a step trains on: draw more, score them, keep some (`PromptChoice`).

The candidates are scored by the policy that is about to write the rollouts, in one forward over the prompts alone. That
forward runs while the rollout engine holds its weights and cache, so on a GPU it needs memory beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from omegaconf import DictConfig
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder
from verl.workers.utils.padding import response_from_nested

from verl_ispo.methods.registry import method_of
from verl_ispo.trainer.forward_rows import forward_rows, with_forward_settings
from verl_ispo.trainer.refusals import UnsupportedSettingError
from verl_ispo.trainer.verl_workarounds.trainer_workarounds import TrainerWorkarounds


def candidate_count(kept: int, keep_fraction: float, drawn_at_once: int) -> int:
    """B of K / B = keep_fraction, rounded up to whole draws of the data loader."""
    return math.ceil(kept / keep_fraction / drawn_at_once) * drawn_at_once


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
            settings = self.method.read_settings(config.algorithm.get(self.method.name))
            self._keep_fraction = self.prompt_choice.keep_fraction(settings)
        self._selection_metrics: dict[str, float] = {}

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()
        if self.prompt_choice is not None:
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

    def _prompt_log_probs_of(self, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Log-probs of each prompt's tokens but the first, under the current policy."""
        dispatch = self.actor_rollout_wg._query_dispatch_info("actor")
        rollout = self.config.actor_rollout_ref.rollout
        micro_batch = 1 if rollout.log_prob_use_dynamic_bsz else rollout.log_prob_micro_batch_size_per_gpu
        rows = with_forward_settings(prompt_rows(prompts, (max(dispatch) + 1) * micro_batch), rollout.temperature)
        output = self.actor_rollout_wg.compute_log_prob(rows)
        log_probs = response_from_nested(output["log_probs"], rows["response_mask"]).unbind()
        return [row.float() for row in log_probs[: len(prompts)]]
