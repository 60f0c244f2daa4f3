"""The forward under the rollout policy: old log-probs as in verl, and the answers without their traces.

The ablated rows run in a separate forward or in that of the old log-probs (``trainer.v1.ispo.ablated_pass``);
the same weights score the answers with and without their traces either way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from verl_ispo.answers.answer_place import row_answer_format
from verl_ispo.grading.ground_truth_reading import asks_for_several
from verl_ispo.signals.answer_span import AnswerSpans, TokenTexts, find_answer_spans
from verl_ispo.trainer.ablated_forward import ablated_rows
from verl_ispo.trainer.refusals import UnsupportedSettingError
from verl_ispo.trainer.step_batch import fetch, objects


@dataclass(frozen=True)
class PolicyPass:
    """What the pass gave beside verl's own fields, kept until the advantage is computed; rows as verl has them.

    Attributes:
        keys: of the batch, in the order of the rows.
        spans: answers and lead-ins; `None` where ISPO's signals are not computed.
        ablated_log_prob: `(rows, answer_length)` float32, log p(A | Q) token by token; `None` likewise.
        prompt_log_probs: of each prompt's tokens but the first; `None` where no method asks for them.
    """

    keys: tuple[str, ...]
    spans: AnswerSpans | None = None
    ablated_log_prob: torch.Tensor | None = None
    prompt_log_probs: tuple[torch.Tensor, ...] | None = None


def find_ablated_rows(
    batch: KVBatchMeta, token_text: TokenTexts, answer_format: str, grades_lists: bool
) -> tuple[TensorDict, AnswerSpans]:
    """Find the answers of a batch, and build the rows without their traces.

    Args:
        batch (`KVBatchMeta`): with prompts and responses.
        token_text (`TokenTexts`): of the policy's tokenizer.
        answer_format (`str`): see `ISPOConfig.answer_format`.
        grades_lists (`bool`): whether the reward function reads boxes that form a list as one answer, where a problem
            asks for several.

    Raises:
        UnsupportedSettingError: the model's position ids are multi-dimensional (vision, audio).
    """
    data = fetch(batch, ["prompts", "responses", "position_ids"])
    if data["position_ids"].dim() > 2:
        raise UnsupportedSettingError(
            "ISPO's ablated prompts are text: models with multi-dimensional position ids (vision, audio) are not "
            "supported"
        )
    prompts, responses = data["prompts"].unbind(), data["responses"].unbind()
    token_ids = [response.tolist() for response in responses]
    formats, several = _where_answers_are(batch, answer_format, grades_lists)
    spans = find_answer_spans(token_ids, token_text, formats, several)
    return ablated_rows(prompts, responses, spans), spans


def _where_answers_are(batch: KVBatchMeta, answer_format: str, grades_lists: bool) -> tuple[list[str], list[bool]]:
    """Each row's answer format, and whether its problem asks for several answers, both as the grader sees them.

    verl's padding rows have the run's format and ask for one answer.
    """
    rows = [row for row, tag in enumerate(batch.tags) if not tag.get("is_padding", False)]
    formats, several = [answer_format] * len(batch), [False] * len(batch)
    real = KVBatchMeta(keys=[batch.keys[row] for row in rows], tags=[{}] * len(rows), partition_id=batch.partition_id)
    data = fetch(real, ["reward_model", "extra_info"])
    extra_infos = objects(data, "extra_info") or [None] * len(rows)
    for row, extra_info in zip(rows, extra_infos, strict=True):
        formats[row] = row_answer_format(extra_info, answer_format)
    if grades_lists and "reward_model" in data.keys():  # noqa: SIM118 - a TensorDict iterates over rows
        for row, reward_model, extra_info in zip(rows, objects(data, "reward_model"), extra_infos, strict=True):
            several[row] = asks_for_several(reward_model.get("ground_truth"), extra_info)
    return formats, several


def prompt_log_probs(batch: KVBatchMeta) -> tuple[torch.Tensor, ...]:
    """Log-probs of each prompt's tokens but the first, from the pass that gave the old log-probs.

    To be read before the reference pass, which overwrites them.
    """
    data = fetch(batch, ["log_probs", "prompts"])
    # One value per token of prompt and response, each the log-prob of the token after it.
    return tuple(
        row[: len(prompt) - 1].float()
        for row, prompt in zip(data["log_probs"].unbind(), data["prompts"].unbind(), strict=True)
    )
