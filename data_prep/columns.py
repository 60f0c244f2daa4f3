"""Finding the question and the answer among a file's columns, and reading their cells as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verl_ispo.user_error import UserError

# In order of preference; case does not matter. A plain question comes before a prompt, which may be wrapped.
QUESTION_NAMES = (
    "question",
    "problem",
    "extra_info.question",
    "prompt",
    "query",
    "instruction",
    "problem_statement",
    "conversations",
    "0.value",
)
# Read where the first choice is empty in a row, as in a merged file of which some sets lack the column.
_FALLBACKS = ("prompt", "conversations")
# `solution` last: it is a worked solution in some sets, and the bare answer in others.
ANSWER_NAMES = (
    "final_answer",
    "answer",
    "expected_answer",
    "ground_truth",
    "reward_model.ground_truth",
    "label",
    "target",
    "gold",
    "verification_info",
    "solution",
    "conversations",
    "1.ground_truth",
)
ID_NAMES = ("id", "unique_id", "problem_id", "question_id", "uuid", "extra_info.index", "extra_info.id")


@dataclass(frozen=True)
class ColumnChoice:
    """Paths of the columns that are read; `id` is `None` where a file has none, as is `fallback`.

    `fallback` is read for a row whose question is empty.
    """

    question: str
    answer: str
    id: str | None
    fallback: str | None = None


def choose_columns(
    names: Sequence[str],
    label: str,
    question: str | None = None,
    answer: str | None = None,
    id_column: str | None = None,
) -> ColumnChoice:
    """The columns to read from a file with the columns `names`.

    Args:
        names (`Sequence[str]`): column paths, as in ``reward_model.ground_truth``.
        label (`str`): the file, for messages.
        question, answer (`str`, *optional*): given by the user; the usual names are tried otherwise.
        id_column (`str`, *optional*): the same for the row's id; ``"none"`` says that there is none.

    Raises:
        UserError: if a column is missing; the message lists those found and the flag to pass.
    """
    if id_column == "none":
        row_id = None
    else:
        row_id = _find(names, label, "id", ID_NAMES, id_column) if id_column else _look_up(names, ID_NAMES)
    chosen = _find(names, label, "question", QUESTION_NAMES, question)
    fallback = _look_up(names, _FALLBACKS) if chosen == "extra_info.question" else None
    return ColumnChoice(chosen, _find(names, label, "answer", ANSWER_NAMES, answer), row_id, fallback)


def choose_question_column(names: Sequence[str], label: str, question: str | None = None) -> str:
    """Like `choose_columns`, for a file that needs no answers."""
    return _find(names, label, "question", ("extra_info.question", *QUESTION_NAMES), question)


def holds_row_numbers(id_column: str | None) -> bool:
    """Whether a column may hold row numbers rather than ids: verl's ``extra_info.index``, which merged files repeat."""
    return id_column is not None and id_column.lower().endswith(".index")


def choice_line(label: str, columns: ColumnChoice, from_solution: bool, extras: Sequence[str] = ()) -> str:
    """One line that says what is taken from a file, so that a wrong guess is seen before it is trained on."""
    question = columns.question + (f" (else {columns.fallback})" if columns.fallback else "")
    within = " (of the last reply)" if columns.answer.lower().endswith("conversations") else " (its last box or ####)"
    answer = columns.answer + (within if from_solution else "")
    row_id = f"id from {columns.id}" if columns.id else "no id"
    if holds_row_numbers(columns.id):
        row_id += " (unless it is a row number)"
    parts = [f"question from {question}", f"answer from {answer}", row_id]
    if extras:
        parts.append(f"also {', '.join(extras)}")
    return f"{label}: {', '.join(parts)}"


def question_text(cell: Any) -> str | None:
    """Text of a question cell: a string, or the last user message of a list of chat messages; else `None`.

    Messages are in OpenAI's form (``role``, ``content``) or ShareGPT's (``from``, ``value``).
    """
    if isinstance(cell, list):
        messages = [message for message in cell if isinstance(message, dict)]
        asked = [message for message in messages if (message.get("role") or message.get("from")) in ("user", "human")]
        cell = (asked[-1].get("content") or asked[-1].get("value")) if asked else None
    if isinstance(cell, list):  # content in parts
        cell = "".join(part.get("text") or "" for part in cell if isinstance(part, dict))
    return cell if isinstance(cell, str) else None


def _find(names: Sequence[str], label: str, role: str, usual: Sequence[str], given: str | None) -> str:
    found = _look_up(names, [given] if given else usual)
    if found is None:
        wanted = f"no column {given!r}" if given else f"no {role} column with a usual name ({', '.join(usual)})"
        raise UserError(f"{label}: {wanted}; it has {', '.join(names)}; pass --{role}_column NAME")
    return found


def _look_up(names: Sequence[str], wanted: Sequence[str | None]) -> str | None:
    by_lower_case = {name.lower(): name for name in names}
    for name in wanted:
        if name in names:
            return name
        if name is not None and name.lower() in by_lower_case:
            return by_lower_case[name.lower()]
    return None
