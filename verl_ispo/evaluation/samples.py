"""Graded samples on disk: an append-only log while they are made, one sorted file when it is complete.

A line is one sample, as ASCII JSON:

``benchmark``, ``question_id``, ``mode`` (``greedy`` or ``sampled``), ``sample_index``, ``seed`` (`null` for greedy),
``temperature``, ``text``, ``tokens`` (of the response, the end-of-sequence token counted), ``finish_reason`` (``stop``;
``length``: cut off by the token limit; ``prompt_too_long``: the prompt fills the context, nothing was sampled),
``correct``, ``score``, ``status`` and ``prediction`` (see `verl_ispo.evaluation.grader.Grade`), ``response_log_prob``
and ``answer_log_prob`` (see `LogProbs`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_ispo.atomic_file import atomic_file, sync_folder
from verl_ispo.evaluation.questions import Question
from verl_ispo.user_error import UserError

SampleKey = tuple[str, str, str, int]
"""Benchmark, question id, mode, sample index."""

SMALL_SET = 40
"""A set of up to this many problems, such as AIME (30) and AMC (40), is small (ours)."""

LEAST_SAMPLES = 10
"""Sampled responses, each from its own seed, that a problem of a small set needs (ours)."""


@dataclass(frozen=True)
class LogProbs:
    """How sure the model was: mean log-probs in nats per token, under the model at temperature 1.

    Attributes:
        response: of all tokens; `None` where the sampler does not tell log-probs, or there is no token.
        answer: of the answer's tokens; `None` also where there is no answer, or its tokens are not known.
    """

    response: float | None
    answer: float | None


@dataclass(frozen=True)
class PlannedSample:
    """A sample that the evaluation consists of."""

    question: Question
    mode: str
    sample_index: int
    seed: int | None
    temperature: float

    @property
    def key(self) -> SampleKey:
        """What identifies it in the files."""
        return (self.question.benchmark, self.question.question_id, self.mode, self.sample_index)


def sample_seed(run_seed: int, benchmark: str, question_id: str, sample_index: int) -> int:
    """Seed of one sample, of 53 bits, so that every JSON reader (JavaScript's too) keeps it exactly.

    It depends only on these four, not on order, batch, a pause or the number of samples, so the first
    16 of 32 samples are those of a run with 16.
    """
    identity = json.dumps([run_seed, benchmark, question_id, sample_index])
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "little") >> 11


def plan_samples(
    questions: Sequence[Question], samples_per_question: int, temperature: float, run_seed: int
) -> list[PlannedSample]:
    """One greedy response and ``samples_per_question`` sampled ones per question, in the order of the final file."""
    return [
        planned
        for question in questions
        for planned in (
            PlannedSample(question, "greedy", 0, None, 0.0),
            *(
                PlannedSample(
                    question,
                    "sampled",
                    index,
                    sample_seed(run_seed, question.benchmark, question.question_id, index),
                    temperature,
                )
                for index in range(samples_per_question)
            ),
        )
    ]


def lacks_samples(problems: int, samples_per_question: int) -> bool:
    """Whether so few samples of so few problems leave the score to chance; without samples, greedy alone does too."""
    return problems <= SMALL_SET and samples_per_question < LEAST_SAMPLES


def record_key(record: Mapping[str, Any]) -> SampleKey:
    """The key of a sample as read from a file."""
    return (record["benchmark"], record["question_id"], record["mode"], record["sample_index"])


class SampleLog:
    """The append-only log of one evaluation.

    Opening it drops a last line that a kill has cut off, and indexes the samples that are there.

    Args:
        path (`Path`): made if it does not exist.

    Raises:
        UserError: if a line other than the last cannot be read, or a sample is there twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._positions: dict[SampleKey, tuple[int, int]] = {}
        self._file = path.open("a+b")
        sync_folder(path.parent)
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                self._file.truncate(end)
                break
            try:
                key = record_key(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{path}, line {number}: not a sample ({error}); something else changed the file. Remove that "
                    "line to have its sample drawn again, or start in another --out"
                ) from error
            if key in self._positions:
                raise UserError(f"{path}, line {number}: {key} is there twice; remove one of the lines")
            self._positions[key] = (end, len(line))
            end += len(line)

    def __contains__(self, key: SampleKey) -> bool:
        return key in self._positions

    def __len__(self) -> int:
        return len(self._positions)

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add samples; they are on the disk when this returns."""
        end = self._file.seek(0, os.SEEK_END)
        lines = [(json.dumps(record, allow_nan=False) + "\n").encode("ascii") for record in records]
        self._file.write(b"".join(lines))
        self._file.flush()
        os.fsync(self._file.fileno())
        for record, line in zip(records, lines, strict=True):
            self._positions[record_key(record)] = (end, len(line))
            end += len(line)

    def read(self, key: SampleKey) -> dict[str, Any]:
        """The sample under a key, which is there."""
        offset, length = self._positions[key]
        self._file.seek(offset)
        return json.loads(self._file.read(length))

    def publish(self, path: Path, keys: Sequence[SampleKey]) -> None:
        """Write the samples in the order of ``keys`` to a file that appears whole."""
        with atomic_file(path) as file:
            for key in keys:
                offset, length = self._positions[key]
                self._file.seek(offset)
                file.write(self._file.read(length))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """Read the sorted file of a finished evaluation.

    Raises:
        UserError: for a line that is not a sample (fields missing or of the wrong type, or a NaN).
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line, parse_constant=_refuse_constant)
                valid = (
                    isinstance(record["correct"], bool)
                    and isinstance(record["tokens"], int)
                    and isinstance(record["text"], str)
                    and isinstance(record["finish_reason"], str)
                    and isinstance(record["status"], str)
                    and all(isinstance(part, str) for part in record_key(record)[:3])
                    and (record["prediction"] is None or isinstance(record["prediction"], str))
                    # lines of earlier versions have no log-probs
                    and isinstance(record.setdefault("response_log_prob", None), float | None)
                    and isinstance(record.setdefault("answer_log_prob", None), float | None)
                )
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{path}, line {number}: not a sample ({type(error).__name__}: {error}); remove the file and "
                    "evaluate again"
                ) from error
            if not valid:
                raise UserError(
                    f"{path}, line {number}: a field of this sample has the wrong type; remove the file and "
                    "evaluate again"
                )
            yield record


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a score")
