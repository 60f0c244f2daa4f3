"""The rows that verl reads: one Arrow schema for every data set.

``prompt``, ``data_source``, ``ability``, ``reward_model`` and ``extra_info`` are the columns that verl's
``RLHFDataset`` and reward managers look for (https://verl.readthedocs.io/en/latest/preparation/prepare_data.html).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from data_prep.prompt_templates import PromptTemplate
from data_prep.text_normalization import digest
from verl_ispo.answers.ground_truth import GroundTruth

OUTPUT_SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct(
                [
                    ("id", pa.string()),
                    ("index", pa.int64()),
                    ("split", pa.string()),
                    ("question", pa.string()),
                    ("answer_type", pa.string()),
                    ("unit", pa.string()),
                    ("tolerance", pa.string()),
                    ("multiple_answers", pa.bool_()),
                    ("log_base", pa.string()),
                    ("answer_format", pa.string()),
                ]
            ),
        ),
    ]
)


@dataclass(frozen=True)
class Problem:
    """One problem on its way to a row.

    Attributes:
        question (`str`): without any prompt around it.
        normalized (`str`): `text_normalization.normalized_texts` of the question.
        truth (`GroundTruth`): the correct answer.
        file (`str`), row (`int`): where it was read, for error messages.
        kept (`Mapping[str, Sequence[str]]`): texts of further columns, written as they are.
    """

    question: str
    normalized: str
    truth: GroundTruth
    file: str
    row: int
    kept: Mapping[str, Sequence[str]] = field(default_factory=dict)


def output_schema(kept_columns: Sequence[str]) -> pa.Schema:
    """`OUTPUT_SCHEMA` and the columns that are kept, each a list of texts."""
    schema = OUTPUT_SCHEMA
    for name in kept_columns:
        schema = schema.append(pa.field(name, pa.list_(pa.string())))
    return schema


def problem_id(data_source: str, normalized: str) -> str:
    """An id that depends on the data source and the normalized question only, as in ``aime24-5c0c31c0b6f0b5a5``."""
    return f"{data_source}-{digest(normalized).hex()[:16]}"


def output_rows(
    problems: Sequence[Problem],
    data_source: str,
    split: str,
    template: PromptTemplate,
    log_base: str,
    first_index: int,
    kept_columns: Sequence[str] = (),
) -> pa.RecordBatch:
    """Rows of `output_schema` for consecutive problems, indexed from `first_index`.

    ``log_base`` is what a bare logarithm in the keys is to (``"e"``, ``"10"``, ``"2"``), and ``answer_format`` is
    ``"boxed"`` where the template asks for a box only, so that nothing else is graded; both are the grader's.
    """
    rows = [
        {
            "data_source": data_source,
            "prompt": template.render(problem.question),
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": problem.truth.text},
            "extra_info": {
                "id": problem_id(data_source, problem.normalized),
                "index": index,
                "split": split,
                "question": problem.question,
                "answer_type": problem.truth.answer_type,
                "unit": problem.truth.unit,
                "tolerance": problem.truth.tolerance,
                "multiple_answers": problem.truth.multiple_answers,
                "log_base": log_base,
                "answer_format": template.answer_format,
            },
            **{name: problem.kept.get(name, []) for name in kept_columns},
        }
        for index, problem in enumerate(problems, start=first_index)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=output_schema(kept_columns))
