"""Accuracy of a tiny model on the held-out problems, greedy and sampled, and how its responses look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from verl_ispo.answers.answer_place import find_answer
from verl_ispo.tiny_task.problems import LEVELS, Problem
from verl_ispo.tiny_task.reward import compute_score

MAX_NEW_TOKENS = 96  # the longest worked response of level 6 has 73 characters


def generate_responses(
    model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, questions: Sequence[str], sample_seed: int | None
) -> list[str]:
    """Generate one response for each question, all in one batch.

    Args:
        model (`Qwen2ForCausalLM`): in evaluation mode.
        tokenizer (`Qwen2Tokenizer`): its chat template makes the prompts.
        questions (`Sequence[str]`): what the user asks.
        sample_seed (`int`, *optional*): `None` decodes greedily; a seed samples at temperature 1 from all tokens, as
            the rollouts of the training do, and does not change the caller's random state.
    """
    batch = tokenizer.apply_chat_template(
        [[{"role": "user", "content": question}] for question in questions],
        add_generation_prompt=True,
        padding=True,
        return_dict=True,
        return_tensors="pt",
        tokenizer_kwargs={"padding_side": "left"},
    )
    sampling = {"do_sample": False} if sample_seed is None else {"do_sample": True, "temperature": 1.0, "top_k": 0}
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        if sample_seed is not None:
            torch.manual_seed(sample_seed)
        output = model.generate(**batch, **sampling, max_new_tokens=MAX_NEW_TOKENS)
    return tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def score_responses(problems: Sequence[Problem], responses: Sequence[str]) -> dict[str, Any]:
    """Count the correct responses by level, and the shares of responses with a trace and without an answer.

    Returns:
        `dict`: ``accuracy`` (mean over the levels), ``by_level``, ``trace_share`` (some text before the answer),
        ``answer_missing_rate`` (no answer), and one example of each level.
    """
    by_level: dict[str, dict[str, int]] = {}
    examples: dict[str, str] = {}
    for problem, response in zip(problems, responses, strict=True):
        entry = by_level.setdefault(str(problem.level), {"correct": 0, "problems": 0})
        entry["problems"] += 1
        entry["correct"] += compute_score("held_out", response, str(problem.answer))["acc"]
        if entry["problems"] == 1:
            examples[problem.question] = response
    answers = [find_answer(response) for response in responses]
    traces = [
        response if answer is None else response[: answer.lead_in_start]
        for response, answer in zip(responses, answers, strict=True)
    ]
    return {
        "accuracy": sum(entry["correct"] / entry["problems"] for entry in by_level.values()) / len(by_level),
        "by_level": by_level,
        "trace_share": sum(bool(trace.strip()) for trace in traces) / len(responses),
        "answer_missing_rate": sum(answer is None for answer in answers) / len(responses),
        "examples": examples,
    }


def evaluate(
    model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, problems: Sequence[Problem], sample_seed: int
) -> dict[str, Any]:
    """Score the model on problems, greedily (``greedy``) and by one sample each (``sampled``)."""
    model.eval()
    questions = [problem.question for problem in problems]
    return {
        "greedy": score_responses(problems, generate_responses(model, tokenizer, questions, None)),
        "sampled": score_responses(problems, generate_responses(model, tokenizer, questions, sample_seed)),
    }


def format_report(result: dict[str, Any]) -> str:
    """What `evaluate` found, as a few lines of text."""
    lines = []
    for way in ("greedy", "sampled"):
        found = result[way]
        levels = ", ".join(f"{entry['correct'] / entry['problems']:.2f}" for entry in found["by_level"].values())
        lines.append(
            f"Held-out accuracy, {way}: {found['accuracy']:.3f} (levels {min(LEVELS)} to {max(LEVELS)}: {levels}); "
            f"{found['trace_share']:.0%} with a trace, {found['answer_missing_rate']:.0%} without an answer"
        )
    return "\n".join(lines)
