"""verl's three V1 trainers with ISPO's signals: ``ispo_sync``, ``ispo_colocate_async``, ``ispo_separate_async``.

One mixin does the work. It stands *behind* verl's mode class among the bases, so that by method order its hooks run
inside verl's: `PPOTrainerSeparateAsync` swaps the old weights in around ``_compute_old_log_prob``, and the ablated
forward has to run on those.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig
from ray.actor import ActorHandle
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.debug import marked_timer
from verl.workers.utils.padding import response_from_nested

from verl_ispo.config.rollout_dump_config import split_ispo_settings
from verl_ispo.config.signal_use import ablated_pass, observes_signals, trains_on_signals
from verl_ispo.runs.rollout_dump.writer import StepToDump, describe_run, dump_step
from verl_ispo.signals.answer_span import AnswerSpans, TokenTexts, find_answer_spans, gather_answer
from verl_ispo.signals.checks import NonFiniteSignalError
from verl_ispo.signals.composite import compute_ispo_reward
from verl_ispo.signals.diagnostics import ObservedBatch, advantage_metrics, signal_metrics
from verl_ispo.signals.groups import RolloutGroups, guarded_composite
from verl_ispo.signals.running_ifd import RunningIFD
from verl_ispo.trainer.ablated_forward import ablated_answer_log_probs, ablated_rows
from verl_ispo.trainer.advantage import composite_rewards
from verl_ispo.trainer.batch_signals import BatchSignals, batch_signals
from verl_ispo.trainer.checkpoint_folder import mend_tracker, remove_older
from verl_ispo.trainer.forward_rows import with_forward_settings
from verl_ispo.trainer.hazard_watch import HazardWatch
from verl_ispo.trainer.merged_forward import put_ablated_rows, take_ablated_log_probs
from verl_ispo.trainer.outcome import correctness
from verl_ispo.trainer.prompt_selection import PromptSelectionMixin
from verl_ispo.trainer.refusals import (
    SIGNAL_ESTIMATORS,
    UnsupportedSettingError,
    multimodal_refusal,
    refuse_unsupported_settings,
)
from verl_ispo.trainer.worker_watch import WorkerWatch, watchful

logger = logging.getLogger(__name__)
logger.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))

# In a checkpoint's folder, beside what verl writes there.
HAZARD_FILE = "ispo_first_step.json"
RUNNING_IFD_FILE = "ispo_running_ifd.json"


@dataclass(frozen=True)
class AblatedAnswers:
    """What the ablated forward of one batch gave, kept until the advantage is computed.

    Attributes:
        keys: the batch's keys, in the order of the rows.
        spans: answers and lead-ins.
        log_prob: `(batch, answer_length)` float32, log p(A | Q) token by token.
    """

    keys: tuple[str, ...]
    spans: AnswerSpans
    log_prob: torch.Tensor


class ISPOTrainerMixin(PromptSelectionMixin):
    """ISPO on verl's V1 trainer: a second forward over the answers, and composite rewards where verl reads rewards.

    With ``algorithm.adv_estimator`` other than ``ispo`` the rewards are left alone. The signals are computed and logged
    all the same, so that a GRPO run shows the same metrics, unless ``trainer.v1.ispo.watch_signals=false`` saves their
    cost.
    """

    verl_mode: str

    def __init__(self, config: DictConfig) -> None:
        self.ispo_config, self.dump_config = split_ispo_settings(config.algorithm.get("ispo"))
        refuse_unsupported_settings(config)
        self._ablated_pass = ablated_pass(config)
        # verl compares trainer_mode with the literals of its own modes, to choose replay buffer and checkpoints.
        with _setting(config.trainer.v1, "trainer_mode", self.verl_mode):
            super().__init__(config)
        # The drift filter needs the reference policy, also where no KL term asks verl for it.
        self.use_reference_policy = self.use_reference_policy or self.observes_signals
        self.hazard_watch = HazardWatch()
        self.running_ifd = RunningIFD()
        self._token_texts: TokenTexts | None = None
        self._ablated: AblatedAnswers | None = None
        self._prompt_log_probs: list[torch.Tensor] = []
        self._trained: tuple[KVBatchMeta, dict] | None = None
        if self.dumps_rollouts:
            describe_run(self.dump_config, config)
        if self.trains_ispo and config.actor_rollout_ref.rollout.n < 2:
            logger.warning("actor_rollout_ref.rollout.n=1: a group of one has no group-relative advantage")
        if not self.trains_ispo:
            what = "logged, not trained on" if self.observes_signals else "neither computed nor trained on"
            logger.info(f"adv_estimator={config.algorithm.adv_estimator}: ISPO's signals are {what}")

    @property
    def trains_ispo(self) -> bool:
        """Whether the composite reward is trained on, or only logged."""
        return trains_on_signals(self.config)

    @property
    def observes_signals(self) -> bool:
        """Whether the signals are computed at all."""
        return observes_signals(self.config)

    @property
    def _hands_over_signals(self) -> bool:
        """Whether the estimator asks for `BatchSignals`."""
        return self.config.algorithm.adv_estimator in SIGNAL_ESTIMATORS

    @property
    def dumps_rollouts(self) -> bool:
        """Whether rollouts with their signals are written down."""
        return self.dump_config.dump_dir is not None and self.observes_signals

    def _build_replay_buffer(self) -> ReplayBuffer:
        replay_buffer = super()._build_replay_buffer()
        poll_interval_s = self.config.trainer.v1.get("ispo", {}).get("poll_interval_s")
        if poll_interval_s is not None:
            replay_buffer.poll_interval = float(poll_interval_s)
        return watchful(replay_buffer, WorkerWatch(self._actors_of_rollouts))

    def _actors_of_rollouts(self) -> dict[str, ActorHandle]:
        """The actors that rollouts need, by name."""
        managers = (getattr(self, name, None) for name in ("llm_server_manager", "standalone_server_manager"))
        servers = [server for manager in managers if manager for server in manager.server_handles]
        named = {
            "agent-loop worker": self.agent_loop_manager.agent_loop_workers,
            "rollout server": servers,
            "reward worker": self.get_reward_handles() or [],
        }
        return {f"{name} {number}": actor for name, actors in named.items() for number, actor in enumerate(actors)}

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()
        # verl makes a processor where a row is more than its tokens.
        if self.processor is not None and (self.observes_signals or self.prepo_config is not None):
            raise UnsupportedSettingError(multimodal_refusal(self.config.actor_rollout_ref.model.path).sentence)

    def _init_resource_pool_mgr(self) -> None:
        # verl starts the reference policy where actor.use_kl_loss is set; the loss itself must not see that.
        actor = self.config.actor_rollout_ref.actor
        with _setting(actor, "use_kl_loss", actor.use_kl_loss or self.observes_signals):
            super()._init_resource_pool_mgr()

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        if self.config.trainer.v1.get("ispo", {}).get("repeatable_order"):
            batch.reorder(_repeatable_order(batch))
        return super()._balance_batch(batch, metrics, *args, **kwargs)

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if not self.observes_signals:
            batch = super()._compute_old_log_prob(batch, metrics)
        else:
            # The same weights score the answers with and without their traces.
            rows, spans = self._ablated_rows(batch, metrics)
            if self._ablated_pass == "merged":
                batch, tail_log_probs = self._old_and_ablated_log_probs(batch, rows, metrics)
            else:
                batch = super()._compute_old_log_prob(batch, metrics)
                tail_log_probs = self._ablated_log_probs(rows)
            self._ablated = AblatedAnswers(tuple(batch.keys), spans, ablated_answer_log_probs(tail_log_probs, spans))
        if self._hands_over_signals:
            self._prompt_log_probs = _prompt_log_probs(batch)
        return batch

    def _ablated_rows(self, batch: KVBatchMeta, metrics: dict) -> tuple[TensorDict, AnswerSpans]:
        """Find the answers, and write them down without their traces."""
        with marked_timer("ispo_answer_span", self.timing_raw):
            data = _fetch(batch, ["prompts", "responses", "position_ids"])
            if data["position_ids"].dim() > 2:
                raise UnsupportedSettingError(
                    "ISPO's ablated prompts are text: models with multi-dimensional position ids (vision, audio) are "
                    "not supported"
                )
            prompts, responses = data["prompts"].unbind(), data["responses"].unbind()
            spans = find_answer_spans(
                [response.tolist() for response in responses], self._token_text(), self.ispo_config.answer_format
            )
            rows = ablated_rows(prompts, responses, spans)
        # The cost to expect of these rows is their share of the tokens.
        metrics["ispo/tokens/old_log_prob"] = sum(tag["seq_len"] for tag in batch.tags)
        metrics["ispo/tokens/ablated"] = int(rows["input_ids"].offsets()[-1])
        return rows, spans

    def _ablated_log_probs(self, rows: TensorDict) -> torch.Tensor:
        """A forward of their own for the ablated rows."""
        with marked_timer("ispo_ablated_log_prob", self.timing_raw):
            rows = with_forward_settings(rows, self.config.actor_rollout_ref.rollout.temperature)
            output = self.actor_rollout_wg.compute_log_prob(rows)
            return response_from_nested(output["log_probs"], rows["response_mask"])

    def _old_and_ablated_log_probs(
        self, batch: KVBatchMeta, rows: TensorDict, metrics: dict
    ) -> tuple[KVBatchMeta, torch.Tensor]:
        """verl's old-log-prob pass over rollouts and ablated rows together."""
        # verl asks the workers for this when it balances the batch, and keeps the answer.
        data_parallel_size = max(self.actor_rollout_wg._dispatch_info["actor"]) + 1
        merged, ablated_keys = put_ablated_rows(batch, rows, data_parallel_size)
        result = super()._compute_old_log_prob(merged, metrics)
        tail_log_probs = take_ablated_log_probs(batch, ablated_keys)
        rollouts = KVBatchMeta(
            keys=batch.keys, tags=batch.tags, partition_id=batch.partition_id, extra_info=result.extra_info
        )
        return rollouts, tail_log_probs

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if not self.observes_signals:
            return self._advantage_of_another_method(batch, metrics)
        with marked_timer("ispo_reward", self.timing_raw):
            real_rows = _real_rows(batch)
            observed = self._observe(batch, real_rows)
            metrics.update(signal_metrics(observed, self.ispo_config))
        if self.trains_ispo:
            result = self._advantage_of_composite(batch, metrics, real_rows, observed)
        else:
            result = self._advantage_of_another_method(batch, metrics)

        advantages = _fetch(batch, ["advantages", "response_mask"])
        per_rollout = _masked_mean(advantages["advantages"], advantages["response_mask"])[real_rows]
        metrics.update(advantage_metrics(per_rollout, observed))
        for warning in self.hazard_watch.observe(metrics):
            logger.warning(f"step {self.global_steps}: {warning}")
        if self.dumps_rollouts:
            with marked_timer("ispo_dump", self.timing_raw):
                self._dump_rollouts(batch, real_rows, observed, per_rollout)
        return result

    def _advantage_of_composite(
        self, batch: KVBatchMeta, metrics: dict, real_rows: Sequence[int], observed: ObservedBatch
    ) -> KVBatchMeta:
        """verl's advantage with the composite where verl reads rewards."""
        data = _fetch(batch, ["rm_scores", "response_mask"])
        rewards = _on_last_token(_all_rows(batch, real_rows, observed.training_reward), data["response_mask"])
        _store(batch, rm_scores=rewards)
        try:
            with composite_rewards(_all_rows(batch, real_rows, observed.correct)):
                result = super()._compute_advantage(batch, metrics)
        finally:
            # verl logs rm_scores as the score and token_level_rewards as the reward; both stay true.
            _store(batch, rm_scores=data["rm_scores"])
        if not self.config.algorithm.use_kl_in_reward:
            _store(batch, token_level_rewards=rewards)
        return result

    def _advantage_of_another_method(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """verl's advantage on verl's rewards, with the signals at hand where the estimator asks for them."""
        if not self._hands_over_signals:
            return super()._compute_advantage(batch, metrics)
        real_rows = _real_rows(batch)
        correct = _all_rows(batch, real_rows, _verdicts(batch, real_rows))
        with batch_signals(_batch_signals(batch, correct, self._prompt_log_probs)):
            return super()._compute_advantage(batch, metrics)

    def _observe(self, batch: KVBatchMeta, real_rows: Sequence[int]) -> ObservedBatch:
        """Signals, composite reward and all that the metrics need, for the rows that are no padding."""
        ablated = self._ablated
        if ablated is None or ablated.keys != tuple(batch.keys):
            raise RuntimeError("the ablated forward ran on another batch than the advantage: verl's step has changed")
        keys = [batch.keys[row] for row in real_rows]
        fields = ["uid", "rm_scores", "old_log_probs", "ref_log_prob", "entropy", "response_mask", "responses"]
        data = _fetch(batch, fields)
        if "ref_log_prob" not in data.keys():  # noqa: SIM118 - a TensorDict iterates over rows
            raise UnsupportedSettingError("no reference log-probs: ISPO's drift filter needs the reference policy")

        def padded(name: str) -> torch.Tensor:
            return data[name].to_padded_tensor(0)[real_rows]

        spans = AnswerSpans(
            *(column[real_rows] for column in (ablated.spans.lead_in_start, ablated.spans.start, ablated.spans.end))
        )
        log_prob, entropy, response_ids = (
            padded("old_log_probs").float(),
            padded("entropy").float(),
            padded("responses"),
        )
        response_mask = padded("response_mask").bool()
        answer_log_prob, answer_mask = gather_answer(log_prob, spans)
        ablated_log_prob = ablated.log_prob[real_rows][:, : answer_mask.shape[1]]
        score, correct = padded("rm_scores").sum(dim=-1), _verdicts(batch, real_rows)
        uids = list(data["uid"])
        groups = RolloutGroups.from_labels([str(uids[row]) for row in real_rows])
        try:
            reward = compute_ispo_reward(
                score=score,
                correct=correct,
                log_prob=log_prob,
                ref_log_prob=padded("ref_log_prob").float(),
                entropy=entropy,
                response_mask=response_mask,
                answer_log_prob=answer_log_prob,
                ablated_answer_log_prob=ablated_log_prob,
                answer_mask=answer_mask,
                config=self.ispo_config,
                entropy_candidate_mask=self._outside_the_answer(response_ids, spans),
                running_ifd=self.running_ifd,
            )
        except NonFiniteSignalError as error:
            raise RuntimeError(f"step {self.global_steps}, rollout {keys[error.row]}: {error}") from error
        self.running_ifd = self.running_ifd.updated(
            reward.measured_ifd, correct, reward.answer_found, self.ispo_config.ifd_running_decay
        )
        training_reward = guarded_composite(reward, correct, groups, self.ispo_config) if self.trains_ispo else score
        return ObservedBatch(
            reward=reward,
            training_reward=training_reward,
            correct=correct,
            groups=groups,
            spans=spans,
            response_ids=response_ids,
            response_mask=response_mask,
            entropy=entropy,
            answer_log_prob=answer_log_prob,
            ablated_answer_log_prob=ablated_log_prob,
            answer_mask=answer_mask,
        )

    def _dump_rollouts(
        self, batch: KVBatchMeta, real_rows: Sequence[int], observed: ObservedBatch, advantage: torch.Tensor
    ) -> None:
        """Write the rollout dump of this update; a full disk costs the dump and not the training."""
        keys = [batch.keys[row] for row in real_rows]

        def fetch(rows: Sequence[int], fields: list[str]) -> TensorDict:
            return tq.kv_batch_get(
                keys=[keys[row] for row in rows], partition_id=batch.partition_id, select_fields=fields
            )

        estimator = str(self.config.algorithm.adv_estimator)
        update = StepToDump(self.global_steps, self.local_trigger_step, estimator, keys, observed, advantage, fetch)
        try:
            dump_step(self.dump_config, self.ispo_config, self.tokenizer, update)
        except OSError as error:
            logger.warning(f"step {self.global_steps}: no rollout dump in {self.dump_config.dump_dir}: {error}")

    def _outside_the_answer(self, response_ids: torch.Tensor, spans: AnswerSpans) -> torch.Tensor:
        """Tokens that are neither the answer's nor the end of sequence, `(batch, response_length)` bool."""
        place = torch.arange(response_ids.shape[1])
        in_answer = (place >= spans.start.unsqueeze(-1)) & (place < spans.end.unsqueeze(-1))
        return ~in_answer & (response_ids != self.tokenizer.eos_token_id)

    def _token_text(self) -> TokenTexts:
        if self._token_texts is None:
            self._token_texts = TokenTexts(
                lambda token_id: self.tokenizer.decode([token_id], clean_up_tokenization_spaces=False),
                special_ids=self.tokenizer.all_special_ids,
            )
        return self._token_texts

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        batch = super().step(metrics, timing_raw)
        self._trained = (batch, metrics)
        return batch

    def _log_before_the_checkpoint(self) -> None:
        """Log the step that is going to be saved, without its timings, to verl's file log.

        verl logs a step after it has saved it and validated: a run that is killed in between goes on behind that step
        and would never log it. Readers of the file take several lines of a step as one.
        """
        rollout = self.config.actor_rollout_ref.rollout
        if self._trained is None or "file" not in self.logger.logger:
            return
        if rollout.get("moe_load_balance_metrics_interval", 0):
            return  # those metrics are accumulated where they are computed, and must be once
        batch, metrics = self._trained[0], dict(self._trained[1])
        epoch = (self.global_steps - 1) // self.steps_per_epoch
        # verl divides by the time of the step, which is not over
        self._compute_metrics(batch, metrics, {"step": math.inf}, global_steps=self.global_steps, epoch=epoch)
        shown = {name: value for name, value in metrics.items() if not name.startswith(("timing", "perf/", "_"))}
        self.logger.log(shown, self.global_steps, ["file"])

    def _save_checkpoint(self) -> None:
        self._log_before_the_checkpoint()
        # Written first, since verl's own last act is to name this step the latest complete one.
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / HAZARD_FILE).write_text(json.dumps(self.hazard_watch.first))
        (folder / RUNNING_IFD_FILE).write_text(json.dumps(asdict(self.running_ifd)))
        super()._save_checkpoint()
        if self.config.trainer.v1.get("ispo", {}).get("keep_over_starts"):
            keep = self.config.trainer.get("max_actor_ckpt_to_keep")
            if keep and not self.config.actor_rollout_ref.actor.get("checkpoint", {}).get("async_save", False):
                remove_older(folder.parent, self.global_steps, keep)

    def _load_checkpoint(self) -> None:
        mended = mend_tracker(Path(self.config.trainer.default_local_dir))
        if mended is not None:
            logger.warning(
                f"the note of the latest checkpoint was empty, as a crash leaves it; now it is step {mended}"
            )
        super()._load_checkpoint()
        trainer = self.config.trainer
        folder = Path(trainer.default_local_dir) / f"global_step_{self.global_steps}"
        saved = Path(trainer.resume_from_path if trainer.resume_mode == "resume_path" else folder)
        if self.global_steps and (saved / HAZARD_FILE).exists():
            self.hazard_watch = HazardWatch(json.loads((saved / HAZARD_FILE).read_text()))
        if self.global_steps and (saved / RUNNING_IFD_FILE).exists():
            self.running_ifd = RunningIFD(**json.loads((saved / RUNNING_IFD_FILE).read_text()))


@register_trainer("ispo_sync")
class ISPOTrainerSync(PPOTrainerSync, ISPOTrainerMixin):
    """verl's synchronous trainer with ISPO."""

    verl_mode = "sync"


@register_trainer("ispo_colocate_async")
class ISPOTrainerColocateAsync(PPOTrainerColocateAsync, ISPOTrainerMixin):
    """verl's colocated asynchronous trainer (partial rollouts) with ISPO."""

    verl_mode = "colocate_async"


@register_trainer("ispo_separate_async")
class ISPOTrainerSeparateAsync(PPOTrainerSeparateAsync, ISPOTrainerMixin):
    """verl's asynchronous trainer with rollouts on devices of their own, with ISPO."""

    verl_mode = "separate_async"


@contextmanager
def _setting(section: DictConfig, key: str, value: Any) -> Iterator[None]:
    """Set one key of a config for the length of the block."""
    before = section[key]
    section[key] = value
    try:
        yield
    finally:
        section[key] = before


def _fetch(batch: KVBatchMeta, fields: list[str]) -> TensorDict:
    return tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)


def _store(batch: KVBatchMeta, **fields: torch.Tensor) -> None:
    tq.kv_batch_put(
        keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch.keys))
    )


def _repeatable_order(batch: KVBatchMeta) -> list[int]:
    """Rows in an order that depends on prompts and sample numbers alone, and not on verl's random ids or on arrival.

    By a hash of the prompt, so that neighbours in the data set do not end up in one mini-batch.
    """
    prompts = _fetch(batch, ["prompts"])["prompts"].unbind()
    digests = [hashlib.blake2b(str(prompt.tolist()).encode(), digest_size=8).digest() for prompt in prompts]
    places = [tuple(int(part) for part in key.rsplit("_", 2)[1:]) for key in batch.keys]
    return sorted(range(len(prompts)), key=lambda row: (digests[row], *places[row]))


def _on_last_token(rewards: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """One reward a row on the last token that the policy wrote, zeros elsewhere; nested as ``response_mask`` is."""
    rows = []
    for reward, mask in zip(rewards, response_mask.unbind(), strict=True):
        row = torch.zeros(len(mask))
        written = mask.nonzero()
        if len(written):
            row[int(written[-1])] = reward
        rows.append(row)
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def _masked_mean(values: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """Mean of each row over the tokens that the policy wrote, `(batch,)` float32; 0 for a row without one."""
    mask = response_mask.to_padded_tensor(0).double()
    total = (values.to_padded_tensor(0).double() * mask).sum(dim=-1)
    return (total / mask.sum(dim=-1).clamp(min=1)).float()


def _real_rows(batch: KVBatchMeta) -> list[int]:
    """The rows that are no padding of verl's."""
    return [row for row, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]


def _all_rows(batch: KVBatchMeta, real_rows: Sequence[int], values: torch.Tensor) -> torch.Tensor:
    """Values of the real rows laid out over the whole batch; padding rows get 0."""
    return torch.zeros(len(batch), dtype=values.dtype).index_copy(0, torch.tensor(real_rows), values)


def _verdicts(batch: KVBatchMeta, real_rows: Sequence[int]) -> torch.Tensor:
    """Who of the real rows is right, bool."""
    _refuse_multi_output_sessions([batch.keys[row] for row in real_rows])
    data = _fetch(batch, ["rm_scores", "extra_fields"])
    score = data["rm_scores"].to_padded_tensor(0)[real_rows].sum(dim=-1)
    extra_fields = list(data["extra_fields"])
    return correctness(score, [_reward_extra_info(extra_fields[row]) for row in real_rows])


def _prompt_log_probs(batch: KVBatchMeta) -> list[torch.Tensor]:
    """Log-probs of each prompt's tokens but the first, out of the pass that gave the old log-probs.

    To be read at once: the reference pass writes its own values over them.
    """
    data = _fetch(batch, ["log_probs", "prompts"])
    # One value a token of prompt and response, each the log-prob of the token after it.
    return [
        row[: len(prompt) - 1].float()
        for row, prompt in zip(data["log_probs"].unbind(), data["prompts"].unbind(), strict=True)
    ]


def _batch_signals(batch: KVBatchMeta, correct: torch.Tensor, prompt_log_probs: list[torch.Tensor]) -> BatchSignals:
    """Signals of the batch, padding rows included, laid out as verl hands rewards to an estimator."""
    data = _fetch(batch, ["old_log_probs", "entropy"])
    prompt_masks = [torch.ones_like(row, dtype=torch.bool) for row in prompt_log_probs]
    return BatchSignals(
        correct=correct,
        log_prob=data["old_log_probs"].to_padded_tensor(0).float(),
        entropy=data["entropy"].to_padded_tensor(0).float(),
        prompt_log_prob=torch.nn.utils.rnn.pad_sequence(prompt_log_probs, batch_first=True),
        prompt_mask=torch.nn.utils.rnn.pad_sequence(prompt_masks, batch_first=True),
    )


def _reward_extra_info(extra_fields: Any) -> dict[str, Any]:
    extra_fields = getattr(extra_fields, "data", extra_fields)
    return extra_fields.get("reward_extra_info") or {}


def _refuse_multi_output_sessions(keys: Sequence[str]) -> None:
    # verl's keys read {prompt}_{session}_{output}; its own GRPO counts only the last output of a session.
    several = [key for key in keys if key.rsplit("_", 1)[-1] != "0"]
    if several:
        raise UnsupportedSettingError(
            f"rollout {several[0]} is a further output of its session: agent loops with several outputs a session are "
            "not supported by ISPO, whose groups count each output as a rollout"
        )
