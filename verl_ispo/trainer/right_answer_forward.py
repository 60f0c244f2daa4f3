"""Correct answers behind the traces of incorrect rollouts (ours): their texts, and the forward that scores them.

The forward takes any texts and any number of them, so it also serves a method that scores the ground truth elsewhere.
It runs under the weights of the old log-probs, right after their pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from transfer_queue import KVBatchMeta
from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions
from verl.workers.utils.padding import response_from_nested

from verl_ispo.grading.ground_truth_reading import right_answer_text
from verl_ispo.trainer.forward_rows import forward_rows, with_forward_settings
from verl_ispo.trainer.refusals import UnsupportedSettingError
from verl_ispo.trainer.step_batch import StepBatch, fetch, objects, prompt_of

MEGATRON = "actor_rollout_ref.actor.megatron"


def right_answers_of_all_wrong_groups(batch: KVBatchMeta, step: StepBatch) -> list[str | None]:
    """For each of verl's rows the ground truth where its group has no correct rollout, else `None`.

    Raises:
        UnsupportedSettingError: the data has no ``reward_model``.
    """
    is_all_wrong = step.groups.all_wrong(step.correct)[step.groups.ids].tolist()
    rows = [row for row, wrong in zip(step.rows.tolist(), is_all_wrong, strict=True) if wrong]
    right_answers: list[str | None] = [None] * len(batch)
    if not rows:
        return right_answers
    texts = ground_truth_texts(
        batch,
        rows,
        reader="algorithm.ispo.all_wrong_groups=right_answer",
        remedy="set algorithm.ispo.all_wrong_groups=informative",
    )
    for row in rows:
        right_answers[row] = texts[prompt_of(batch.keys[row])]
    return right_answers


def ground_truth_texts(batch: KVBatchMeta, rows: Sequence[int], reader: str, remedy: str) -> dict[str, str]:
    """The ground truth's text of each prompt that some rows answer; empty where it is no text of an answer.

    Args:
        batch (`KVBatchMeta`).
        rows (`Sequence[int]`): of the batch.
        reader (`str`): the setting that reads ground truths, for the message.
        remedy (`str`): what else can be done than add them, for the message.

    Raises:
        UnsupportedSettingError: the data has no ``reward_model``.
    """
    # The rollouts of a prompt come from one row of the data.
    key_of_prompt = {prompt_of(batch.keys[row]): batch.keys[row] for row in rows}
    keys = list(key_of_prompt.values())
    asked = KVBatchMeta(keys=keys, tags=[{}] * len(keys), partition_id=batch.partition_id)
    reward_models = objects(fetch(asked, ["reward_model"]), "reward_model")
    if not reward_models:
        raise UnsupportedSettingError(
            f"{reader} reads reward_model.ground_truth, and data.train_files has no column reward_model. Add it, or "
            f"{remedy}."
        )
    return {
        prompt: right_answer_text(reward_model.get("ground_truth")) if isinstance(reward_model, Mapping) else ""
        for prompt, reward_model in zip(key_of_prompt, reward_models, strict=True)
    }


def log_probs_of_tails(
    workers: Any, config: DictConfig, heads: Sequence[torch.Tensor], tails: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Log-probs of each tail's tokens behind its head, as `forward_over_tails` gives them.

    Returns:
        `list[torch.Tensor]`: float32, one tensor for each tail.
    """
    return forward_over_tails(workers, config, heads, tails, ["log_probs"])["log_probs"]


def forward_over_tails(
    workers: Any,
    config: DictConfig,
    heads: Sequence[torch.Tensor],
    tails: Sequence[torch.Tensor],
    outputs: Sequence[str],
) -> dict[str, list[torch.Tensor]]:
    """What verl's own forward says of each tail's tokens behind its head, under the policy's present weights.

    Short stand-in rows fill the number up to what workers and micro-batches divide; long and short rows are spread
    evenly over the workers.

    Args:
        workers: verl's worker group with the policy.
        config (`DictConfig`): the training's.
        heads, tails (`Sequence[torch.Tensor]`): token ids, at least one each.
        outputs (`Sequence[str]`): of ``log_probs`` and ``entropy``, in nats.

    Returns:
        `dict[str, list[torch.Tensor]]`: for each of the outputs, one float32 tensor for each tail.
    """
    if not heads:
        return {name: [] for name in outputs}
    data_parallel_size = max(workers._query_dispatch_info("actor")) + 1
    count, stand_ins = len(heads), -len(heads) % row_multiple(config, data_parallel_size)
    heads, tails = [*heads, *[heads[0][:1]] * stand_ins], [*tails, *[tails[0][:1]] * stand_ins]
    lengths = torch.tensor([len(head) + len(tail) for head, tail in zip(heads, tails, strict=True)])
    shares = get_seqlen_balanced_partitions(calculate_workload(lengths).tolist(), data_parallel_size, equal_size=True)
    # By length, so that a micro-batch is not padded to one long row.
    order = [row for share in shares for row in sorted(share, key=lambda row: (int(lengths[row]), row))]
    rows = forward_rows([heads[row] for row in order], [tails[row] for row in order])
    temperature = config.actor_rollout_ref.rollout.temperature
    output = workers.compute_log_prob(with_forward_settings(rows, temperature, entropy="entropy" in outputs))
    place = {row: at for at, row in enumerate(order)}
    found = {name: response_from_nested(output[name], rows["response_mask"]).unbind() for name in outputs}
    return {name: [values[place[row]].float() for row in range(count)] for name, values in found.items()}


def row_multiple(config: DictConfig, data_parallel_size: int) -> int:
    """What the number of rows of a forward has to be a multiple of."""
    rollout = config.actor_rollout_ref.rollout
    micro_batch = 1 if rollout.log_prob_use_dynamic_bsz else int(rollout.log_prob_micro_batch_size_per_gpu)
    # Megatron's interleaved schedule takes micro-batches in rounds of the pipeline's length.
    interleaved = OmegaConf.select(config, f"{MEGATRON}.virtual_pipeline_model_parallel_size")
    rounds = int(OmegaConf.select(config, f"{MEGATRON}.pipeline_model_parallel_size") or 1) if interleaved else 1
    return data_parallel_size * micro_batch * rounds


def longest_row(config: DictConfig) -> int:
    """Most tokens of a row: what the training's rollouts may have, and what a micro-batch made by tokens holds."""
    rollout, lengths = config.actor_rollout_ref.rollout, config.data.max_prompt_length + config.data.max_response_length
    return min(lengths, rollout.log_prob_max_token_len_per_gpu) if rollout.log_prob_use_dynamic_bsz else lengths
