"""Draws graded samples at random for a person to check, and writes them where a spreadsheet can open them.

**Draw.** Samples are put into strata by the grader's verdict and status. Half of the drawn ones are samples that the
grader accepted, half are samples that it rejected, and each half is spread evenly over its statuses, so that rare
statuses and both kinds of error are looked at. Within a stratum the draw is a simple random sample without
replacement: the samples with the smallest keyed digests, whatever the order of folders and lines. Samples of prompts
that fill the context were never drawn from the model, and are left out.

**Files.** ``audit.csv`` is for the person, ``audit.json`` says what was drawn from what; a person's verdicts are joined
with the latter, so that nothing that a spreadsheet does to the other columns changes a number.
"""

from __future__ import annotations

import csv
import hashlib
import heapq
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verl_ispo.atomic_file import write_text
from verl_ispo.evaluation.results import QUESTIONS_NAME, SAMPLES_NAME, EvaluationResult, read_question_lines
from verl_ispo.evaluation.samples import read_samples, record_key
from verl_ispo.user_error import UserError

AUDIT_CSV, AUDIT_JSON = "audit.csv", "audit.json"
FORMAT = 1
DEFAULT_NUMBER, DEFAULT_SEED = 50, 0
VERDICT, NUMBER = "verdict", "number"
COLUMNS = (
    *(NUMBER, "question", "ground_truth", "response_end", "extracted_answer", VERDICT, "remark"),
    *("grader_says", "grader_status", "finish_reason", "benchmark", "question_id", "sample", "result"),
)
_BLOCK = 1 << 20
_MAX_QUESTION, _MAX_END, _MAX_ANSWER = 3000, 1500, 300
# What a spreadsheet takes for the start of a formula, wide forms included.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


@dataclass(frozen=True)
class Audit:
    """What was drawn from which results.

    Attributes:
        number (`int`), seed (`int`): as asked for.
        results (`Mapping[str, str]`): digest of the samples of each result, by the result's name.
        population (`Mapping[str, int]`): samples in each stratum.
        drawn (`tuple[str, ...]`): the stratum of each drawn sample, in the order of the file.
    """

    number: int
    seed: int
    results: Mapping[str, str]
    population: Mapping[str, int]
    drawn: tuple[str, ...]


def stratum_of(correct: bool, status: str) -> str:
    """``correct``, or ``incorrect: wrong``; a status that is not the verdict itself stands behind it."""
    verdict = "correct" if correct else "incorrect"
    return verdict if status == verdict else f"{verdict}: {status}"


def is_accepted(stratum: str) -> bool:
    """Whether the grader called the samples of a stratum correct."""
    return stratum.partition(":")[0] == "correct"


def allocate(population: Mapping[str, int], number: int) -> dict[str, int]:
    """How many samples each stratum gives: as even as the strata allow, accepted and rejected halves first.

    Args:
        population (`Mapping[str, int]`): samples in each stratum.
        number (`int`): to be drawn in all; everything is drawn where there are no more.
    """
    accepted = {name: size for name, size in population.items() if is_accepted(name)}
    rejected = {name: size for name, size in population.items() if not is_accepted(name)}
    halves = _spread({"accepted": sum(accepted.values()), "rejected": sum(rejected.values())}, number)
    return {**_spread(accepted, halves["accepted"]), **_spread(rejected, halves["rejected"])}


def results_digests(results: Sequence[EvaluationResult]) -> dict[str, str]:
    """The digest of each finished result's samples, by base model, method and training seed."""
    digests = {}
    for result in results:
        if result.finished:
            digest = hashlib.sha256()
            with (result.folder / SAMPLES_NAME).open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
            digests[_name(result)] = digest.hexdigest()
    return digests


def draw_audit(out: Path, results: Sequence[EvaluationResult], number: int, seed: int) -> str:
    """Draw samples and write both files, unless these samples are drawn already; returns what was done, in words.

    Args:
        out (`Path`): folder of the table.
        results (`Sequence[EvaluationResult]`): those of the table.
        number (`int`), seed (`int`): how many samples, and which.

    Raises:
        UserError: no finished result, or the folder has verdicts about other samples, which are never overwritten.
    """
    path = out / AUDIT_CSV
    audit, rows = _draw(results, number, seed)
    if path.exists():
        known = read_audit(out) if (out / AUDIT_JSON).exists() else None
        if known is not None and (known.number, known.seed) == (number, seed) and same_samples(known, audit.results):
            return f"Audit: {path} holds these {len(audit.drawn)} samples already; it is left as it is"
        if _has_words_of_a_person(path):
            raise UserError(
                f"--audit: {path} holds verdicts about other samples, and is never overwritten; move {AUDIT_CSV} and "
                f"{AUDIT_JSON} away, or give another --out"
            )
    try:
        # Without a description nothing is concluded from a person's file, so a kill in between joins no other samples.
        (out / AUDIT_JSON).unlink(missing_ok=True)
        write_text(path, _csv(rows))
        write_text(out / AUDIT_JSON, json.dumps({"format": FORMAT, **asdict(audit)}, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"--audit: {error}; check the permissions and the free space of {out}") from error
    return (
        f"Audit: {len(rows)} samples are in {path}. Write correct, incorrect or unclear into its column "
        f"{VERDICT}, save it as CSV, and repeat the command: the grader's error rate is then under the table"
    )


def read_audit(out: Path) -> Audit:
    """Read ``audit.json``.

    Raises:
        UserError: it is missing or not what `draw_audit` wrote.
    """
    path = out / AUDIT_JSON
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        if read.pop("format") != FORMAT:
            raise ValueError("another format")
        audit = Audit(**{**read, "drawn": tuple(read["drawn"])})
        if not all(0 < count <= audit.population[name] for name, count in Counter(audit.drawn).items()):
            raise ValueError("more drawn than there is")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); put back the file that --audit wrote, or move "
            f"it and {AUDIT_CSV} away to draw again"
        ) from error
    return audit


def same_samples(audit: Audit, digests: Mapping[str, str]) -> bool:
    """Whether an audit was drawn from these samples, whatever the results are called now."""
    return sorted(audit.results.values()) == sorted(digests.values())


def read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a person's file with their line numbers; commas, semicolons or tabs, as spreadsheets save them.

    Raises:
        UserError: it is not UTF-8, or has no header with `NUMBER` and `VERDICT`.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); save it as CSV in UTF-8") from error
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    if not {NUMBER, VERDICT} <= set(reader.fieldnames or ()):
        raise UserError(f"{path}, line 1: the columns {NUMBER} and {VERDICT} are needed; keep the header of the file")
    rows = []
    try:
        rows.extend((reader.line_num, row) for row in reader)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}; save it as CSV again") from error
    return rows


def safe_cell(text: str) -> str:
    """Text that a spreadsheet shows and does not calculate: an apostrophe goes before what would start a formula."""
    return f"'{text}" if text.lstrip(" \n").startswith(_FORMULA_STARTS) or text.startswith(("\t", "\r")) else text


def _draw(results: Sequence[EvaluationResult], number: int, seed: int) -> tuple[Audit, list[dict[str, Any]]]:
    digests = results_digests(results)
    if not digests:
        raise UserError("--audit: none of the results is finished; repeat their verl-ispo eval commands")
    population: Counter[str] = Counter()
    # In each stratum the samples with the smallest ranks; a heap has its largest first, so ranks are negated.
    smallest: dict[str, list[tuple[int, str, dict[str, Any]]]] = {}
    for result in results:
        if not result.finished:
            continue
        for record in read_samples(result.folder / SAMPLES_NAME):
            if record["finish_reason"] == "prompt_too_long":
                continue
            stratum = stratum_of(record["correct"], record["status"])
            population[stratum] += 1
            identity = json.dumps([seed, digests[_name(result)], *record_key(record)])
            rank = int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "big")
            entry = (-rank, identity, {**record, "folder": result.folder})
            heap = smallest.setdefault(stratum, [])
            if len(heap) < number:
                heapq.heappush(heap, entry)
            elif entry[:2] > heap[0][:2]:
                heapq.heapreplace(heap, entry)
    counts = allocate(population, number)
    chosen = [
        (rank, stratum, record)
        for stratum, heap in smallest.items()
        for rank, _, record in heapq.nlargest(counts[stratum], heap, key=lambda entry: entry[:2])
    ]
    # By rank, so that the order tells nothing about the verdict.
    chosen.sort(key=lambda entry: entry[0])
    texts = _questions(results, [record for _, _, record in chosen])
    rows = [
        _row(position, record, *texts[record["folder"], record["benchmark"], record["question_id"]])
        for position, (_, _, record) in enumerate(chosen, start=1)
    ]
    drawn = tuple(stratum for _, stratum, _ in chosen)
    return Audit(number, seed, digests, dict(sorted(population.items())), drawn), rows


def _questions(
    results: Sequence[EvaluationResult], records: Iterable[Mapping[str, Any]]
) -> dict[tuple[Path, str, str], tuple[str, str]]:
    wanted = {(record["folder"], record["benchmark"], record["question_id"]) for record in records}
    found = {}
    for folder in dict.fromkeys(folder for folder, _, _ in wanted):
        for line in read_question_lines(folder / QUESTIONS_NAME):
            if (key := (folder, line["benchmark"], line["question_id"])) in wanted:
                found[key] = (str(line["question"]), str(line["ground_truth"]))
    return found


def _row(position: int, record: Mapping[str, Any], question: str, ground_truth: str) -> dict[str, Any]:
    text = record["text"]
    end = f"[{len(text) - _MAX_END:,} characters before this] {text[-_MAX_END:]}" if len(text) > _MAX_END else text
    answer = record["prediction"]
    return {
        NUMBER: position,
        "question": _shown(question, _MAX_QUESTION),
        "ground_truth": _shown(ground_truth, _MAX_ANSWER),
        "response_end": _shown(end, 2 * _MAX_END),
        "extracted_answer": "(none)" if not answer else _shown(answer, _MAX_ANSWER),
        VERDICT: "",
        "remark": "",
        "grader_says": "correct" if record["correct"] else "incorrect",
        "grader_status": _shown(record["status"], _MAX_ANSWER),
        "finish_reason": record["finish_reason"],
        "benchmark": _shown(record["benchmark"], _MAX_ANSWER),
        "question_id": _shown(record["question_id"], _MAX_ANSWER),
        "sample": f"{record['mode']} {record['sample_index']}",
        "result": _shown(record["folder"].name, _MAX_ANSWER),
    }


def _shown(text: str, limit: int) -> str:
    """Untrusted text without invisible characters, bounded, and no formula."""
    cut = text[:limit] + ("..." if len(text) > limit else "")
    seen = "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        else f"<U+{ord(character):04X}>"
        for character in cut
    )
    return safe_cell(seen)


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    # Excel reads a file as UTF-8 only where it begins with this mark.
    return "\ufeff" + text.getvalue()


def _has_words_of_a_person(path: Path) -> bool:
    return any((row[VERDICT] or "").strip() or (row.get("remark") or "").strip() for _, row in read_rows(path))


def _spread(sizes: Mapping[str, int], number: int) -> dict[str, int]:
    """As even as the sizes allow, in the order of the names where it does not divide."""
    left, given = number, {}
    for position, name in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        given[name] = min(sizes[name], left // (len(sizes) - position))
        left -= given[name]
    return given


def _name(result: EvaluationResult) -> str:
    seed = "-" if result.training_seed is None else result.training_seed
    return f"{result.base_model}, {result.method}, {seed}"
