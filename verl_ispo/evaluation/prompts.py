"""What is sent for each problem, how long its response may be, and how a response becomes text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from verl_ispo.cpu.sampling import SampleRequest
from verl_ispo.evaluation.evaluation_options import EvaluationOptions
from verl_ispo.evaluation.questions import Question
from verl_ispo.evaluation.sampler import ChatRequest, Completion, Request
from verl_ispo.evaluation.samples import PlannedSample
from verl_ispo.signals.token_texts import TokenTexts
from verl_ispo.user_error import UserError


class Prompts(Protocol):
    """Prompts of an evaluation.

    Attributes:
        context_tokens: longest prompt and response together; `None` where only the server knows it.
        token_texts: texts of the model's tokens; `None` where the tokenizer is not known here.
    """

    context_tokens: int | None
    token_texts: TokenTexts | None

    def response_limit(self, question: Question) -> int:
        """Tokens that the response may have; 0: the prompt fills the context, and nothing is sampled."""
        ...

    def request(self, planned: PlannedSample, top_p: float) -> Request:
        """What a sampler is asked for."""
        ...

    def text(self, completion: Completion) -> str:
        """The response's text, without special tokens."""
        ...


class TokenPrompts:
    """`Prompts` as token ids, by the tokenizer's chat template, or of the bare text (``options.raw_prompts``).

    A response ends at the end of the model's context at the latest. A prompt that fills it gets no response and counts
    as incorrect: leaving the problem out would change the benchmark.

    Args:
        folder (`str`): what tokenizer and config are loaded from, a folder or a hub id.
        questions (`Sequence[Question]`).
        options (`EvaluationOptions`).

    Raises:
        UserError: if there is no chat template, the context is not known, or each prompt of a benchmark fills it.
    """

    def __init__(self, folder: str, questions: Sequence[Question], options: EvaluationOptions) -> None:
        tokenizer, declared = _tokenizer_and_context(folder)
        if not options.raw_prompts and not tokenizer.chat_template:
            raise UserError(
                f"{folder}: the tokenizer has no chat template, so prompts cannot be built; put a "
                "chat_template.jinja into that folder, the one used in training"
            )
        if options.context_tokens is None and declared is None:
            raise UserError(f"{folder}: config.json has no max_position_embeddings; give --context-tokens")
        self.context_tokens: int | None = int(options.context_tokens or declared or 0)
        self.token_texts: TokenTexts | None = TokenTexts.of_tokenizer(tokenizer)
        self._tokenizer = tokenizer
        self._max_new_tokens = options.max_new_tokens
        self._ids: dict[tuple[str, str], tuple[int, ...]] = {
            (question.benchmark, question.question_id): tuple(
                tokenizer(question.messages[-1]["content"])["input_ids"]
                if options.raw_prompts
                else tokenizer.apply_chat_template(
                    list(question.messages), add_generation_prompt=True, return_dict=False
                )
            )
            for question in questions
        }
        self._warn(questions)

    def _warn(self, questions: Sequence[Question]) -> None:
        for benchmark in dict.fromkeys(question.benchmark for question in questions):
            limits = [self.response_limit(question) for question in questions if question.benchmark == benchmark]
            context = f"the context of {self.context_tokens} tokens"
            if not any(limits):
                raise UserError(
                    f"benchmark {benchmark!r}: each of its {len(limits)} prompts fills {context}, so nothing could be "
                    "sampled. Give a model with a longer context, or --context-tokens to go beyond the declared one"
                )
            for count, words in (
                (sum(tokens == 0 for tokens in limits), f"fill {context}: they are not sampled and count as incorrect"),
                (
                    sum(0 < tokens < self._max_new_tokens for tokens in limits),
                    f"leave less than --max-new-tokens {self._max_new_tokens} of {context}",
                ),
            ):
                if count:
                    warning = f"warning: {benchmark}: {count} of {len(limits)} prompts {words}"
                    print(warning, file=sys.stderr, flush=True)

    def _ids_of(self, question: Question) -> tuple[int, ...]:
        return self._ids[question.benchmark, question.question_id]

    def response_limit(self, question: Question) -> int:
        """See `Prompts`."""
        assert self.context_tokens is not None
        return max(0, min(self._max_new_tokens, self.context_tokens - len(self._ids_of(question))))

    def request(self, planned: PlannedSample, top_p: float) -> SampleRequest:
        """See `Prompts`."""
        return SampleRequest(
            prompt_ids=self._ids_of(planned.question),
            max_new_tokens=self.response_limit(planned.question),
            temperature=planned.temperature,
            top_p=top_p if planned.mode == "sampled" else 1.0,
            seed=planned.seed or 0,
        )

    def text(self, completion: Completion) -> str:
        """See `Prompts`."""
        if completion.token_ids is None:
            return completion.text or ""
        return self._tokenizer.decode(list(completion.token_ids), skip_special_tokens=True)


@dataclass(frozen=True)
class ChatPrompts:
    """`Prompts` as messages, of which a server makes tokens by the chat template that it serves.

    Attributes:
        max_new_tokens: longest response; a shorter context is the server's to say.
        context_tokens: as given, for the manifest.
    """

    max_new_tokens: int
    context_tokens: int | None
    token_texts: TokenTexts | None = None

    def response_limit(self, question: Question) -> int:
        """See `Prompts`."""
        return self.max_new_tokens

    def request(self, planned: PlannedSample, top_p: float) -> ChatRequest:
        """See `Prompts`."""
        return ChatRequest(
            messages=planned.question.messages,
            max_new_tokens=self.max_new_tokens,
            temperature=planned.temperature,
            top_p=top_p if planned.mode == "sampled" else 1.0,
            seed=planned.seed or 0,
        )

    def text(self, completion: Completion) -> str:
        """See `Prompts`."""
        return completion.text or ""


def _tokenizer_and_context(folder: str) -> tuple[PreTrainedTokenizerBase, int | None]:
    from transformers import AutoConfig, AutoTokenizer

    return AutoTokenizer.from_pretrained(folder), getattr(
        AutoConfig.from_pretrained(folder), "max_position_embeddings", None
    )
