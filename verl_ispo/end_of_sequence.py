"""The tokens that end a sequence: the tokenizer's, and those of the model's generation config.

A chat model often ends a turn with another token than its tokenizer's (Qwen2.5-Instruct has two, Llama 3 three), and
rollout engines stop at every one of them.
"""

from __future__ import annotations

from typing import Any


def end_of_sequence_ids(tokenizer_id: int | None, generation_config: Any = None) -> list[int]:
    """Every token id that ends a sequence, ascending.

    Args:
        tokenizer_id (`int`, *optional*): the tokenizer's ``eos_token_id``.
        generation_config (`transformers.GenerationConfig`, *optional*): whose ``eos_token_id`` is an id, several or
            `None`.
    """
    configured = getattr(generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list | tuple) else [configured]
    return sorted({int(token) for token in (*listed, tokenizer_id) if token is not None})
