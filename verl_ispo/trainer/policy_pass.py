"""The forward under the rollout policy: old log-probs as in verl, and the answers without their traces.

The ablated rows run in a separate forward or in that of the old log-probs (``trainer.v1.ispo.ablated_pass``);
the same weights score the answers with and without their traces either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transfer_queue import KVBatchMeta

from verl_ispo.answers.answer_place import row_answer_format
from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.grading.ground_truth_reading import asks_for_several
from verl_ispo.methods.method import PrefixScores
from verl_ispo.signals.answer_span import AnswerSpans, ScoredAnswers, find_scored_answers
from verl_ispo.signals.right_answer import RightAnswerScores
from verl_ispo.signals.token_texts import TokenTexts
from verl_ispo.trainer.forward_rows import nested_rows
from verl_ispo.trainer.refusals import UnsupportedSettingError
from verl_ispo.trainer.step_batch import fetch, objects, prompt_of, rollout_rows


@dataclass(frozen=True)
class PolicyPass:
    """What the pass gave beside verl's own fields, kept until the advantage is computed; rows as verl has them.

    Attributes:
        keys: of the batch, in the order of the rows.
        answers: where the answers are; `None` where nothing needs them.
        ablated_log_prob: `(rows, answer_length)` float32, log p(A | Q) token by token; `None` where ISPO's signals are
            not computed.
        right_answer: the correct answers behind the traces of all-wrong groups; `None` where nothing asks for them.
        given_log_prob: `(rows, answer_length)` float32, log p(A | Q, T) where T ends before the rollout's trace does,
            0 elsewhere; `None` where no T does.
        prompt_log_probs: of each prompt's tokens but the first; `None` where no method asks for them.
        extra_fields: what the agent loop says of each rollout; `None` where no verdicts are needed.
        prefix_scores: the ground truth behind parts of the responses; `None` where no method asks for it.
    """

    keys: tuple[str, ...]
    answers: FoundAnswers | None = None
    ablated_log_prob: torch.Tensor | None = None
    right_answer: RightAnswerScores | None = None
    given_log_prob: torch.Tensor | None = None
    prompt_log_probs: tuple[torch.Tensor, ...] | None = None
    extra_fields: list[Any] | None = None
    prefix_scores: PrefixScores | None = None


@dataclass(frozen=True)
class FoundAnswers:
    """Where a batch's answers are.

    Attributes:
        prompts, responses: token ids, one tensor per row.
        all_responses: the responses as one nested tensor.
        scored: what IFD compares.
    """

    prompts: tuple[torch.Tensor, ...]
    responses: tuple[torch.Tensor, ...]
    all_responses: torch.Tensor
    scored: ScoredAnswers

    @property
    def spans(self) -> AnswerSpans:
        """The graded answers' contents and their lead-ins."""
        return self.scored.content


def find_answers(
    batch: KVBatchMeta, input_ids: torch.Tensor, token_text: TokenTexts, config: ISPOConfig, grades_lists: bool
) -> FoundAnswers:
    """Find the answers of a batch.

    Args:
        batch (`KVBatchMeta`).
        input_ids (nested `torch.Tensor`): of the batch; verl's rows are a prompt and its response.
        token_text (`TokenTexts`): of the policy's tokenizer.
        config (`ISPOConfig`): which markers count, and what is scored.
        grades_lists (`bool`): whether the reward function reads boxes that form a list as one answer, where a problem
            asks for several.
    """
    lengths = torch.tensor([[tag["prompt_len"], tag["response_len"]] for tag in batch.tags])
    pieces = input_ids.values().split(lengths.flatten().tolist())
    prompts, responses = pieces[::2], pieces[1::2]
    all_responses = nested_rows(torch.cat(responses), lengths[:, 1])
    formats, several = _where_answers_are(batch, config.answer_format, grades_lists)
    scored = find_scored_answers(all_responses, token_text, config, formats, several)
    return FoundAnswers(prompts, responses, all_responses, scored)


def refuse_several_positions(batch: KVBatchMeta) -> None:
    """Check that tokens have one position each.

    Raises:
        UnsupportedSettingError: the model's position ids are multi-dimensional (vision, audio).
    """
    first = KVBatchMeta(keys=batch.keys[:1], tags=[{}], partition_id=batch.partition_id)
    if fetch(first, ["position_ids"])["position_ids"].dim() > 2:
        raise UnsupportedSettingError(
            "ISPO's ablated prompts are text: models with multi-dimensional position ids (vision, audio) are not "
            "supported"
        )


def _where_answers_are(batch: KVBatchMeta, answer_format: str, grades_lists: bool) -> tuple[list[str], list[bool]]:
    """Each row's answer format, and whether its problem asks for several answers, both as the grader sees them.

    Rollouts of one prompt come from one row of the data, so that is read once. verl's padding rows have the run's
    format and ask for one answer.
    """
    formats, several = [answer_format] * len(batch), [False] * len(batch)
    by_prompt: dict[str, list[int]] = {}
    for row in rollout_rows(batch):
        by_prompt.setdefault(prompt_of(batch.keys[row]), []).append(row)
    keys = [batch.keys[rows[0]] for rows in by_prompt.values()]
    data = fetch(
        KVBatchMeta(keys=keys, tags=[{}] * len(keys), partition_id=batch.partition_id), ["reward_model", "extra_info"]
    )
    reward_models, extra_infos = (objects(data, name) or [None] * len(keys) for name in ("reward_model", "extra_info"))
    for rows, reward_model, extra_info in zip(by_prompt.values(), reward_models, extra_infos, strict=True):
        row_format = row_answer_format(extra_info, answer_format)
        is_list = (
            grades_lists and reward_model is not None and asks_for_several(reward_model.get("ground_truth"), extra_info)
        )
        for row in rows:
            formats[row], several[row] = row_format, is_list
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
