"""Where responses end: the end-of-sequence ids of tokenizer and generation config against the chat template's turns.

A rollout stops at the ids of `end_of_sequence_ids`. If one of them opens a turn, or the model ends its turns with a
token that is none of them, rollouts end in the wrong place or at the length limit only, and nothing says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from verl_ispo.end_of_sequence import end_of_sequence_ids
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding

SUBJECT = "end of sequence"
_ASKED, _ANSWERED = "What is six times seven?", "fortytwo"


def check_turn_ends(tokenizer: Any, generation_config: Any, path: str) -> Iterator[Finding]:
    """Compare what ends a sequence with what the chat template writes around a turn.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): with its chat template.
        generation_config (`GenerationConfig`, *optional*): of the model, `None` where it has none.
        path (`str`): where they were read, for the messages.
    """
    ends = end_of_sequence_ids(tokenizer.eos_token_id, generation_config)
    if not ends:
        yield Finding(
            PROBLEM,
            SUBJECT,
            f"neither the tokenizer nor generation_config.json of {path} has one, so every rollout goes on to "
            "data.max_response_length; set eos_token in tokenizer_config.json",
        )
        return
    said = f"{_named(tokenizer, ends)} (tokenizer's and generation_config.json's)"
    opening = _opening(tokenizer)
    opens = [token for token in ends if token in opening]
    if opens:
        yield Finding(
            PROBLEM,
            SUBJECT,
            f"is {said} in {path}, and the chat template opens the assistant's turn with {_named(tokenizer, opens)}, "
            "so this is no end. Set eos_token in tokenizer_config.json and eos_token_id in generation_config.json to "
            "the token that ends a turn",
        )
        return
    turn_end = _turn_end(tokenizer)
    if turn_end is None or turn_end in ends:
        yield Finding(OK, SUBJECT, f"is {said}")
    else:
        yield Finding(
            NOTE,
            SUBJECT,
            f"is {said}, and the chat template ends a turn with {_named(tokenizer, [turn_end])}, at which no rollout "
            "stops. A model that has learned to end its turns so would write on to data.max_response_length: add that "
            "token to eos_token_id in generation_config.json. For a base model this is as published",
        )


def check_pad_token(path: str) -> Iterator[Finding]:
    """Whether the tokenizer in a folder has a pad token of its own."""
    file = Path(os.path.expanduser(path)) / "tokenizer_config.json"
    try:
        pad_token = json.loads(file.read_text(encoding="utf-8")).get("pad_token")
    except (OSError, ValueError, AttributeError):
        return  # a hub id, or what `prompt_renderer` reports
    if pad_token is None:
        yield Finding(
            NOTE,
            "pad token",
            f"the tokenizer of {path} has none; verl pads with the end-of-sequence token, which its masks leave out",
        )


def _turn_end(tokenizer: Any) -> int | None:
    """The first special token behind an assistant's message; `None` where the template writes none."""
    messages = [{"role": "user", "content": _ASKED}, {"role": "assistant", "content": _ANSWERED}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    behind = tokenizer.encode(text.rpartition(_ANSWERED)[2], add_special_tokens=False)
    return next((token for token in behind if token in _special(tokenizer)), None)


def _opening(tokenizer: Any) -> set[int]:
    """Special tokens that the template writes to begin the assistant's turn."""
    messages = [{"role": "user", "content": _ASKED}]
    without, with_opening = (
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opens) for opens in (False, True)
    )
    added = with_opening.removeprefix(without) if with_opening.startswith(without) else ""
    return set(tokenizer.encode(added, add_special_tokens=False)) & _special(tokenizer)


def _special(tokenizer: Any) -> set[int]:
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def _named(tokenizer: Any, ids: list[int]) -> str:
    return ", ".join(f"{tokenizer.convert_ids_to_tokens(token)!r} ({token})" for token in ids)
