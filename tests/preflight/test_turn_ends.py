"""Where responses end, against the turns of the chat template.

What goes wrong in general: three places say what ends a sequence (the tokenizer, the generation config, the template),
and a converted or assembled model has them from different sources. Each case is a folder as such a model has it.

Not exercised: tokenizers of the hub.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding
from verl_ispo.preflight.turn_ends import check_pad_token, check_turn_ends

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def tokenizer(eos: str | None, template: str = CHATML, pad: str | None = None) -> PreTrainedTokenizerFast:
    words = ["fortytwo", "What", "is", "six", "times", "seven", "?", "user", "assistant", "[UNK]"]
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate([*SPECIAL, *words])}, "[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos, pad_token=pad, unk_token="[UNK]")
    made.add_special_tokens({"additional_special_tokens": SPECIAL})
    made.chat_template = template
    return made


def finding(eos: str | None, configured: int | list[int] | None, template: str = CHATML) -> Finding:
    [found] = check_turn_ends(tokenizer(eos, template), GenerationConfig(eos_token_id=configured), "model")
    return found


@pytest.mark.parametrize(
    ("eos", "configured", "template", "level", "said"),
    [
        ("<|im_end|>", 2, CHATML, OK, "is '<|im_end|>' (2)"),
        # Qwen2.5-Instruct: two ends
        ("<|im_end|>", [2, 0], CHATML, OK, "'<|endoftext|>' (0), '<|im_end|>' (2)"),
        # a base model under a chat template, as published
        ("<|endoftext|>", 0, CHATML, NOTE, "ends a turn with '<|im_end|>' (2), at which no rollout stops"),
        # a tokenizer read from GGUF, whose number for the end is taken for another token
        ("<|im_start|>", None, CHATML, PROBLEM, "opens the assistant's turn with '<|im_start|>' (1)"),
        ("<|im_end|>", [2, 1], CHATML, PROBLEM, "opens the assistant's turn with '<|im_start|>' (1)"),
        # a template without special tokens has no end of its own
        ("<|endoftext|>", 0, PLAIN, OK, "is '<|endoftext|>' (0)"),
        (None, None, CHATML, PROBLEM, "every rollout goes on to data.max_response_length"),
        (None, 2, CHATML, OK, "is '<|im_end|>' (2)"),
    ],
)
def test_each_assembly_is_told(
    eos: str | None, configured: int | list[int] | None, template: str, level: str, said: str
) -> None:
    found = finding(eos, configured, template)
    assert (found.level, said in found.text) == (level, True), found


def test_without_a_generation_config_the_tokenizers_counts() -> None:
    [found] = check_turn_ends(tokenizer("<|im_end|>"), None, "model")
    assert found.level == OK


def test_a_missing_pad_token_is_a_note(tmp_path: Path) -> None:
    tokenizer("<|im_end|>").save_pretrained(tmp_path / "none")
    [found] = check_pad_token(str(tmp_path / "none"))
    assert (found.level, "verl pads with the end-of-sequence token" in found.text) == (NOTE, True)
    tokenizer("<|im_end|>", pad="<|endoftext|>").save_pretrained(tmp_path / "own")
    assert AutoTokenizer.from_pretrained(tmp_path / "own").pad_token == "<|endoftext|>"
    assert list(check_pad_token(str(tmp_path / "own"))) == []
    assert list(check_pad_token("organisation/model")) == []
    (tmp_path / "own" / "tokenizer_config.json").write_text(json.dumps(["no object"]))
    assert list(check_pad_token(str(tmp_path / "own"))) == []
