r"""Which rows of a training set are the same question.

There are three cases. *Exact* duplicates agree in question and answer, character by character. *Normalized* duplicates
agree in the normalized question (`text_normalization`) and in the answer's short form; the first copy is kept. A
*conflict* is one normalized question with answers that differ: at least one of them is incorrect, so by default every
copy is dropped.

Which questions are kept does not depend on the order of the rows; which copy of a question is kept does (the first).
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from dataclasses import dataclass, field
from typing import Any

from data_prep.answer_kinds import strip_math_delimiters
from data_prep.text_normalization import digest
from verl_ispo.answers.ground_truth import GroundTruth
from verl_ispo.user_error import UserError

ANSWER_RULE = (
    "blanks, $, \\left/\\right, \\text{} and thousands commas off; \\dfrac{a}{b} = \\frac{a}{b} = a/b for integers; "
    "leading zeros and '.0' off; several answers in any order"
)


def answer_key(truth: GroundTruth) -> str:
    """Short form of an answer; two answers conflict if theirs differ. Only text is compared: 0.5 and 1/2 differ."""
    answers = json.loads(truth.text) if truth.multiple_answers else [truth.text]
    return "\x1f".join(sorted(_short_form(answer) for answer in answers))


def _short_form(answer: str) -> str:
    text = strip_math_delimiters(answer)
    text = re.sub(r"\\(?:left|right|displaystyle|!|,|;|:| )|\\?\$|\s+", "", text)
    text = re.sub(r"\\(?:text|mathrm|textbf|mbox)\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\[dtc]?frac\{?(-?\d+)\}?\{?(\d+)\}?", r"\1/\2", text) if "frac" in text else text
    text = re.sub(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?:\D|$))", "", text) if re.fullmatch(r"[-+\d,{}.]+", text) else text
    if re.fullmatch(r"[-+]?\d+(?:\.0*)?", text) and len(text) <= 1000:
        text = text.partition(".")[0].lstrip("+")
        sign = "-" if text.startswith("-") else ""
        text = sign + (text.lstrip("-").lstrip("0") or "0")
    return text.lower().rstrip(".")


@dataclass
class Conflict:
    """One normalized question with several answers: its survivor number, and the answers in order of appearance."""

    survivor: int
    answers: list[str]


@dataclass
class QuestionIndex:
    """Questions seen so far. A survivor is the first row of its normalized question, numbered from 0.

    Memory: about 250 bytes per distinct question, independent of its length.

    Attributes:
        conflicts (`dict[int, Conflict]`): by survivor number.
        exact_duplicates, normalized_duplicates (`int`): rows that were dropped as such.
        conflicting_rows (`int`): rows that were dropped because their answer differs from the survivor's.
        rows_sha256: running hash of all rows as read, for the data card.
    """

    conflicts: dict[int, Conflict] = field(default_factory=dict)
    exact_duplicates: int = 0
    normalized_duplicates: int = 0
    conflicting_rows: int = 0
    rows_sha256: Any = field(default_factory=hashlib.sha256)
    _seen_rows: set[bytes] = field(default_factory=set)
    _survivors: dict[bytes, int] = field(default_factory=dict)
    _answer_hashes: array = field(default_factory=lambda: array("Q"))

    def is_exact_duplicate(self, raw_row: str) -> bool:
        """Whether this text (question and answer as read) came before; counts it if so, stores it if not."""
        key = digest(raw_row)
        self.rows_sha256.update(key)
        if key in self._seen_rows:
            self.exact_duplicates += 1
            return True
        self._seen_rows.add(key)
        return False

    def add(self, normalized: str, truth: GroundTruth) -> bool:
        """Adds a row whose question has this normalized text. Returns whether it is the first, which survives."""
        key = digest(normalized)
        answer_hash = _short_hash(answer_key(truth))
        survivor = self._survivors.setdefault(key, len(self._answer_hashes))
        if survivor == len(self._answer_hashes):
            self._answer_hashes.append(answer_hash)
            return True
        conflict = self.conflicts.get(survivor)
        if answer_hash == self._answer_hashes[survivor]:
            self.normalized_duplicates += 1
        else:
            self.conflicting_rows += 1
            if conflict is None:
                self.conflicts[survivor] = Conflict(survivor, [truth.text])
            elif truth.text not in conflict.answers:
                conflict.answers.append(truth.text)
        return False

    def __len__(self) -> int:
        return len(self._answer_hashes)


@dataclass
class IdRegister:
    """Finds an id shared by two different questions: two sets joined into one, or a broken column."""

    _questions: dict[int, int] = field(default_factory=dict)

    def check(self, file: str, row: int, row_id: Any, normalized: str) -> None:
        """Records a row of `file`.

        Raises:
            UserError: if another question of that file has the same id.
        """
        if row_id is None:
            return
        question = _short_hash(normalized)
        # One integer takes less memory than a tuple of two, and there may be millions.
        known, first_row = divmod(
            self._questions.setdefault(_short_hash(f"{file}\0{row_id}"), question << 32 | row), 2**32
        )
        if known != question:
            raise UserError(
                f"{file}: the id {str(row_id)[:80]!r} is shared by two different questions, in rows {first_row} and "
                f"{row}; correct the file, name another --id_column, or pass --id_column none (ids are only checked)"
            )


def _short_hash(text: str) -> int:
    return int.from_bytes(digest(text)[:8], "little")
