"""A benchmark: every problem, with the number of problems checked against the published set."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.answer_kinds import answer_strings, ground_truth, uncheckable_reason
from data_prep.atomic_output import exclusive_output
from data_prep.columns import question_text
from data_prep.deduplication import IdRegister, answer_key
from data_prep.key_trials import KeyTrials
from data_prep.prompt_lengths import PromptMeter
from data_prep.prompt_templates import PromptTemplate, unwrap_dapo
from data_prep.reading import MAX_QUESTION_CHARS, ChosenPart, Row, read_rows, reading_progress
from data_prep.row_writer import RowWriter
from data_prep.schema import Problem
from data_prep.text_normalization import digest, normalized_texts
from verl_ispo.answers.ground_truth import GroundTruth
from verl_ispo.user_error import UserError

Extras = dict[str, Any]


def _keep_all(extras: Extras) -> bool:
    return True


def _plain_truth(answers: list[str], extras: Extras) -> GroundTruth:
    return ground_truth(answers)


def _as_it_is(problem: Problem) -> tuple[Problem, str]:
    return problem, ""


@dataclass(frozen=True)
class Benchmark:
    """What is special about one benchmark.

    Attributes:
        name (`str`): ``data_source`` and file name.
        title (`str`): for ``--help``.
        hub_id (`str`), hub_split (`str`), hub_config (`str`, *optional*): where it is published.
        expected_count (`int`): number of its problems.
        extra_columns (`Sequence[str]`): further columns that the functions below read, where they exist.
        keep (`Callable`): whether a row, by its extra columns, belongs to the benchmark.
        truth (`Callable`): ground truth from answers and extra columns.
        adjust (`Callable`): a corrected problem and a note on the correction, empty if there was none.
    """

    name: str
    title: str
    hub_id: str
    expected_count: int
    hub_split: str = "test"
    hub_config: str | None = None
    extra_columns: Sequence[str] = ()
    keep: Callable[[Extras], bool] = _keep_all
    truth: Callable[[list[str], Extras], GroundTruth] = _plain_truth
    adjust: Callable[[Problem], tuple[Problem, str]] = _as_it_is


def prepare_benchmark(
    benchmark: Benchmark,
    parts: Sequence[ChosenPart],
    split: str,
    template: PromptTemplate,
    save_dir: Path,
    meter: PromptMeter | None,
    allow_count_mismatch: bool,
    log_base: str,
    card_options: dict[str, Any],
) -> Path:
    """Prepares the benchmark and returns the parquet's path.

    Repeated copies of a problem (some publications repeat each 32 times) are written once.

    Raises:
        UserError: for faults in input, options or output folder, for a row without question or answer, for one
            problem with two answers, and for an unexpected number of problems; nothing is changed then.
    """
    with exclusive_output(save_dir, benchmark.name) as output:
        rows_read, outside, rows_sha256 = 0, 0, hashlib.sha256()
        problems: list[tuple[Any, Problem]] = []
        with reading_progress([chosen.part for chosen in parts]) as progress:
            for chosen in parts:
                for rows in read_rows(chosen, progress):
                    rows_read += len(rows)
                    for row in rows:
                        rows_sha256.update(digest(f"{row.question!r}\x1f{row.answer!r}"))
                        if benchmark.keep(row.extras):
                            problems.append((row.id, _problem(benchmark, row, chosen.from_solution)))
                        else:
                            outside += 1
        notes: Counter[str] = Counter()
        distinct = _distinct(benchmark, problems, notes)
        copies = len(problems) - len(distinct)
        counts = {"read": rows_read, "dropped: outside the benchmark": outside, "dropped: repeated copy": copies}
        counts["written"] = len(distinct)
        lines = [note if count == 1 else f"{note} ({count} rows)" for note, count in notes.items()]
        if copies:
            lines.append(f"{copies} repeated copies of problems were removed.")
        if len(distinct) != benchmark.expected_count:
            message = f"{len(distinct)} problems where {benchmark.name} has {benchmark.expected_count}"
            if not allow_count_mismatch:
                files = ", ".join(chosen.part.label for chosen in parts)
                raise UserError(f"{files}: {message} (rows: {counts}); pass --allow_count_mismatch to accept this")
            lines.append(f"INCOMPLETE OR DIFFERENT SET: {message}.")
        inputs = [chosen.identity() for chosen in parts]
        lines += _faulty_keys(distinct, log_base)
        with RowWriter(output, benchmark.name, split, template, log_base, meter) as writer:
            writer.write(distinct)
            return writer.publish(inputs, rows_sha256.hexdigest(), counts, card_options, lines, {})


def _faulty_keys(problems: list[Problem], log_base: str) -> list[str]:
    """A note on every key that fails on the grader; a benchmark keeps its problems, and says which to doubt."""
    with tqdm(total=len(problems), desc="trying keys", unit="key", disable=None) as progress:
        faults = list(KeyTrials(log_base, progress).faults([problem.truth for problem in problems]))
    return [
        f"THE KEY OF ROW {problem.row} FAILS ON THE GRADER: {problem.truth.text[:80]} ({fault[:200]})"
        for problem, fault in zip(problems, faults, strict=True)
        if fault
    ]


def _problem(benchmark: Benchmark, row: Row, from_solution: bool) -> Problem:
    location = f"{row.file}, row {row.number}"
    question = unwrap_dapo(question_text(row.question) or "")[0].strip()
    if not question:
        raise UserError(f"{location}: no question; correct the file, or name another --question_column")
    if len(question) > MAX_QUESTION_CHARS:
        raise UserError(
            f"{location}: a question of {len(question)} characters (limit {MAX_QUESTION_CHARS}); shorten it"
        )
    answers = answer_strings(row.answer, from_solution)
    unusable = uncheckable_reason(answers)
    if unusable:
        raise UserError(
            f"{location}: uncheckable answer ({unusable}); correct the file, or name another --answer_column"
        )
    return Problem(question, "", benchmark.truth(answers, row.extras), row.file, row.number)


def _distinct(benchmark: Benchmark, problems: list[tuple[Any, Problem]], notes: Counter[str]) -> list[Problem]:
    ids = IdRegister()
    first: dict[str, Problem] = {}
    texts = normalized_texts([problem.question for _, problem in problems]).to_pylist()
    for (row_id, raw), text in zip(problems, texts, strict=True):
        problem, note = benchmark.adjust(replace(raw, normalized=text))
        ids.check(problem.file, problem.row, row_id, text)
        known = first.setdefault(text, problem)
        if known is problem:
            notes.update([note] if note else [])
        elif answer_key(known.truth) != answer_key(problem.truth):
            raise UserError(
                f"{problem.file}: one problem with two answers, {known.truth.text!r} in row {known.row} and "
                f"{problem.truth.text!r} in row {problem.row}; correct one of them"
            )
    return list(first.values())
