"""Greedy accuracy of a tiny model on the held-out problems, and how its responses look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from verl_ispo.tiny_task.problems import LEVELS, Problem
from verl_ispo.tiny_task.reward import compute_score

MAX_NEW_TOKENS = 96  # the longest worked response of level 6 has 73 characters


def greedy_responses(
    model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, questions: Sequence[str], max_new_tokens: int = MAX_NEW_TOKENS
) -> list[str]:
    """Decode one greedy response for each question, all in one batch."""
    batch = tokenizer.apply_chat_template(
        [[{"role": "user", "content": question}] for question in questions],
        add_generation_prompt=True,
        padding=True,
        return_dict=True,
        return_tensors="pt",
        tokenizer_kwargs={"padding_side": "left"},
    )
    with torch.inference_mode():
        output = model.generate(**batch, do_sample=False, max_new_tokens=max_new_tokens)
    return tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def evaluate(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, problems: Sequence[Problem]) -> dict[str, Any]:
    """Score greedy responses; gives counts by level and the shares of responses with a trace and without an answer."""
    model.eval()
    responses = greedy_responses(model, tokenizer, [problem.question for problem in problems])
    correct: dict[int, int] = dict.fromkeys(sorted({problem.level for problem in problems}), 0)
    for problem, response in zip(problems, responses, strict=True):
        correct[problem.level] += compute_score("warm_start", response, str(problem.answer))["acc"]
    by_level = {
        str(level): {"correct": count, "problems": sum(problem.level == level for problem in problems)}
        for level, count in correct.items()
    }
    before_box = [response.partition("\\boxed{") for response in responses]
    return {
        "accuracy": sum(entry["correct"] / entry["problems"] for entry in by_level.values()) / len(by_level),
        "by_level": by_level,
        "trace_share": sum(bool(trace.strip()) for trace, _, _ in before_box) / len(responses),
        "answer_missing_rate": sum(not box for _, box, _ in before_box) / len(responses),
        "examples": {
            problem.question: response for problem, response in list(zip(problems, responses, strict=True))[::50]
        },
    }


def format_report(held_out: dict[str, Any]) -> str:
    """The held-out accuracy by level and the share of traces, as a few lines of text."""
    lines = [f"Greedy accuracy on held-out problems: {held_out['accuracy']:.3f} (mean over levels)"]
    for name, entry in held_out["by_level"].items():
        level = LEVELS[int(name)]
        lines.append(
            f"  level {name} ({level.terms} operands up to {level.largest_operand}): "
            f"{entry['correct'] / entry['problems']:.2f} ({entry['correct']} of {entry['problems']})"
        )
    lines.append(f"Greedy responses with a trace: {held_out['trace_share']:.0%}")
    lines.append(f"Greedy responses without an answer: {held_out['answer_missing_rate']:.0%}")
    return "\n".join(lines)
