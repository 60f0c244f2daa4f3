"""The problems to evaluate on: benchmark parquets in verl's columns, checked before anything is sampled."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verl_ispo.user_error import UserError

_COLUMNS = ("data_source", "prompt", "reward_model")
_SHOWN = 5


@dataclass(frozen=True)
class Question:
    """One problem.

    Attributes:
        benchmark (`str`): the parquet's ``data_source``, by which verl groups its validation scores too.
        question_id (`str`): ``extra_info.id``, or a digest of the prompt where there is none.
        messages (`tuple`): the prompt as chat messages with ``role`` and ``content``.
        ground_truth: handed to the reward function as it is.
        extra_info (`Mapping`): the same.
    """

    benchmark: str
    question_id: str
    messages: tuple[Mapping[str, str], ...]
    ground_truth: Any
    extra_info: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The bare question where the file has it, else the last message."""
        return str(self.extra_info.get("question") or self.messages[-1]["content"])

    def content(self) -> str:
        """Everything that decides what is sampled and how it is graded, as one JSON text."""
        fields = [self.benchmark, self.question_id, list(self.messages), self.ground_truth, dict(self.extra_info)]
        return json.dumps(fields, sort_keys=True, default=str)

    def prompt_digest(self) -> str:
        """A digest of the messages."""
        return _digest(json.dumps(list(self.messages), sort_keys=True, default=str))


def read_questions(paths: Sequence[Path]) -> list[Question]:
    """Read benchmark files, in the order given.

    Raises:
        UserError: a file that is missing, unreadable, empty or without verl's columns, a problem without prompt
            or ground truth, or an id that is in a benchmark twice.
    """
    questions = [question for path in paths for question in _read_file(path)]
    for benchmark in dict.fromkeys(question.benchmark for question in questions):
        counts = Counter(question.question_id for question in questions if question.benchmark == benchmark)
        repeated = [question_id for question_id, count in counts.items() if count > 1]
        if repeated:
            raise UserError(
                f"benchmark {benchmark!r}: {len(repeated)} ids stand for more than one row, {_some(repeated)} "
                f"({counts[repeated[0]]} times). Some published copies repeat each problem; `eval` draws its samples "
                "itself, so prepare the file with one row per problem (python -m data_prep.NAME does) and pass it once."
            )
    return questions


def read_distinct_questions(path: Path) -> list[Question]:
    """Read a training file, in which a problem may stand more than once: its first row counts.

    Raises:
        UserError: as `read_questions`, but for repeated ids.
    """
    first: dict[tuple[str, str], Question] = {}
    for question in _read_file(path):
        first.setdefault((question.benchmark, question.question_id), question)
    return list(first.values())


def questions_digest(questions: Sequence[Question]) -> str:
    """One digest of problems, prompts and ground truths, whatever file they came in."""
    return _digest("\n".join(question.content() for question in questions))


def _read_file(path: Path) -> list[Question]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; prepare it with python -m data_prep.NAME (aime24, math500, ...)")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from error
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise UserError(
            f"{path}: no column {', '.join(missing)} (it has {', '.join(table.column_names)}); verl's columns are "
            "needed, as python -m data_prep.NAME writes them"
        )
    if table.num_rows == 0:
        raise UserError(f"{path}: the file holds no problem")
    rows = table.to_pylist()
    questions = [_question(path, number, row) for number, row in enumerate(rows)]
    unanswered = [question.question_id for question in questions if _is_blank(question.ground_truth)]
    if unanswered:
        raise UserError(
            f"{path}: {len(unanswered)} of {len(questions)} problems have no reward_model.ground_truth, "
            f"{_some(unanswered)}; they cannot be graded. Fill in the ground truths, or leave these rows out"
        )
    return questions


def _question(path: Path, number: int, row: Mapping[str, Any]) -> Question:
    where = f"{path}, row {number}"
    messages = row["prompt"]
    if (
        not isinstance(messages, list)
        or not messages
        or any(not isinstance(message, dict) or not message.get("content") for message in messages)
    ):
        raise UserError(f"{where}: prompt is not a list of chat messages with role and content: {messages!r:.80}")
    if _is_blank(row["data_source"]):
        raise UserError(f"{where}: data_source is empty; give the benchmark's name")
    extra_info = row.get("extra_info") or {}
    benchmark = str(row["data_source"])
    question_id = extra_info.get("id")
    if _is_blank(question_id):
        question_id = f"{benchmark}-{_digest(json.dumps(messages, sort_keys=True, default=str))[:16]}"
    truth = (row["reward_model"] or {}).get("ground_truth")
    return Question(benchmark, str(question_id), tuple(messages), truth, extra_info)


def _is_blank(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    # NaN, which is how pandas writes a missing value, is the one value that differs from itself
    return value is None or value == [] or value != value


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
