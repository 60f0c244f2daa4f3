"""A byte-level Qwen2 tokenizer without merges: token id = byte value, then three special tokens.

259 tokens cover any text, so no text is unknown, and an answer is a handful of single-digit tokens. It is
``Qwen2Tokenizer`` with an empty merge table, so ``AutoTokenizer`` loads it without any code of ours.

verl 0.9.1 builds a Qwen prompt through its ``QwenContinuousTokenBuilder``, which requires two things: ``"\\n"`` is a
single token, and ``<|im_end|>`` exists. It does not require ChatML, so the template is kept short for a 0.7 M
parameter model: the user's text is the prompt, and the model's turn ends with ``<|im_end|>``, the end of sequence.
"""

from __future__ import annotations

from transformers import Qwen2Tokenizer

END_OF_TEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"

# An assistant turn closes as in Qwen's own template, so that several turns still concatenate token by token.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- message.content -}}"
    "{%- if message.role == 'assistant' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}"
    "{%- endfor -%}"
)


def _byte_symbols() -> list[str]:
    """The printable stand-in of each byte, in byte order, as in GPT-2's byte-level BPE.

    Bytes that are printable in Latin-1 stand for themselves; the others take the code points from 256 on, in order.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    unprintable = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + unprintable.index(byte)) for byte in range(256)]


def byte_vocab() -> dict[str, int]:
    """The 256 symbols of single bytes; each one's id is its byte."""
    return {symbol: byte for byte, symbol in enumerate(_byte_symbols())}


def build_tokenizer(vocab: dict[str, int] | None = None, model_max_length: int = 256) -> Qwen2Tokenizer:
    """Build the tokenizer; ``save_pretrained`` writes it in Hugging Face form.

    Args:
        vocab (`dict`, *optional*, defaults to `byte_vocab`): entries by text, bytes first. Encoding uses only
            the bytes, since there are no merges; further ids only decode.
        model_max_length (`int`, *optional*, defaults to `256`): written into the tokenizer's config, in tokens.
    """
    tokenizer = Qwen2Tokenizer(
        vocab=byte_vocab() if vocab is None else vocab,
        merges=[],
        unk_token=END_OF_TEXT,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[IM_START],
        model_max_length=model_max_length,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
