r"""A few supervised steps that teach a pretrained model to end in a ``\boxed{}``, by transformers' trainer.

    python -m verl_ispo.real_model.fine_tuning --model runs/real_model/smollm2 --out runs/real_model/start \
        --lessons runs/real_model/data/lessons.jsonl --steps 12

Without an answer form every group of rollouts is without a correct one, and no method has anything to learn from. The
loss is on the worked solution and the end of its turn alone. On a GPU where there is one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from verl_ispo.command_line import run_command
from verl_ispo.launch.option_checks import check_from_one
from verl_ispo.user_error import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBLEMS_PER_STEP = 16
LEARNING_RATE = 3e-5
NO_LOSS = -100
"""The label that PyTorch's cross entropy leaves out."""


def lesson_tokens(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]]) -> dict[str, list[int]]:
    """A conversation as token ids and labels; the last message is what the model is to say.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): with a chat template.
        messages (`Sequence[dict[str, str]]`): the last one is the assistant's.

    Returns:
        ``input_ids`` and ``labels``, `NO_LOSS` on the prompt.
    """
    text = tokenizer.apply_chat_template(list(messages[:-1]), add_generation_prompt=True, tokenize=False)
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    solution = tokenizer(messages[-1]["content"], add_special_tokens=False)["input_ids"]
    solution = [*solution, tokenizer.eos_token_id]
    return {"input_ids": [*prompt, *solution], "labels": [NO_LOSS] * len(prompt) + solution}


def fine_tune(model: str, lessons: Path, out: Path, steps: int, seed: int) -> None:
    """Fine-tune a model and write it; a folder that is there is left as it is.

    Args:
        model (`str`): folder or hub id.
        lessons (`Path`): JSON Lines with the key ``messages``.
        out (`Path`): appears when it is complete.
        steps (`int`): of `PROBLEMS_PER_STEP` problems each.
        seed (`int`): of their order.

    Raises:
        UserError: the tokenizer has no chat template or no end of sequence, or there are too few lessons.
    """
    if (out / "config.json").is_file():
        return
    conversations = [json.loads(line)["messages"] for line in lessons.read_text(encoding="utf-8").splitlines()]
    if len(conversations) < PROBLEMS_PER_STEP:
        raise UserError(f"{lessons}: {len(conversations)} lessons; give at least {PROBLEMS_PER_STEP}")
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _train(model, conversations, building, steps, seed)
        building.chmod(0o755)  # the temporary folder is readable by its user alone
        building.replace(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _train(model: str, conversations: Sequence[Sequence[dict[str, str]]], out: Path, steps: int, seed: int) -> None:
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(model)
    for name, found in (("chat template", tokenizer.chat_template), ("end of sequence", tokenizer.eos_token)):
        if not found:
            raise UserError(f"{model}: its tokenizer has no {name}; take an instruct model, or SFT_STEPS=0")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # as verl does; labels of padding come from elsewhere
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    arguments = TrainingArguments(
        output_dir=str(out / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=PROBLEMS_PER_STEP,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        seed=seed,
        save_strategy="no",
        logging_steps=max(1, steps // 4),
        report_to=[],
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = Trainer(
        model=policy,
        args=arguments,
        train_dataset=[lesson_tokens(tokenizer, messages) for messages in conversations],
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=NO_LOSS),
    )
    trainer.train()
    policy.save_pretrained(out)
    tokenizer.save_pretrained(out)
    shutil.rmtree(out / "trainer", ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m verl_ispo.real_model.fine_tuning",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="folder or hub id")
    parser.add_argument("--lessons", type=Path, required=True, help="JSON Lines with the key messages")
    parser.add_argument("--out", type=Path, required=True, help="folder of the fine-tuned model")
    parser.add_argument("--steps", type=int, default=12, help=f"of {PROBLEMS_PER_STEP} problems (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order (default: %(default)s)")
    given = parser.parse_args(argv)

    def work() -> None:
        check_from_one("STEPS", given.steps)
        fine_tune(given.model, given.lessons, given.out, given.steps, given.seed)
        print(given.out)

    return run_command(parser.prog, work)


if __name__ == "__main__":
    sys.exit(main())
