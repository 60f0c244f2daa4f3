"""A training set: de-duplicated, decontaminated and checkable, in three passes with bounded memory.

The first pass reads every row and keeps the first of each question on disk. The second marks conflicts, contaminated
questions and near duplicates. The third writes the remaining questions. Only digests of the questions stay in memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from data_prep import deduplication, near_duplicates, text_normalization
from data_prep.answer_kinds import answer_strings, ground_truth, one_of_equal, uncheckable_reason
from data_prep.atomic_output import OutputFiles, exclusive_output
from data_prep.benchmark_names import PAPER_BENCHMARKS
from data_prep.columns import question_text
from data_prep.decontamination import (
    MIN_CONTAINED_WORDS,
    BenchmarkIndex,
    BenchmarkQuestions,
    Match,
)
from data_prep.deduplication import IdRegister, QuestionIndex
from data_prep.key_trials import RULE, KeyTrials, fault_kind
from data_prep.prompt_instructions import DAPO, INSTRUCTION, question_in_prompt
from data_prep.prompt_lengths import PromptMeter
from data_prep.prompt_templates import PromptTemplate
from data_prep.reading import MAX_QUESTION_CHARS, ChosenPart, Row, kept_texts, read_rows, reading_progress
from data_prep.row_validity import PROOF, asks_for_a_proof, invalid_reason
from data_prep.row_writer import RowWriter
from data_prep.schema import Problem
from data_prep.spool import Spool, SpooledTexts, SpoolWriter
from verl_ispo.user_error import UserError

# Longer questions are cut in the list of dropped rows, so that it stays readable.
LISTED_CHARS = 2000


@dataclass(frozen=True)
class TrainingOptions:
    """The options of one preparation of a training set.

    Attributes:
        output_name (`str`): the files' name without ending.
        data_source (`str`), split (`str`): written into every row.
        parts (`Sequence[ChosenPart]`): what to read.
        template (`PromptTemplate`): question to prompt.
        save_dir (`Path`): output folder.
        benchmarks (`Sequence[BenchmarkQuestions]`): what to decontaminate against; empty leaves it out.
        ngram_words (`int`), min_overlap (`float`): length of the runs compared, and the share they have to cover.
        keep_conflicts (`bool`): keep the first copy of a question with several answers.
        drop_near_duplicates (`bool`): drop the later one of two near duplicates with the same answer.
        meter (`PromptMeter`, *optional*), max_prompt_tokens (`int`, *optional*): length filter.
        log_base (`str`): what a bare logarithm in the keys is to.
        keep_faulty_keys (`bool`): keep questions whose key the grader cannot use; they are listed all the same.
        keep_columns (`Sequence[str]`): further columns of texts that are written as they are.
        card_options (`dict`): the command line, for the card.
    """

    output_name: str
    data_source: str
    split: str
    parts: Sequence[ChosenPart]
    template: PromptTemplate
    save_dir: Path
    benchmarks: Sequence[BenchmarkQuestions]
    ngram_words: int
    min_overlap: float
    keep_conflicts: bool
    drop_near_duplicates: bool
    meter: PromptMeter | None
    max_prompt_tokens: int | None
    log_base: str
    keep_faulty_keys: bool
    keep_columns: Sequence[str]
    card_options: dict[str, Any]


@dataclass
class Findings:
    """What the passes count and note, for the card."""

    dropped: Counter[str]
    details: dict[str, Any]
    notes: list[str]


def prepare_training_set(options: TrainingOptions) -> Path:
    """Prepares the set and returns the parquet's path.

    Beside it are the card, ``NAME.dropped.jsonl`` (every row dropped for a reason other than being a duplicate) and
    ``NAME.near_duplicates.jsonl``.

    Raises:
        UserError: for faults in input, options or output folder; nothing is changed then.
    """
    with exclusive_output(options.save_dir, options.output_name) as output:
        findings = Findings(Counter(), {}, [])
        dropped_file = output.create("dropped.jsonl")
        index = QuestionIndex()
        spool, rows_read = _collect(options, output, index, findings, dropped_file)
        kept = np.ones(len(index), bool)
        _drop_conflicts(options, index, spool, kept, findings, dropped_file)
        _drop_contaminated(options, spool, kept, findings, dropped_file)
        _report_near_duplicates(options, output, spool, kept, findings)
        _drop_faulty_keys(options, spool, kept, findings, dropped_file)
        with RowWriter(
            output,
            options.data_source,
            options.split,
            options.template,
            options.log_base,
            options.meter,
            options.max_prompt_tokens,
            options.keep_columns,
        ) as writer:
            for _, problems in _with_bar(spool.problems(kept), int(kept.sum()), "writing"):
                for problem in writer.write(problems):
                    findings.dropped["prompt too long"] += 1
                    _list_dropped(dropped_file, "prompt too long", problem, {"limit_tokens": options.max_prompt_tokens})
            if not writer.rows:
                raise UserError(
                    f"{', '.join(chosen.part.label for chosen in options.parts)}: no row is left of {rows_read} "
                    f"({dict(+findings.dropped)}); check --question_column and --answer_column"
                )
            counts = _row_counts(rows_read, index, findings, writer.rows)
            inputs = [chosen.identity() for chosen in options.parts]
            rows_sha256 = index.rows_sha256.hexdigest()
            return writer.publish(inputs, rows_sha256, counts, options.card_options, findings.notes, findings.details)


def _collect(
    options: TrainingOptions, output: OutputFiles, index: QuestionIndex, findings: Findings, dropped_file: BinaryIO
) -> tuple[Spool, int]:
    writer = SpoolWriter(output.scratch("arrow"))
    ids = IdRegister()
    wrapping: Counter[str] = Counter()
    rows_read = 0
    with reading_progress([chosen.part for chosen in options.parts]) as progress:
        for chosen in options.parts:
            for rows in read_rows(chosen, progress):
                rows_read += len(rows)
                problems = []
                for row in rows:
                    if not index.is_exact_duplicate(f"{row.question!r}\x1f{row.answer!r}"):
                        problem = _checked_problem(row, chosen.from_solution, wrapping, findings, dropped_file)
                        if problem is not None:
                            kept = {name: kept_texts(row, name) for name in options.keep_columns}
                            problems.append((row.id, replace(problem, kept=kept)))
                writer.append(_first_of_each_question(problems, index, ids))
    spool = writer.close()
    findings.details["wrapping"] = {"wrapped_in_dapo_text": wrapping[DAPO], "kept_as_it_was": wrapping[""]}
    if wrapping[INSTRUCTION]:
        findings.details["wrapping"]["instruction_taken_off"] = wrapping[INSTRUCTION]
    if wrapping[DAPO] and wrapping[""]:
        findings.notes.append(
            f"{wrapping['']} questions were not wrapped in DAPO's text, others were; they are kept as they are."
        )
    return spool, rows_read


def _checked_problem(
    row: Row, from_solution: bool, wrapping: Counter[str], findings: Findings, dropped_file: BinaryIO
) -> Problem | None:
    question, wrapped_in = question_in_prompt(question_text(row.question) or "")
    answers = one_of_equal(answer_strings(row.answer, from_solution))
    invalid = invalid_reason(row.extras)
    if invalid:
        reason = invalid
    elif not question:
        reason = "no question"
    elif len(question) > MAX_QUESTION_CHARS:
        reason = f"question over {MAX_QUESTION_CHARS} characters"
    else:
        unusable = uncheckable_reason(answers)
        reason = f"uncheckable answer: {unusable}" if unusable else ""
        if unusable == "no answer" and asks_for_a_proof(question):
            reason = PROOF
    truth = ground_truth(answers)
    problem = Problem(question, "", truth, row.file, row.number)
    if reason:
        findings.dropped[reason] += 1
        _list_dropped(dropped_file, reason, problem, {})
        return None
    wrapping[wrapped_in] += 1
    return problem


def _first_of_each_question(
    problems: list[tuple[Any, Problem]], index: QuestionIndex, ids: IdRegister
) -> list[Problem]:
    normalized = text_normalization.normalized_texts([problem.question for _, problem in problems]).to_pylist()
    survivors = []
    for (row_id, problem), text in zip(problems, normalized, strict=True):
        ids.check(problem.file, problem.row, row_id, text)
        if index.add(text, problem.truth):
            survivors.append(replace(problem, normalized=text))
    return survivors


def _drop_conflicts(
    options: TrainingOptions,
    index: QuestionIndex,
    spool: Spool,
    kept: np.ndarray,
    findings: Findings,
    dropped_file: BinaryIO,
) -> None:
    conflicting = np.zeros(len(kept), bool)
    conflicting[list(index.conflicts)] = True
    rule = "the first copy stays" if options.keep_conflicts else "every copy is dropped"
    findings.details["deduplication"] = {
        "normalisation": text_normalization.RULE,
        "answers": deduplication.ANSWER_RULE,
        "conflicts": f"one question with answers that differ: {rule}",
        "conflicting_questions": len(index.conflicts),
        "which_copy_stays": "the first",
    }
    for numbers, problems in spool.problems(conflicting):
        for number, problem in zip(numbers.tolist(), problems, strict=True):
            answers = [problem.truth.text, *index.conflicts[number].answers]
            _list_dropped(dropped_file, "conflicting answers", problem, {"answers": answers, "rule": rule})
    if not options.keep_conflicts:
        findings.dropped["conflicting answers"] = int(conflicting.sum())
        kept &= ~conflicting


def _drop_contaminated(
    options: TrainingOptions, spool: Spool, kept: np.ndarray, findings: Findings, dropped_file: BinaryIO
) -> None:
    names = [benchmark.name for benchmark in options.benchmarks]
    missing = [name for name in PAPER_BENCHMARKS if name not in names]
    if missing:
        findings.notes.append(f"NOT decontaminated against {', '.join(missing)}: their questions were not given.")
    details: dict[str, Any] = {"benchmarks": [], "missing_benchmarks": missing}
    findings.details["decontamination"] = details
    if not options.benchmarks:
        return
    index = BenchmarkIndex(options.benchmarks, options.ngram_words, options.min_overlap)
    by_benchmark: Counter[str] = Counter(dict.fromkeys(names, 0))
    runs_of_kept_rows: Counter[str] = Counter()
    matches: dict[int, Match] = {}
    for numbers, batch in _with_bar(spool.batches(kept), int(kept.sum()), "decontaminating"):
        for match in index.matches(batch.column("normalized")):
            if match.contaminated:
                matches[int(numbers[match.text])] = match
            else:
                runs_of_kept_rows[match.shared_words] += 1
    contaminated = np.zeros(len(kept), bool)
    contaminated[list(matches)] = True
    for numbers, problems in spool.problems(contaminated):
        for number, problem in zip(numbers.tolist(), problems, strict=True):
            match = matches[number]
            by_benchmark[match.benchmark] += 1
            findings.dropped[f"contaminated: {match.benchmark}"] += 1
            shown = {key: value for key, value in vars(match).items() if key not in ("text", "contaminated")}
            _list_dropped(dropped_file, "contaminated", problem, shown)
    kept &= ~contaminated
    details |= {
        "rule": (
            f"shared runs of {index.n} words that cover at least {index.min_overlap:g} of one question's words; a "
            f"shorter benchmark question contained whole (if it has {MIN_CONTAINED_WORDS} words or more) or equal"
        ),
        "normalisation": f"{text_normalization.RULE}; then runs of letters or digits",
        "benchmarks": [{"name": b.name, "questions": len(b.questions), **b.identity} for b in options.benchmarks],
        "rows_dropped": dict(by_benchmark),
        "rows_kept_that_share_a_run": runs_of_kept_rows.total(),
        "most_frequent_runs_of_those": dict(
            sorted(runs_of_kept_rows.items(), key=lambda item: (-item[1], item[0]))[:10]
        ),
    }


def _report_near_duplicates(
    options: TrainingOptions, output: OutputFiles, spool: Spool, kept: np.ndarray, findings: Findings
) -> None:
    found = near_duplicates.find_near_duplicates(SpooledTexts(spool, kept.copy()), int(kept.sum()))
    involved = np.zeros(len(kept), bool)
    involved[[number for first, second, _ in found.pairs for number in (first, second)]] = True
    problems = {
        number: problem
        for numbers, batch in spool.problems(involved)
        for number, problem in zip(numbers.tolist(), batch, strict=True)
    }
    same_answer, dropped = 0, 0
    file = output.create("near_duplicates.jsonl")
    for first, second, similarity in found.pairs:
        one, other = problems[first], problems[second]
        agree = deduplication.answer_key(one.truth) == deduplication.answer_key(other.truth)
        same_answer += agree
        if agree and options.drop_near_duplicates and kept[first] and kept[second]:
            kept[second] = False
            dropped += 1
        shown = {"similarity": similarity, "same_answer": agree}
        shown |= {"first": _shown(one), "second": _shown(other)}
        _write_line(file, shown)
    if options.drop_near_duplicates:
        findings.dropped["near duplicate with the same answer"] = dropped
    if not found.complete:
        findings.notes.append(
            "There are more near-duplicate candidates than are compared; the list of pairs is not complete."
        )
    findings.details["near_duplicates"] = {
        "rule": (
            f"Jaccard similarity of {near_duplicates.SHINGLE_WORDS}-word runs of at least {near_duplicates.THRESHOLD}, "
            f"candidates from MinHash ({near_duplicates.BANDS} bands of {near_duplicates.ROWS_PER_BAND})"
        ),
        "pairs": len(found.pairs),
        "pairs_with_the_same_answer": same_answer,
        "dropped": dropped,
        "search_complete": found.complete,
    }


def _drop_faulty_keys(
    options: TrainingOptions, spool: Spool, kept: np.ndarray, findings: Findings, dropped_file: BinaryIO
) -> None:
    """Try every key that is left on the grader; the order of the rows does not matter."""
    faulty, kinds = np.zeros(len(kept), bool), Counter()
    with tqdm(total=int(kept.sum()), desc="trying keys", unit="key", unit_scale=True, disable=None) as progress:
        trials = KeyTrials(options.log_base, progress)
        for numbers, problems in spool.problems(kept):
            faults = trials.faults([problem.truth for problem in problems])
            for number, problem, fault in zip(numbers.tolist(), problems, faults, strict=True):
                if fault:
                    faulty[number] = True
                    kinds[fault_kind(fault)] += 1
                    shown = {"fault": fault[:LISTED_CHARS], "kept": options.keep_faulty_keys}
                    _list_dropped(dropped_file, "key fails on the grader", problem, shown)
    findings.details["key_trials"] = {
        "rule": RULE,
        "tried": int(kept.sum()),
        "faulty": dict(sorted(kinds.items())),
        "kept": options.keep_faulty_keys,
    }
    if options.keep_faulty_keys:
        if kinds:
            findings.notes.append(f"{kinds.total()} keys fail on the grader and were kept (--faulty_keys keep).")
        return
    for kind, count in sorted(kinds.items()):
        findings.dropped[f"key fails on the grader: {kind}"] = count
    kept &= ~faulty


def _row_counts(rows_read: int, index: QuestionIndex, findings: Findings, written: int) -> dict[str, int]:
    """Rows read, dropped by reason, and written. Raises `AssertionError` if they do not add up."""
    counts = {"read": rows_read, "dropped: exact duplicate": index.exact_duplicates}
    counts["dropped: normalised duplicate"] = index.normalized_duplicates
    counts["dropped: another copy with a conflicting answer"] = index.conflicting_rows
    counts |= {f"dropped: {reason}": count for reason, count in findings.dropped.items()}
    counts["written"] = written
    left = rows_read - sum(count for stage, count in counts.items() if stage.startswith("dropped"))
    if left != written:
        raise AssertionError(f"{left} rows should be left and {written} are: {counts}")
    return counts


def _with_bar(batches: Any, total: int, label: str) -> Any:
    with tqdm(total=total, desc=label, unit="row", unit_scale=True, disable=None) as progress:
        for numbers, batch in batches:
            yield numbers, batch
            progress.update(len(numbers))


def _shown(problem: Problem) -> dict[str, Any]:
    return {
        "row": problem.row,
        "question": problem.question[:LISTED_CHARS],
        "answer": problem.truth.text[:LISTED_CHARS],
    }


def _list_dropped(file: BinaryIO, reason: str, problem: Problem, details: dict[str, Any]) -> None:
    _write_line(file, {"reason": reason, "file": Path(problem.file).name, **_shown(problem), **details})


def _write_line(file: BinaryIO, value: dict[str, Any]) -> None:
    line = json.dumps(value, ensure_ascii=False) + "\n"
    file.write(line.encode("utf-8", "replace"))
