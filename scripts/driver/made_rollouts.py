r"""A tokenizer of Qwen2.5's size and rollouts in its tokens, made without any download.

The tokenizer is a byte-level BPE in Qwen2.5's form: 151,643 entries, of which the first 256 are single bytes, and the
special tokens behind them. Its words are made up, but those of :data:`WORDS` are whole tokens, as they are there.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

VOCABULARY = 151_643
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END = "<|im_end|>"
WORDS = (
    r" \ frac boxed sqrt { } }{ }$ $ ( ) = + - * , . : ; .\n \n \n\n :\n\n ^ _ ## ### #### the The answer Answer final "
    r"Final is so So we We get and of to that Therefore thus box boxes words answers ** Step step é 語 — ≥"
)
# in made-up words these would be far more frequent than in a language's
RARE = ("ox", "sw")
LINES = (
    "So we get $\\frac{{{a}}}{{{b}}} = {c}$.\n",
    "Therefore, {w} {v} of {w} is ${a} + {b}_{{{c}}}$, and {v} {w}.\n",
    "{w} {v} {w} {v} {w} {v}, so that {w} = {a}.\n\n",
    "### Step {a}: {w} {v}\n",
    "We {w} the {v}: $\\sqrt{{{a}}} - \\{{{b}, {c}\\}}$\n",
    "é 語 {w} — {v} ≥ {a}\n",
)
MENTIONS = (
    "The answer to this part is not yet what we want.\n",
    "Put it in a box later, \\boxed{{}} at the end.\n",
    "#### {w}\n",
    "so the answer is then found by {w} {v} of {w} {v} the {w} of all {v}\n",
)
ANSWERS = (
    ("So the result is $\\boxed{{\\frac{{{a}}}{{{b}}}}}$.", 6),
    ("Therefore \\boxed{{{c}}}.", 2),
    ("Answer: {c}", 1),
    ("#### {c}", 1),
)


@dataclass(frozen=True)
class MadeRollouts:
    """Token ids of rollouts.

    Attributes:
        prompts, responses (`list[np.ndarray]`): token ids, int64.
        correct (`np.ndarray`): verdicts, bool.
    """

    prompts: list[np.ndarray]
    responses: list[np.ndarray]
    correct: np.ndarray


def made_tokenizer(seed: int = 0) -> PreTrainedTokenizerFast:
    """A tokenizer of the size of Qwen2.5's, whose words are made up."""
    rng = random.Random(seed)
    letters = pre_tokenizers.ByteLevel.alphabet()
    spelled = {byte: byte for byte in sorted(letters)}
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def entry(text: str) -> str:
        return "".join(piece for piece, _ in to_bytes.pre_tokenize_str(text))

    entries = dict.fromkeys(spelled)
    for word in WORDS.split(" "):
        text = word.replace("\\n", "\n")
        entries.update(dict.fromkeys((entry(text), entry(" " + text))))
    while len(entries) < VOCABULARY:
        word = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9)))
        if any(pair in word for pair in RARE):
            continue
        entries[entry(rng.choice(("", " ", " ")) + rng.choice((word, word.capitalize())))] = None
    vocabulary = {text: number for number, text in enumerate(entries)}
    bpe = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, pad_token=SPECIAL[0], additional_special_tokens=list(SPECIAL[1:])
    )


def read_tokenizer(path: Path | None) -> PreTrainedTokenizerFast:
    """The tokenizer in a folder, or the made one."""
    return made_tokenizer() if path is None else AutoTokenizer.from_pretrained(path)


def made_rollouts(
    tokenizer: PreTrainedTokenizerFast, rollouts: int, tokens: int, group: int, answered: float, seed: int
) -> MadeRollouts:
    """Rollouts of 25 to 100 % of the length, in prose with formulas.

    Args:
        tokenizer (`PreTrainedTokenizerFast`).
        rollouts, tokens, group (`int`): how many, their greatest length, and how many share a prompt.
        answered (`float`): share that ends with an answer, in [0, 1]; the others are cut off. One line in a hundred
            mentions an answer or a box without giving one.
        seed (`int`).
    """
    rng, numbers, size = random.Random(seed), np.random.default_rng(seed), len(tokenizer)
    words = [
        text for text in tokenizer.batch_decode([[token] for token in range(1000, 9000)]) if text.strip().isalpha()
    ]

    def filled(line: str) -> str:
        draw = {name: str(rng.randint(1, 999)) for name in "abc"}
        return line.format(**draw, w=rng.choice(words).strip(), v=rng.choice(words).strip())

    def encoded(line: str) -> list[int]:
        return tokenizer.encode(filled(line), add_special_tokens=False)

    def line() -> list[int]:
        if rng.random() < 0.01:
            return encoded(rng.choice(MENTIONS))
        # words of the whole vocabulary, since a policy's texts use most of it
        rare = numbers.integers(1000, size - 1000, 6).tolist() if rng.random() < 0.3 else []
        return [*rare, *encoded(rng.choice(LINES))]

    stream: list[int] = []
    starts: list[int] = []
    while len(stream) < max(100_000, 4 * tokens):
        starts.append(len(stream))
        stream += line()
    prose, last_start = np.array(stream, dtype=np.int64), len(stream) - tokens
    begins = np.array([start for start in starts if start <= last_start])
    forms = [form for form, weight in ANSWERS for _ in range(weight)]
    prompts, responses = [], []
    for row in range(rollouts):
        length = max(32, int(tokens * numbers.uniform(0.25, 1.0)))
        tail: list[int] = []
        if rng.random() < answered:
            tail = [*encoded("\n" + rng.choice(forms)), tokenizer.eos_token_id]
        begin = int(numbers.choice(begins))
        responses.append(np.concatenate([prose[begin : begin + length - len(tail)], np.array(tail, dtype=np.int64)]))
        if row % group == 0:
            start = int(numbers.choice(begins))
            prompt = prose[start : start + min(tokens, int(numbers.integers(64, 256)))]
        prompts.append(prompt)
    return MadeRollouts(prompts, responses, numbers.random(rollouts) < 0.5)
