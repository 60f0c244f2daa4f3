"""Samples the probe's rollouts as a training does, and grades them; a second start does not sample again."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from verl_ispo.evaluation.grader import Grade, Grader
from verl_ispo.evaluation.prompts import Prompts
from verl_ispo.evaluation.questions import Question
from verl_ispo.evaluation.response_source import ResponseSource
from verl_ispo.evaluation.sampler import Completion
from verl_ispo.evaluation.samples import PlannedSample, SampleLog, plan_samples
from verl_ispo.user_error import UserError

CPU_ROLLOUTS_AT_ONCE = 32
"""So that the bar moves, and a kill costs at most these."""


@dataclass(frozen=True)
class Rollout:
    """One graded response.

    Attributes:
        question: its problem.
        sample_index: number among the rollouts of its prompt.
        prompt_ids, response_ids: token ids; the response's end-of-sequence token is one of them.
        text: the response without special tokens, which was graded.
        cut: whether the length limit ended it.
        grade: what the reward function returned.
    """

    question: Question
    sample_index: int
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    text: str
    cut: bool
    grade: Grade


def choose_questions(questions: Sequence[Question], count: int, seed: int) -> list[Question]:
    """So many problems at random, in the order of the file; all where there are fewer."""
    if len(questions) <= count:
        return list(questions)
    chosen = random.Random(seed).sample(range(len(questions)), count)
    return [questions[index] for index in sorted(chosen)]


def sample_rollouts(
    source: ResponseSource, questions: Sequence[Question], per_prompt: int, temperature: float, seed: int, log: Path
) -> list[tuple[PlannedSample, tuple[int, ...], tuple[int, ...], bool]]:
    """The responses of every prompt: those in the log, and those that are drawn now and put there.

    Args:
        source (`ResponseSource`): model and prompts.
        questions (`Sequence[Question]`).
        per_prompt (`int`): rollouts of each prompt.
        temperature (`float`): the training's.
        seed (`int`): of the sampling.
        log (`Path`): JSON Lines, one response per line; see `verl_ispo.evaluation.samples`.

    Returns:
        `list[tuple]`: what was planned, the prompt's ids, the response's ids and whether it was cut; prompts that fill
        the context are left out.

    Raises:
        UserError: the log cannot be read, or no prompt leaves room for a response.
    """
    prompts = source.prompts
    fitting = [question for question in questions if prompts.response_limit(question) > 0]
    planned = [one for one in plan_samples(fitting, per_prompt, temperature, seed) if one.mode == "sampled"]
    samples = SampleLog(log)
    try:
        missing = [one for one in planned if one.key not in samples]
        if len(missing) < len(planned):
            print(f"{len(planned) - len(missing)} of {len(planned)} rollouts are there already ({log}).", flush=True)
        if missing:
            _sample(source, missing, samples, done=len(planned) - len(missing))
        records = [samples.read(one.key) for one in planned]
    finally:
        samples.close()
    drawn = []
    for one, record in zip(planned, records, strict=True):
        ids = record.get("token_ids")
        if not isinstance(ids, list) or not all(isinstance(token, int) for token in ids):
            raise UserError(f"{log}: the line of {one.key} has no token_ids; remove the file, or give another --out")
        prompt_ids = prompts.request(one, top_p=1.0).prompt_ids
        drawn.append((one, tuple(prompt_ids), tuple(ids), record.get("finish_reason") == "length"))
    return drawn


def _sample(source: ResponseSource, missing: Sequence[PlannedSample], log: SampleLog, done: int) -> None:
    sampler = source.load()
    requests = [source.prompts.request(one, top_p=1.0) for one in missing]
    at_once = CPU_ROLLOUTS_AT_ONCE if source.sampler["name"] == "cpu" else len(requests)
    with tqdm(
        total=done + len(missing),
        initial=done,
        unit="rollout",
        desc="Sampling",
        mininterval=1.0 if sys.stderr.isatty() else 10.0,
        smoothing=0.05,
    ) as progress:
        for start in range(0, len(requests), at_once):
            for batch in sampler(requests[start : start + at_once]):
                log.append([_record(missing[start + index], completion) for index, completion in batch])
                progress.update(len(batch))
    # A vLLM engine holds most of a GPU's memory, which scoring needs next.
    del sampler
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _record(planned: PlannedSample, completion: Completion) -> dict[str, object]:
    benchmark, question_id, mode, sample_index = planned.key
    return {
        "benchmark": benchmark,
        "question_id": question_id,
        "mode": mode,
        "sample_index": sample_index,
        "seed": planned.seed,
        "token_ids": list(completion.token_ids or ()),
        "finish_reason": completion.finish_reason,
    }


def graded(
    drawn: Sequence[tuple[PlannedSample, tuple[int, ...], tuple[int, ...], bool]], prompts: Prompts, grader: Grader
) -> list[Rollout]:
    """Grade every response with the training's reward function."""
    texts = [prompts.text(Completion("stop", tokens=len(ids), token_ids=ids)) for _planned, _prompt, ids, _cut in drawn]
    grades = grader.grade_all([(one[0].question, text) for one, text in zip(drawn, texts, strict=True)])
    return [
        Rollout(planned.question, planned.sample_index, prompt_ids, ids, text, cut, grade)
        for (planned, prompt_ids, ids, cut), text, grade in zip(drawn, texts, grades, strict=True)
    ]
