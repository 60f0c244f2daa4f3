#!/usr/bin/env python3
"""A random model in the shape of Qwen2.5-Math-1.5B, a tokenizer and problems for it: for timing, without any download.

    python scripts/gpu/random_model.py --out runs/gpu            # runs/gpu/model (3 GB), runs/gpu/data

On the CPU the tests write a small one, load it in transformers, and train it.

Random weights sample every token of the vocabulary about equally often, so the tokenizer decides what a response looks
like. A prompt's text is tokenized byte by byte. Of the ids that occur only in responses, one in --answer-tokens closes
a brace, one in --box-every opens a \\boxed{, and the others are numbers. Nearly every response then has a box of about
--answer-tokens tokens near its end, which ISPO finds and scores without its trace: as many extra rows, of prompt and
answer only, as in a real run. The values of the signals on such answers mean nothing, no answer is correct, and every
response has full length if actor_rollout_ref.rollout.ignore_eos=true.

Timings with it stand for a real model's at the same lengths. They do not show what depends on content: the length of
responses, the scorer's work, how many prompt tokens rollouts share. Exit status 2: an invalid option.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from verl_ispo.command_line import run_command
from verl_ispo.preflight.model_shape import SHIPPED_SHAPES
from verl_ispo.tiny_task.tokenizer import build_tokenizer, byte_vocab
from verl_ispo.user_error import UserError

SHAPE = "Qwen--Qwen2.5-Math-1.5B"
# What train.sh extends Qwen2.5-Math to (verl_ispo/config/base_model), so that it makes no copy.
POSITIONS, ROPE_THETA = 6144, 15000.0
SPECIAL_TOKENS = 3


def sampled_texts(first_id: int, last_id: int, answer_tokens: int, box_every: int) -> list[str]:
    """Text of each id that occurs in no prompt; all differ, as a tokenizer's entries must.

    Args:
        first_id (`int`), last_id (`int`): the ids, the last one excluded.
        answer_tokens (`int`): one id in this many closes a brace.
        box_every (`int`): one id in this many opens a box.
    """
    texts = []
    for token_id in range(first_id, last_id):
        if token_id % box_every == 0:
            texts.append(f"{token_id}\\boxed{{")
        elif token_id % answer_tokens == 1:
            texts.append(f"{token_id}}}")  # with a number before the brace, so that no box is empty
        else:
            texts.append(str(token_id))
    return texts


def build_wide_tokenizer(vocab_size: int, answer_tokens: int, box_every: int, max_length: int) -> Qwen2Tokenizer:
    """The tiny task's byte-level tokenizer with an entry for every id of a large vocabulary."""
    vocab = byte_vocab()
    texts = sampled_texts(len(vocab), vocab_size - SPECIAL_TOKENS, answer_tokens, box_every)
    vocab |= {text: token_id for token_id, text in enumerate(texts, start=len(vocab))}
    return build_tokenizer(vocab, max_length)


def build_random_model(
    shape: dict[str, object], tokenizer: PreTrainedTokenizerBase, seed: int, changes: dict[str, int]
) -> Qwen2ForCausalLM:
    """The model in bfloat16, on the CPU.

    Args:
        shape (`dict`): content of a config.json.
        tokenizer: gives the special tokens' ids.
        seed (`int`): of the weights.
        changes (`dict`): sizes that replace the shape's own.
    """
    sizes = {key: value for key, value in shape.items() if key != "rope_theta"} | changes
    sizes["max_position_embeddings"] = max(POSITIONS, int(sizes["max_position_embeddings"]))
    config = Qwen2Config(
        **sizes,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="bfloat16",
    )
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(config).to(torch.bfloat16)


def made_problems(rows: int, prompt_bytes: int, seed: int) -> list[dict[str, object]]:
    """Sums to add up, in prompts of 0.5 to 1.5 times `prompt_bytes` bytes; columns as data_prep writes them."""
    draw = random.Random(seed)
    problems = []
    for row in range(rows):
        numbers: list[int] = []
        wanted = draw.randint(prompt_bytes // 2, prompt_bytes * 3 // 2)
        while not numbers or len(prompt_of(numbers)) < wanted:
            numbers.append(draw.randint(10, 99))
        problems.append(
            {
                "data_source": "made_sums",
                "prompt": [{"role": "user", "content": prompt_of(numbers)}],
                "ability": "math",
                "reward_model": {"style": "rule", "ground_truth": str(sum(numbers))},
                "extra_info": {"index": row},
            }
        )
    return problems


def prompt_of(numbers: Sequence[int]) -> str:
    """The text of one problem."""
    return f"Add: {' + '.join(map(str, numbers))}. Put the final answer within \\boxed{{}}.\n"


def write_problems(path: Path, problems: list[dict[str, object]]) -> None:
    """Rows as parquet."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(problems), path)


def write_model_and_data(options: argparse.Namespace) -> None:
    """Write both into ``options.out``.

    Raises:
        UserError: invalid sizes.
    """
    if min(options.answer_tokens, options.box_every // 4, options.prompt_bytes // 128, options.rows) < 1:
        raise UserError("give at least --answer-tokens 1, --box-every 4, --prompt-bytes 128, --rows 1")
    shape = json.loads((SHIPPED_SHAPES / f"{SHAPE}.json").read_text(encoding="utf-8"))
    try:
        changes = {key: int(number) for key, number in (given.split("=") for given in options.size)}
    except ValueError as error:
        raise UserError(f"--size {' '.join(options.size)}: give KEY=NUMBER, such as num_hidden_layers=2") from error
    if unknown := sorted(changes.keys() - shape.keys()):
        raise UserError(f"--size {unknown[0]}: config.json has {', '.join(sorted(shape))}")

    vocab_size = changes.get("vocab_size", shape["vocab_size"])
    if options.tokenizer:
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer, local_files_only=True)
        if len(tokenizer) > vocab_size:
            raise UserError(
                f"--tokenizer {options.tokenizer} has {len(tokenizer)} ids, the model {vocab_size}; give a larger "
                "vocab_size in --size, or a smaller tokenizer"
            )
    else:
        tokenizer = build_wide_tokenizer(vocab_size, options.answer_tokens, options.box_every, POSITIONS)
    model = build_random_model(shape, tokenizer, options.seed, changes)
    model.save_pretrained(options.out / "model")
    tokenizer.save_pretrained(options.out / "model")
    (options.out / "data").mkdir(exist_ok=True)
    write_problems(options.out / "data/train.parquet", made_problems(options.rows, options.prompt_bytes, options.seed))
    write_problems(options.out / "data/heldout.parquet", made_problems(16, options.prompt_bytes, options.seed + 1))
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{options.out / 'model'}: {count / 1e6:.1f} M random parameters, {vocab_size} tokens, {POSITIONS} positions")
    print(f"{options.out / 'data'}: {options.rows} problems, {options.prompt_bytes} bytes each on average")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for model/ and data/")
    parser.add_argument(
        "--tokenizer", help="a local tokenizer instead, whose ids fit the model; boxes then occur by chance only"
    )
    parser.add_argument(
        "--answer-tokens", type=int, default=8, help="approximate tokens of an answer (default: %(default)s)"
    )
    parser.add_argument("--box-every", type=int, default=128, help="tokens between two boxes (default: %(default)s)")
    parser.add_argument("--prompt-bytes", type=int, default=256, help="mean bytes per prompt (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=1024, help="training problems (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and problems (default: %(default)s)")
    parser.add_argument(
        "--size",
        nargs="*",
        default=[],
        metavar="KEY=NUMBER",
        help="sizes that replace those of config.json, for a small model",
    )
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: write_model_and_data(options))


if __name__ == "__main__":
    sys.exit(main())
