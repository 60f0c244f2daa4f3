"""Warm up the tiny base model by a short supervised run on worked arithmetic, and save it in Hugging Face form.

    python -m verl_ispo.tiny_task.warm_start --out DIR

Two phases: the model first learns the task mostly with traces, then briefly with most of the traces left out, so that
reinforcement learning starts from a policy that knows how to reason step by step and often does not: there is
something to learn within a few steps, and the policy may also learn to drop the trace for good.

The run takes minutes, shows its progress, and may be killed at any time: started again with the same options it resumes
from its last checkpoint, and once complete it is reused as it is. Beside the model, ``warm_start.json`` holds the
options, the loss, and the accuracy on the held-out problems by level, greedy and sampled.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from verl_ispo.atomic_file import atomic_file
from verl_ispo.command_line import run_command
from verl_ispo.process_lock import take_lock
from verl_ispo.tiny_task.base_model import build_model
from verl_ispo.tiny_task.held_out_evaluation import evaluate, format_report
from verl_ispo.tiny_task.problems import LEVELS, ResponseMix, draw_response, held_out_problems, training_problems
from verl_ispo.tiny_task.tokenizer import build_tokenizer
from verl_ispo.user_error import UserError

RECORD_NAME = "warm_start.json"
CHECKPOINT_NAME = "checkpoint.pt"
LOCK_NAME = "lock"
IGNORED = -100  # label of a position without a loss, as in torch's cross_entropy


@dataclass(frozen=True)
class Phase:
    """One phase of the supervised run: linear warm-up, then a cosine down to a tenth of the learning rate."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    mix: ResponseMix


@dataclass(frozen=True)
class WarmStartOptions:
    """Everything that decides what the warm-started model is.

    Args:
        seed (`int`): of the initialization, the examples and the held-out problems.
        held_out_per_level (`int`): held-out problems of each level, never trained on.
        phases (`tuple[Phase, ...]`): run one after the other, each with a new optimizer.
    """

    seed: int
    held_out_per_level: int
    phases: tuple[Phase, ...]


def default_options(seed: int, held_out_per_level: int, steps: int, short_answer_steps: int) -> WarmStartOptions:
    """The quickstart's warm start, with two phases of the given lengths.

    The share of bare answers in the second phase was set for a greedy held-out accuracy near 0.3, before any
    reinforcement learning. Greedy decoding is sensitive to it, since about half of the examples have no trace:
    a share of 0.50 gave 0.36 to 0.42 and one of 0.55 gave 0.24 to 0.26 over three draws of the examples.
    """
    return WarmStartOptions(
        seed=seed,
        held_out_per_level=held_out_per_level,
        phases=(
            Phase(steps, batch_size=96, learning_rate=4e-3, warmup_steps=50, mix=ResponseMix(no_trace_share=0.05)),
            Phase(
                short_answer_steps,
                batch_size=96,
                learning_rate=1e-3,
                warmup_steps=10,
                mix=ResponseMix(no_trace_share=0.53),
            ),
        ),
    )


def learning_rate_at(phase: Phase, step: int) -> float:
    """Learning rate of one step (0-based) of a phase."""
    if step < phase.warmup_steps:
        return phase.learning_rate * (step + 1) / phase.warmup_steps
    progress = (step - phase.warmup_steps) / max(1, phase.steps - phase.warmup_steps)
    return phase.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))


def encode_examples(
    questions: Sequence[str], responses: Sequence[str], tokenizer: Qwen2Tokenizer
) -> list[tuple[list[int], int]]:
    """Tokenize worked examples; gives token ids (prompt, response, end of sequence) and the prompt's length."""
    prompts = [tokenizer.apply_chat_template([{"role": "user", "content": q}], return_dict=False) for q in questions]
    answers = tokenizer(list(responses))["input_ids"]
    return [
        (prompt + answer + [tokenizer.eos_token_id], len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def to_tensors(examples: Sequence[tuple[list[int], int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad examples on the right; gives ``input_ids`` and ``labels``, both (batch, length) int64, prompts unlabelled."""
    ids = [torch.tensor(ids) for ids, _ in examples]
    targets = [row.clone() for row in ids]
    for row, (_, prompt_length) in zip(targets, examples, strict=True):
        row[:prompt_length] = IGNORED
    return pad_sequence(ids, batch_first=True, padding_value=pad_id), pad_sequence(targets, True, IGNORED)


def token_loss_sum(model: Qwen2ForCausalLM, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of the response tokens' negative log-likelihoods, in nats. Padding on the right needs no attention mask."""
    hidden = model.model(input_ids=input_ids, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    kept = targets != IGNORED
    return functional.cross_entropy(model.lm_head(hidden[kept]), targets[kept], reduction="sum")


def draw_examples(
    options: WarmStartOptions, phase_index: int, step: int, excluded: frozenset[str], tokenizer: Qwen2Tokenizer
) -> list[tuple[list[int], int]]:
    """Draw the worked examples of one step from a seed for that step, so that a resumed run sees the same ones."""
    phase = options.phases[phase_index]
    rng = random.Random(f"warm-start/{options.seed}/{phase_index}/{step}")
    problems = list(islice(training_problems(sorted(LEVELS), rng, excluded), phase.batch_size))
    responses = [draw_response(problem, phase.mix, rng) for problem in problems]
    return encode_examples([problem.question for problem in problems], responses, tokenizer)


def train_step(
    model: Qwen2ForCausalLM,
    optimizer: torch.optim.Optimizer,
    examples: list[tuple[list[int], int]],
    pad_id: int,
    slices: int = 4,
) -> float:
    """Take one optimizer step; returns the mean loss per response token in nats.

    Sorted by length and cut into ``slices``, a batch needs about half of the positions that padding it to its longest
    example would take; the gradient is that of the whole batch.
    """
    ordered = sorted(examples, key=lambda example: len(example[0]))
    tokens = sum(len(ids) - prompt_length for ids, prompt_length in ordered)
    size = math.ceil(len(ordered) / slices)
    loss_sum = 0.0
    optimizer.zero_grad()
    for start in range(0, len(ordered), size):
        loss = token_loss_sum(model, *to_tensors(ordered[start : start + size], pad_id)) / tokens
        loss.backward()
        loss_sum += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss_sum


def new_optimizer(model: Qwen2ForCausalLM) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.1)


def as_json(options: WarmStartOptions) -> dict[str, Any]:
    """The options as they read back from JSON, so that they can be compared with a record."""
    return json.loads(json.dumps(dataclasses.asdict(options)))


def describe_difference(recorded: Any, wanted: Any, name: str = "") -> list[str]:
    """List where two JSON values differ, as ``phases.0.steps: recorded 700, wanted 500``."""
    if isinstance(recorded, list) and isinstance(wanted, list) and len(recorded) == len(wanted):
        recorded, wanted = dict(enumerate(recorded)), dict(enumerate(wanted))
    if isinstance(recorded, dict) and isinstance(wanted, dict):
        return [
            line
            for key in sorted({*recorded, *wanted}, key=str)
            for line in describe_difference(recorded.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if recorded == wanted else [f"{name}: recorded {recorded!r}, wanted {wanted!r}"]


def read_complete(out: Path, options: WarmStartOptions) -> dict[str, Any] | None:
    """Return the record of a complete warm start in ``out``, or `None` if there is nothing there.

    Raises:
        UserError: if ``out`` holds something else, or a warm start made with other options.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    record_path = out / RECORD_NAME
    try:
        record = json.loads(record_path.read_text(encoding="utf-8"))
        recorded = record["options"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{out} exists but holds no readable {RECORD_NAME} ({error!r}); choose another --out or remove it"
        ) from error
    difference = describe_difference(recorded, as_json(options))
    if difference:
        raise UserError(
            f"{out} holds a warm start made with other options ({'; '.join(difference)}); "
            "choose another --out, give the recorded options, or remove that folder to make it again"
        )
    return record


def load_checkpoint(path: Path, options: WarmStartOptions) -> dict[str, Any] | None:
    """Load a checkpoint if there is one with the same options; prints a line if not."""
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True)
    difference = describe_difference(state["options"], as_json(options))
    if difference:
        print(f"The unfinished warm start in {path.parent} had other options ({'; '.join(difference)}): starting over.")
        return None
    print(f"Resuming from {path}: phase {state['phase'] + 1}, step {state['step']}.")
    return state


def train(
    options: WarmStartOptions,
    tokenizer: Qwen2Tokenizer,
    excluded: frozenset[str],
    checkpoint_path: Path,
    checkpoint_every: int,
) -> tuple[Qwen2ForCausalLM, dict[str, Any]]:
    """Run all phases from the last checkpoint on.

    A plain loop and not a library's trainer: that of transformers orders the data, averages a batch and decays the
    weights differently, so a seed would give a different model.

    Args:
        options (`WarmStartOptions`): what to train.
        tokenizer (`Qwen2Tokenizer`): encodes the examples.
        excluded (`frozenset[str]`): held-out questions.
        checkpoint_path (`Path`): the run resumes from it, if the file exists.
        checkpoint_every (`int`): steps between two checkpoints.

    Returns:
        `tuple`: the model, and ``{"train_time_s": float, "loss": list}``, the mean loss of each phase's last 20 steps.
    """
    model = build_model(tokenizer, options.seed).train()
    optimizer = new_optimizer(model)
    schedule = [(index, step) for index, phase in enumerate(options.phases) for step in range(phase.steps)]
    done, train_time_s, losses = 0, 0.0, [[] for _ in options.phases]
    if state := load_checkpoint(checkpoint_path, options):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = sum(phase.steps for phase in options.phases[: state["phase"]]) + state["step"]
        train_time_s, losses = state["train_time_s"], state["losses"]
    started = time.perf_counter() - train_time_s
    progress = tqdm(schedule[done:], "Warm start", len(schedule), initial=done, unit="step", mininterval=1.0)
    for phase_index, step in progress:
        phase = options.phases[phase_index]
        if step == 0:
            optimizer = new_optimizer(model)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(phase, step)
        examples = draw_examples(options, phase_index, step, excluded, tokenizer)
        loss = train_step(model, optimizer, examples, tokenizer.pad_token_id)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {step} of phase {phase_index + 1}; nothing was written after "
                f"the last checkpoint ({checkpoint_path}). Lower the learning rate."
            )
        losses[phase_index] = [*losses[phase_index][-19:], loss]
        progress.set_postfix(phase=phase_index + 1, loss=f"{loss:.3f}", refresh=False)
        if (step + 1) % checkpoint_every == 0 or step + 1 == phase.steps:
            checkpoint = {
                "options": as_json(options),
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "phase": phase_index,
                "step": step + 1,
                "train_time_s": time.perf_counter() - started,
                "losses": losses,
            }
            with atomic_file(checkpoint_path) as file:
                torch.save(checkpoint, file)
    return model, {
        "train_time_s": round(time.perf_counter() - started, 1),
        "loss": [sum(tail) / len(tail) if tail else None for tail in losses],
    }


@contextmanager
def exclusive(out: Path) -> Iterator[Path]:
    """Give the work folder of ``out`` to one process at a time, and remove it afterwards if it is empty.

    Raises:
        UserError: if another process is using it.
    """
    work = out.parent / f".{out.name}.unfinished"
    work.mkdir(parents=True, exist_ok=True)
    with take_lock(work / LOCK_NAME, out, "making it", "choose another --out"):
        try:
            yield work
        finally:
            (work / LOCK_NAME).unlink(missing_ok=True)
            with suppress(OSError):  # not empty: a checkpoint to resume from
                work.rmdir()


def publish(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, record: dict[str, Any], work: Path, out: Path) -> None:
    """Write the complete folder under a temporary name and rename it to ``out``."""
    complete = work / "complete"
    shutil.rmtree(complete, ignore_errors=True)
    model.save_pretrained(complete)
    tokenizer.save_pretrained(complete)
    (complete / RECORD_NAME).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in complete.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    os.replace(complete, out)
    (work / CHECKPOINT_NAME).unlink(missing_ok=True)  # there is none after a run of 0 steps


def warm_start(out: Path, options: WarmStartOptions, checkpoint_every: int = 50) -> dict[str, Any]:
    """Make the warm-started model in ``out``, or reuse the one that is there.

    Args:
        out (`Path`): folder of the model, the tokenizer and ``warm_start.json``. It appears when it is complete.
        options (`WarmStartOptions`): what to train; a folder made with other options is an error.
        checkpoint_every (`int`, *optional*, defaults to `50`): steps between two checkpoints.

    Returns:
        `dict`: the record, as written to ``warm_start.json``.

    Raises:
        UserError: if ``out`` holds something else, or another process is making it.
    """
    held_out = held_out_problems(options.seed, options.held_out_per_level)
    with exclusive(out) as work:
        record = read_complete(out, options)
        if record is not None:
            print(f"Reusing the warm start in {out}.")
            return record
        excluded = frozenset(problem.question for problem in held_out)
        tokenizer = build_tokenizer()
        model, training = train(options, tokenizer, excluded, work / CHECKPOINT_NAME, checkpoint_every)
        print(f"Scoring {len(held_out)} held-out problems ...", flush=True)
        record = {
            "options": as_json(options),
            "held_out": evaluate(model, tokenizer, held_out, options.seed),
            **training,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }
        publish(model, tokenizer, record, work, out)
    return record


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m verl_ispo.tiny_task.warm_start",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make; reused if made with the same options")
    parser.add_argument("--steps", type=int, default=700, help="steps with traces (default: %(default)s)")
    parser.add_argument(
        "--short-answer-steps", type=int, default=100, help="steps with 53 %% bare answers (default: %(default)s)"
    )
    parser.add_argument("--held-out-per-level", type=int, default=50, help="default: %(default)s")
    parser.add_argument(
        "--checkpoint-every", type=int, default=50, help="steps between checkpoints (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="give make_data the same seed (default: %(default)s)")
    args = parser.parse_args(argv)

    def work() -> None:
        for name, least in (("steps", 0), ("short_answer_steps", 0), ("checkpoint_every", 1)):
            if getattr(args, name) < least:
                raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: give {least} or more")
        options = default_options(args.seed, args.held_out_per_level, args.steps, args.short_answer_steps)
        record = warm_start(args.out, options, args.checkpoint_every)
        print(format_report(record["held_out"]))

    return run_command(parser.prog, work, "interrupted; the same command resumes from the last checkpoint")


if __name__ == "__main__":
    sys.exit(main())
