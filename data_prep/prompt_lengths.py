"""Length of prompts in tokens, counted the way verl counts them: chat template applied, generation prompt added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from data_prep.prompt_templates import Message
from verl_ispo.user_error import UserError


@dataclass(frozen=True)
class PromptMeter:
    """A tokenizer with its chat template."""

    tokenizer: Any

    def token_counts(self, prompts: list[list[Message]]) -> list[int]:
        """Number of tokens of each prompt under ``apply_chat_template(..., add_generation_prompt=True)``."""
        if not prompts:
            return []
        texts = self.tokenizer.apply_chat_template(prompts, add_generation_prompt=True, tokenize=False)
        return [len(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]


def load_prompt_meter(name_or_path: str) -> PromptMeter:
    """The tokenizer in a local folder, or of a model on the hub.

    Raises:
        UserError: if it cannot be loaded or has no chat template, which verl needs too.
    """
    from transformers import AutoTokenizer  # takes seconds, and only the length filter needs it

    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    except Exception as error:  # many unrelated types, depending on what is missing
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--tokenizer {name_or_path}: cannot be loaded ({reason}); pass a local folder or a model's hub id"
        ) from error
    if not tokenizer.chat_template:
        raise UserError(f"--tokenizer {name_or_path}: has no chat template, which verl applies to every prompt")
    return PromptMeter(tokenizer)
