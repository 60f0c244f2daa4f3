"""ISPO on verl's V1 trainer: a second forward over the answers, and composite rewards where verl reads rewards."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils.debug import marked_timer
from verl.utils.model import get_generation_config
from verl.workers.utils.padding import response_from_nested

from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.config.ispo_trainer_config import ISPOTrainerConfig
from verl_ispo.config.signal_use import observes_signals, reads_reference, trains_on_signals
from verl_ispo.end_of_sequence import end_of_sequence_ids
from verl_ispo.methods.method import Need
from verl_ispo.runs.rollout_dump.writer import ROLLOUT_FIELDS, StepToDump, describe_run, dump_step
from verl_ispo.signals.checks import NonFiniteSignalError
from verl_ispo.signals.diagnostics import ObservedBatch, advantage_metrics, signal_metrics
from verl_ispo.signals.masked import masked_row_mean
from verl_ispo.signals.right_answer import RightAnswerScores, right_answer_rows, right_answer_scores
from verl_ispo.signals.token_texts import TokenTexts
from verl_ispo.trainer.ablated_forward import answer_log_probs, answer_rows
from verl_ispo.trainer.forward_rows import nested_rows, with_forward_settings
from verl_ispo.trainer.hand_over import handed_over
from verl_ispo.trainer.hazard_watch import HazardWatch
from verl_ispo.trainer.merged_forward import put_ablated_rows, take_ablated_log_probs
from verl_ispo.trainer.method_hooks import MethodHooksMixin
from verl_ispo.trainer.observation import observe
from verl_ispo.trainer.policy_pass import (
    FoundAnswers,
    PolicyPass,
    find_answers,
    prompt_log_probs,
    refuse_several_positions,
)
from verl_ispo.trainer.refusals import (
    UnsupportedSettingError,
    multimodal_refusal,
    refuse_unsupported_settings,
    scores_texts,
)
from verl_ispo.trainer.right_answer_forward import (
    log_probs_of_tails,
    longest_row,
    right_answers_of_all_wrong_groups,
)
from verl_ispo.trainer.step_batch import StepBatch, fetch, objects, on_last_token, step_batch, store

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

# In a checkpoint's folder, next to verl's files.
HAZARD_FILE = "ispo_first_step.json"
GRADING = "pkg://verl_ispo.grading.reward_function"


class ISPOTrainerMixin(MethodHooksMixin):
    """ISPO on verl's V1 trainer.

    With ``algorithm.adv_estimator`` other than ``ispo`` the rewards are unchanged. The signals are still computed and
    logged, so that a GRPO run shows the same metrics, unless ``trainer.v1.ispo.watch_signals=false`` saves their
    cost.
    """

    verl_mode: str

    def __init__(self, config: DictConfig) -> None:
        self.ispo_config = ISPOConfig.from_mapping(config.algorithm.get("ispo"))
        self.ispo_trainer_config = ISPOTrainerConfig.from_mapping(config.trainer.v1.get("ispo"))
        self.keeps_over_starts = self.ispo_trainer_config.keep_over_starts
        refuse_unsupported_settings(config)
        # verl compares trainer_mode with the literals of its own modes, to choose replay buffer and checkpoints.
        with setting_for_now(config.trainer.v1, "trainer_mode", self.verl_mode):
            super().__init__(config)
        # The drift filter and some methods need the reference policy, also where no KL term asks verl for it.
        self._verl_reads_reference = self.use_reference_policy
        self.use_reference_policy = self.use_reference_policy or self._reads_reference
        self.hazard_watch = HazardWatch()
        self._token_texts: TokenTexts | None = None
        if self.dumps_rollouts:
            describe_run(self.ispo_trainer_config, config)
        if self.trains_ispo and config.actor_rollout_ref.rollout.n < 2:
            logger.warning("actor_rollout_ref.rollout.n=1: a group of one has no group-relative advantage")
        if not self.trains_ispo:
            what = "logged, not trained on" if self.observes_signals else "neither computed nor trained on"
            logger.info(f"adv_estimator={config.algorithm.adv_estimator}: ISPO's signals are {what}")
        if self.method is not None and self.method.reward is not None:
            logger.info(
                f'rewarded is {self.method.reward}; "correct" in signals and metrics is the verifier\'s verdict'
            )

    @property
    def trains_ispo(self) -> bool:
        """Whether the composite reward is trained on, or only logged."""
        return trains_on_signals(self.config)

    @property
    def observes_signals(self) -> bool:
        """Whether the signals are computed at all."""
        return observes_signals(self.config)

    @property
    def dumps_rollouts(self) -> bool:
        """Whether rollouts with their signals are dumped."""
        return self.ispo_trainer_config.dump_dir is not None and self.observes_signals

    @property
    def _scores_right_answers(self) -> bool:
        """Whether correct answers are scored behind the traces of groups without a correct rollout."""
        return self.observes_signals and self.ispo_config.all_wrong_groups == "right_answer"

    @property
    def _reads_reference(self) -> bool:
        """Whether ISPO's signals or the method read the reference policy's log-probs."""
        return reads_reference(self.config) or Need.REFERENCE_LOG_PROB in self._needs

    def _build_replay_buffer(self) -> ReplayBuffer:
        replay_buffer = super()._build_replay_buffer()
        poll_interval_s = self.ispo_trainer_config.poll_interval_s
        if poll_interval_s is not None:
            replay_buffer.poll_interval = float(poll_interval_s)
        return replay_buffer

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()
        # verl makes a processor for models whose rows are more than tokens.
        if self.processor is not None and (self.observes_signals or scores_texts(self.method)):
            raise UnsupportedSettingError(multimodal_refusal(self.config.actor_rollout_ref.model.path).sentence)

    def _init_resource_pool_mgr(self) -> None:
        # verl starts the reference policy where actor.use_kl_loss is set; the loss itself must not see that.
        actor = self.config.actor_rollout_ref.actor
        with setting_for_now(actor, "use_kl_loss", actor.use_kl_loss or self._reads_reference):
            super()._init_resource_pool_mgr()

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if not self.observes_signals and not self._needs:
            return super()._compute_old_log_prob(batch, metrics)
        finds_answers = self.observes_signals or bool(self._needs & {Need.ANSWER_TEXT, Need.PREFIX_SCORES})
        wanted = ["input_ids"] if finds_answers else []
        reads_extra_fields = self.observes_signals or bool(self._needs & {Need.CORRECT, Need.EXPERT})
        wanted += ["extra_fields"] if reads_extra_fields else []
        wanted += ["rm_scores"] if self._scores_right_answers else []
        data = fetch(batch, wanted) if wanted else None
        answers = self._find_answers(batch, data["input_ids"]) if finds_answers else None
        ablated_log_prob = given_log_prob = None
        if not self.observes_signals:
            result = super()._compute_old_log_prob(batch, metrics)
        else:
            shares = self._data_parallel_size() if answers.scored.stated.any() else 1
            rows = answer_rows(answers.prompts, answers.responses, answers.scored, shares)
            # The expected cost of these rows is their share of the tokens.
            metrics["ispo/tokens/old_log_prob"] = sum(tag["seq_len"] for tag in batch.tags)
            metrics["ispo/tokens/ablated"] = int(rows["input_ids"].offsets()[-1])
            if self.ispo_trainer_config.ablated_pass == "merged":
                result, tail_log_probs = self._old_and_ablated_log_probs(batch, rows, metrics)
            else:
                result = super()._compute_old_log_prob(batch, metrics)
                tail_log_probs = self._ablated_log_probs(rows)
            ablated_log_prob, given_log_prob = answer_log_probs(tail_log_probs, answers.scored, shares)
        right_answer = self._right_answer_scores(batch, answers, data, metrics) if self._scores_right_answers else None
        self._policy_pass = PolicyPass(
            keys=tuple(batch.keys),
            answers=answers,
            ablated_log_prob=ablated_log_prob,
            right_answer=right_answer,
            given_log_prob=given_log_prob,
            prompt_log_probs=prompt_log_probs(batch) if Need.PROMPT_LOG_PROB in self._needs else None,
            extra_fields=objects(data, "extra_fields") if "extra_fields" in wanted else None,
            prefix_scores=self._prefix_scores(batch, answers, metrics) if Need.PREFIX_SCORES in self._needs else None,
        )
        return result

    def _find_answers(self, batch: KVBatchMeta, input_ids: torch.Tensor) -> FoundAnswers:
        with marked_timer("ispo_answer_span", self.timing_raw):
            refuse_several_positions(batch)
            grades_lists = grades_with_this_package(self.config)
            return find_answers(batch, input_ids, self._token_text(), self.ispo_config, grades_lists)

    def _ablated_log_probs(self, rows: TensorDict) -> torch.Tensor:
        """A separate forward for the ablated rows."""
        with marked_timer("ispo_ablated_log_prob", self.timing_raw):
            rows = with_forward_settings(rows, self.config.actor_rollout_ref.rollout.temperature)
            output = self.actor_rollout_wg.compute_log_prob(rows)
            return response_from_nested(output["log_probs"], rows["response_mask"])

    def _right_answer_scores(
        self, batch: KVBatchMeta, answers: FoundAnswers, data: TensorDict, metrics: dict
    ) -> RightAnswerScores:
        """A further forward for the groups without a correct rollout; verl has graded the rollouts before this pass."""
        with marked_timer("ispo_right_answer", self.timing_raw):
            graded = {"rm_scores": data["rm_scores"], "extra_fields": objects(data, "extra_fields")}
            rows = right_answer_rows(
                answers.prompts,
                answers.responses,
                answers.spans,
                right_answers_of_all_wrong_groups(batch, step_batch(batch, graded)),
                encode=lambda text: self.tokenizer.encode(text, add_special_tokens=False),
                decode=lambda ids: self.tokenizer.decode(ids, clean_up_tokenization_spaces=False),
                max_length=longest_row(self.config),
                trace_end=answers.scored.trace_end,
            )
            metrics["ispo/tokens/right_answer"] = sum(map(len, [*rows.heads, *rows.tails]))
            log_probs = log_probs_of_tails(self.actor_rollout_wg, self.config, rows.heads, rows.tails)
            return right_answer_scores(log_probs, rows)

    def _old_and_ablated_log_probs(
        self, batch: KVBatchMeta, rows: TensorDict, metrics: dict
    ) -> tuple[KVBatchMeta, torch.Tensor]:
        """verl's old-log-prob pass over rollouts and ablated rows together."""
        merged, ablated_keys = put_ablated_rows(batch, rows, self._data_parallel_size())
        result = super()._compute_old_log_prob(merged, metrics)
        tail_log_probs = take_ablated_log_probs(batch, ablated_keys)
        rollouts = KVBatchMeta(
            keys=batch.keys, tags=batch.tags, partition_id=batch.partition_id, extra_info=result.extra_info
        )
        return rollouts, tail_log_probs

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self._reference_is_the_policy():
            return batch
        return super()._compute_ref_log_prob(batch, metrics)

    def _reference_is_the_policy(self) -> bool:
        """Whether this is the first update of a run, before which every drift is 0, and only the drift filter asks.

        verl loads policy and reference from one path, so before the first update they are the same model. The pass is
        kept where that may not be so: a run that resumes begins at a later step, or with `resume_path` at any; with
        LoRA the policy may begin with an adapter that is not empty; quantization changes the policy alone.
        """
        is_first = self.global_steps == 1 and self.local_trigger_step == 0
        if not is_first or self._verl_reads_reference or self.ref_in_actor or Need.REFERENCE_LOG_PROB in self._needs:
            return False
        quantized = (f"actor_rollout_ref.actor.{engine}.qat.enable" for engine in ("fsdp_config", "megatron"))
        return self.config.trainer.resume_mode != "resume_path" and not any(
            OmegaConf.select(self.config, key) for key in quantized
        )

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if not self.observes_signals and not self._needs:
            return super()._compute_advantage(batch, metrics)
        if self._policy_pass is None or self._policy_pass.keys != tuple(batch.keys):
            raise RuntimeError("the old-log-prob pass ran on another batch than the advantage: verl's step has changed")
        step = self._step_batch(batch)
        observed = self._observe(step, metrics) if self.observes_signals else None
        known = self._known(step, observed)
        with handed_over(known):
            if self.trains_ispo:
                result = self._advantage_of_composite(batch, metrics, step, observed)
            else:
                result = super()._compute_advantage(batch, metrics)
        method_batch = self._method_batch(step, known)
        self._hand_to_the_loss(result, method_batch)
        self._update_states(method_batch, observed)
        if observed is not None:
            self._watch_advantage(batch, metrics, step, observed)
        self._policy_pass = None
        return result

    def _advantage_of_composite(
        self, batch: KVBatchMeta, metrics: dict, step: StepBatch, observed: ObservedBatch
    ) -> KVBatchMeta:
        """verl's advantage with the composite where verl reads rewards."""
        rewards = on_last_token(step.on_verls_rows(observed.training_reward), step.raw["response_mask"])
        store(batch, rm_scores=rewards)
        # verl logs rm_scores as the score and token_level_rewards as the reward; both stay true. With a KL penalty in
        # the reward verl stores the latter itself.
        afterwards = {"rm_scores": step.raw["rm_scores"]}
        if not self.config.algorithm.use_kl_in_reward:
            afterwards["token_level_rewards"] = rewards
        try:
            return super()._compute_advantage(batch, metrics)
        finally:
            store(batch, **afterwards)

    def _step_batch(self, batch: KVBatchMeta) -> StepBatch:
        """The rollouts, with what the queue has of them and what was kept of the pass before."""
        kept = self._policy_pass
        data = fetch(batch, ["rm_scores", "response_mask", "old_log_probs", "entropy", "ref_log_prob"])
        raw = {name: data[name] for name in data.keys()}  # noqa: SIM118 - a TensorDict iterates over rows
        raw["extra_fields"] = kept.extra_fields
        if kept.answers is not None:
            raw["responses"] = kept.answers.all_responses
        if self._reference_is_the_policy() or not self.use_reference_policy:
            raw["ref_log_prob"] = raw["old_log_probs"]
        if Need.RESPONSE_IDS in self._needs and "responses" not in raw:
            raw["responses"] = fetch(batch, ["responses"])["responses"]
        if Need.PROMPT_KEY in self._needs:
            raw["prompts"] = fetch(batch, ["prompts"])["prompts"]
        if self.dumps_rollouts:
            raw["prompts"] = nested_rows(
                torch.cat(kept.answers.prompts), torch.tensor([len(prompt) for prompt in kept.answers.prompts])
            )
            raw["reward_model"] = objects(fetch(batch, ["reward_model"]), "reward_model")
        return step_batch(batch, raw)

    def _observe(self, step: StepBatch, metrics: dict) -> ObservedBatch:
        """The step's signals and their metrics."""
        with marked_timer("ispo_reward", self.timing_raw):
            try:
                observed = observe(
                    step,
                    self._policy_pass,
                    self.ispo_config,
                    self.method_states["ispo"],
                    self._end_of_sequence,
                    self.trains_ispo,
                )
            except NonFiniteSignalError as error:
                raise RuntimeError(f"step {self.global_steps}, rollout {step.keys[error.row]}: {error}") from error
            metrics.update(signal_metrics(observed, self.ispo_config, self.use_reference_policy))
        return observed

    @cached_property
    def _end_of_sequence(self) -> list[int]:
        return end_of_sequence_ids(self.tokenizer.eos_token_id, get_generation_config(self.tokenizer.name_or_path))

    def _watch_advantage(self, batch: KVBatchMeta, metrics: dict, step: StepBatch, observed: ObservedBatch) -> None:
        """Metrics of the advantages, warnings of lost reasoning, and the rollout dump."""
        # verl's rollout correction may have stored another mask
        data = fetch(batch, ["advantages", "response_mask"])
        advantage = masked_mean(data["advantages"], data["response_mask"])[step.rows]
        metrics.update(advantage_metrics(advantage, observed))
        for warning in self.hazard_watch.observe(metrics):
            logger.warning(f"step {self.global_steps}: {warning}")
        if self.dumps_rollouts:
            with marked_timer("ispo_dump", self.timing_raw):
                self._dump_rollouts(step, observed, advantage)

    def _dump_rollouts(self, step: StepBatch, observed: ObservedBatch, advantage: torch.Tensor) -> None:
        """Write the rollout dump of this update; a full disk loses the dump, not the training."""
        update = StepToDump(
            step=self.global_steps,
            local_update=self.local_trigger_step,
            estimator=str(self.config.algorithm.adv_estimator),
            keys=step.keys,
            observed=observed,
            advantage=advantage,
            columns={
                **{name: step.tokens(name) for name in ROLLOUT_FIELDS},
                "reward_model": step.column("reward_model") if step.raw["reward_model"] else [],
            },
        )
        try:
            dump_step(self.ispo_trainer_config, self.ispo_config, self.tokenizer, update)
        except OSError as error:
            folder = self.ispo_trainer_config.dump_dir
            logger.warning(f"step {self.global_steps}: no rollout dump in {folder}: {error}")

    def _token_text(self) -> TokenTexts:
        if self._token_texts is None:
            self._token_texts = TokenTexts.of_tokenizer(self.tokenizer)
        return self._token_texts

    def _save_checkpoint(self) -> None:
        # Written first, since verl ends by naming this step the latest complete one.
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / HAZARD_FILE).write_text(json.dumps(self.hazard_watch.first))
        self._save_states(folder)
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if not self.global_steps:
            return
        trainer = self.config.trainer
        folder = Path(trainer.default_local_dir) / f"global_step_{self.global_steps}"
        saved = Path(trainer.resume_from_path if trainer.resume_mode == "resume_path" else folder)
        if (saved / HAZARD_FILE).exists():
            self.hazard_watch = HazardWatch(json.loads((saved / HAZARD_FILE).read_text()))
        self._load_states(saved)


def grades_with_this_package(config: DictConfig) -> bool:
    """Whether the reward function is `verl_ispo.grading`'s."""
    return OmegaConf.select(config, "reward.custom_reward_function.path") == GRADING


@contextmanager
def setting_for_now(section: DictConfig, key: str, value: Any) -> Iterator[None]:
    """Set one key of a config inside the block."""
    before = section[key]
    section[key] = value
    try:
        yield
    finally:
        section[key] = before


def masked_mean(values: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """Mean of each nested row over the tokens that the policy wrote, `(rows,)` float32; 0 for a row without one."""
    total, written = values.to_padded_tensor(0), response_mask.to_padded_tensor(0).bool()
    return masked_row_mean(total, written)
