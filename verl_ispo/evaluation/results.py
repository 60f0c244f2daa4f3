"""Reads what ``verl-ispo eval`` has written: labels, problems and grades of one evaluated checkpoint."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_ispo.evaluation.grader import UNDECIDED
from verl_ispo.evaluation.manifest import read_manifest
from verl_ispo.evaluation.samples import LogProbs, read_samples
from verl_ispo.user_error import UserError

SAMPLES_NAME = "samples.jsonl"
QUESTIONS_NAME = "questions.jsonl"
SETTINGS_NAME = "settings.json"
"""In a folder of several evaluations (`verl_ispo.evaluation.settings_grid`)."""


@dataclass(frozen=True)
class SampleCounts:
    """How the samples of a benchmark ended.

    Attributes:
        samples: all of them, greedy and sampled.
        truncated: cut off by the token limit.
        prompt_too_long: not sampled, since the prompt fills the context.
        no_answer: the grader found no answer in it.
        undecided: the grader ran into a time-out or an error; counted as incorrect.
    """

    samples: int
    truncated: int
    prompt_too_long: int
    no_answer: int
    undecided: int


@dataclass(frozen=True)
class ProblemResult:
    """One problem: what it is, how its samples were graded, in the order of their index; tokens of each response."""

    question_id: str
    ground_truth: Any
    prompt_sha256: str
    greedy: bool
    sampled: tuple[bool, ...]
    predictions: tuple[str | None, ...]
    greedy_log_probs: LogProbs
    log_probs: tuple[LogProbs, ...]
    greedy_tokens: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class BenchmarkResult:
    """One benchmark of one evaluated checkpoint."""

    name: str
    problems: tuple[ProblemResult, ...]
    counts: SampleCounts


@dataclass(frozen=True)
class EvaluationResult:
    """One result folder.

    Attributes:
        folder: where it was read.
        manifest: see `verl_ispo.evaluation.manifest`.
        benchmarks: by name; empty if the evaluation is not finished.
        finished: whether all samples are there.
    """

    folder: Path
    manifest: Mapping[str, Any]
    benchmarks: Mapping[str, BenchmarkResult]
    finished: bool

    @property
    def base_model(self) -> str:
        """Label: which model the training started from."""
        return str(self.manifest["labels"]["base_model"])

    @property
    def method(self) -> str:
        """Label: what it was trained with."""
        return str(self.manifest["labels"]["method"])

    @property
    def training_seed(self) -> int | None:
        """Label: seed of the training run."""
        return self.manifest["labels"]["training_seed"]

    @property
    def planned_benchmarks(self) -> list[str]:
        """The benchmarks that the evaluation consists of, finished or not."""
        return list(self.manifest["inputs"]["benchmarks"])


def load_result(folder: Path) -> EvaluationResult:
    """Read one result folder.

    Raises:
        UserError: if it was not written by ``verl-ispo eval``, or samples are missing, doubled or malformed.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give folders that verl-ispo eval has written")
    if (folder / SETTINGS_NAME).is_file():
        raise UserError(
            f"{folder}: holds evaluations at several settings; give it to --sensitivity, and not as RESULTS"
        )
    manifest = read_manifest(folder)
    if not (folder / SAMPLES_NAME).is_file():
        return EvaluationResult(folder, manifest, {}, finished=False)
    samples: dict[tuple[str, str], dict[tuple[str, int], tuple[bool, str | None, LogProbs, int]]] = {}
    counts: dict[str, Counter[str]] = {}
    for record in read_samples(folder / SAMPLES_NAME):
        of_problem = samples.setdefault((record["benchmark"], record["question_id"]), {})
        key = (record["mode"], record["sample_index"])
        if key in of_problem:
            raise UserError(f"{folder / SAMPLES_NAME}: {record['question_id']} has sample {key} twice; remove one")
        log_probs = LogProbs(record["response_log_prob"], record["answer_log_prob"])
        of_problem[key] = (record["correct"], record["prediction"], log_probs, record["tokens"])
        counts.setdefault(record["benchmark"], Counter()).update(
            {
                "samples": 1,
                "truncated": record["finish_reason"] == "length",
                "prompt_too_long": record["finish_reason"] == "prompt_too_long",
                "no_answer": record["status"] == "no_answer",
                "undecided": record["status"] in UNDECIDED,
            }
        )
    drawn = int(manifest["options"]["n"])
    expected = {("greedy", 0), *(("sampled", index) for index in range(drawn))}
    problems: dict[str, list[ProblemResult]] = {}
    for question in read_question_lines(folder / QUESTIONS_NAME):
        benchmark, question_id = question["benchmark"], question["question_id"]
        of_problem = samples.pop((benchmark, question_id), {})
        if set(of_problem) != expected:
            raise UserError(
                f"{folder / SAMPLES_NAME}: {len(of_problem)} samples of {benchmark} {question_id} where the manifest "
                f"has {len(expected)}; the file was changed or cut. Evaluate again"
            )
        sampled = [of_problem["sampled", index] for index in range(drawn)]
        problems.setdefault(benchmark, []).append(
            ProblemResult(
                question_id,
                question["ground_truth"],
                question["prompt_sha256"],
                of_problem["greedy", 0][0],
                tuple(correct for correct, _, _, _ in sampled),
                tuple(prediction for _, prediction, _, _ in sampled),
                of_problem["greedy", 0][2],
                tuple(log_probs for _, _, log_probs, _ in sampled),
                of_problem["greedy", 0][3],
                tuple(tokens for _, _, _, tokens in sampled),
            )
        )
    if samples:
        raise UserError(
            f"{folder / SAMPLES_NAME}: samples of problems that {QUESTIONS_NAME} does not have: {next(iter(samples))}; "
            "remove it and evaluate again"
        )
    benchmarks = {
        name: BenchmarkResult(name, tuple(of_benchmark), SampleCounts(**counts[name]))
        for name, of_benchmark in problems.items()
    }
    return EvaluationResult(folder, manifest, benchmarks, finished=True)


def read_question_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the problems of a result folder.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
        yield from (json.loads(line) for line in lines)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); evaluate again") from error
