r"""Answers: read from their cell, judged checkable or not, and named by kind.

The input is a cell of any type (a float, a list written as a string, a worked solution with a box); the output is text
that a grader can compare. Nothing is evaluated.
"""

from __future__ import annotations

import ast
import json
import math
import re
from decimal import Decimal
from typing import Any

from verl_ispo.answers.answer_place import BOXED, HASHES, find_marked
from verl_ispo.answers.ground_truth import GroundTruth
from verl_ispo.grading.answer_check import AnswerTooLarge, check_answer
from verl_ispo.grading.normalization import normalize_answer

MAX_ANSWER_CHARS = 1000
# An answer of more plain words than this is an explanation, which no rule-based grader can compare. (Ours.)
MAX_ANSWER_WORDS = 12

# "None" as Python writes a missing value is one; "none" is the answer of a problem that has no solution.
PLACEHOLDERS = {
    "", "-", "?", "...", "null", "nan", "n/a", "na", "unknown", "tbd", "no answer", "not available", "notfound",
    "not found", "answer not found", "no answer found", "omitted", "see solution", "see the solution", "see above",
    "problem not solved", "\\text{n/a}", "\\text{not found}",
}  # fmt: skip
MISSING = ("None", "NaN")
PROOFS = {"proof", "\\text{proof}", "proved", "q.e.d", "qed", "omitted proof", "see proof"}
# A dictionary in an answer cell, such as SYNTHETIC-1's verification_info or a turn of Open-Reasoner-Zero's.
_ANSWER_FIELDS = ("ground_truth", "final_answer", "answer", "value")

_INTEGER = re.compile(r"[-+]?\d+|[-+]?\d{1,3}(?:(?:,|\{,\}|\\!,|,\\!)\d{3})+")
_DECIMAL = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+)")
_FRACTION = re.compile(r"[-+]?(?:\\[dtc]?frac\s*(?:\{[-+]?\d+\}|\d)\s*(?:\{\d+\}|\d)|\d+\s*/\s*\d+)")
_PERCENTAGE = re.compile(r"[-+]?[\d.,]+\s*\\?%")
_CHOICE = re.compile(r"\(?[A-Z]\)?|\\text(?:bf)?\{\(?[A-Z]\)?\}")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mbox)\{[^{}]*\}|[A-Za-z]{3,}(?:[ '-][A-Za-z]+)*")


def answer_strings(cell: Any, from_solution: bool = False) -> list[str]:
    r"""The answer or answers in a cell, as text without surrounding math delimiters; empty if there is none.

    A list gives one string per item, even if it is written as a string (``"['2']"``). A worked solution gives the
    content of its last box, of several where they form a list (`verl_ispo.answers.answer_place`), or what follows the
    last ``####``. A dictionary, also as JSON, gives its answer, and a conversation that of its last reply.

    Args:
        cell (`Any`): the value as read.
        from_solution (`bool`, *optional*, defaults to `False`): the column holds worked solutions; without a box or
            ``####``, only a bare answer is one, not a text with words.
    """
    if isinstance(cell, str):
        listed = _list_in_string(cell)
        if listed is None:
            return _answers_in_text(cell, from_solution)
        cell = listed
    if isinstance(cell, dict):
        return answer_strings(next((cell[name] for name in _ANSWER_FIELDS if cell.get(name) is not None), None))
    if isinstance(cell, list | tuple) and any(isinstance(item, dict) for item in cell):
        return _answers_in_reply([item for item in cell if isinstance(item, dict)])
    if isinstance(cell, list | tuple):
        return [text for item in cell for text in answer_strings(item)]
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return []
    return [_decimal(cell) if isinstance(cell, float) else str(cell)]


def ground_truth(
    answers: list[str],
    several: bool | None = None,
    published_type: str = "",
    unit: str = "",
    tolerance: str = "",
) -> GroundTruth:
    """Puts answers into the form that is written to the parquet.

    Args:
        answers (`list[str]`): from `answer_strings`.
        several (`bool`, *optional*): whether there are several answers; by default, whether more than one is given.
        published_type (`str`, *optional*): OlympiadBench's ``answer_type``; it tells an interval from a pair.
        unit, tolerance (`str`, *optional*): as published.
    """
    several = len(answers) > 1 if several is None else several
    if not several:
        text = answers[0] if len(answers) == 1 else ", ".join(answers)
        return GroundTruth(text, False, unit, tolerance, answer_type(text, published_type))
    kinds = {answer_type(answer, published_type) for answer in answers}
    kind = kinds.pop() if len(kinds) == 1 else "mixed"
    return GroundTruth(json.dumps(answers, ensure_ascii=False), True, unit, tolerance, kind)


def uncheckable_reason(answers: list[str]) -> str | None:
    """Why no grader can check these answers, or `None` if one can.

    The reasons: no answer, proof, placeholder, too long, image, prose.
    """
    if not answers:
        return "no answer"
    for answer in answers:
        if answer.lower().rstrip(".") in PROOFS:
            return "proof"
        if answer in MISSING or answer.lower().rstrip(".") in PLACEHOLDERS:
            return "placeholder"
        if len(answer) > MAX_ANSWER_CHARS:
            return "too long"
        if "![" in answer or "\\includegraphics" in answer or "<image>" in answer:
            return "image"
        if len(re.findall(r"(?<![\\A-Za-z])[A-Za-z]{2,}", re.sub(r"\$[^$]*\$", " ", answer))) > MAX_ANSWER_WORDS:
            return "prose"
    return None


def answer_type(text: str, published_type: str = "") -> str:
    """Kind of one answer by its form; see `GroundTruth` for the names."""
    text = strip_math_delimiters(text)
    for kind, pattern in (
        ("integer", _INTEGER),
        ("decimal", _DECIMAL),
        ("fraction", _FRACTION),
        ("percentage", _PERCENTAGE),
    ):
        if pattern.fullmatch(text):
            return kind
    if text.lower() in ("yes", "no", "true", "false") or re.fullmatch(r"(?i)\\text\{(yes|no|true|false)\}", text):
        return "boolean"
    if _CHOICE.fullmatch(text):
        return "choice"
    if re.search(r"\\begin\{[a-z]*(?:matrix|array)\}", text):
        return "matrix"
    if published_type.lower() == "interval" or "\\cup" in text:
        return "interval"
    inside, opening, closing = _bracketed(text.replace("\\left", "").replace("\\right", ""))
    if opening == "\\{":
        return "set"
    if opening and "," in inside:
        looks_half_open = (opening, closing) != ("(", ")") or "\\infty" in inside
        return "interval" if looks_half_open and len(split_answers(inside)) == 2 else "tuple"
    if _TEXT.fullmatch(text):
        return "text"
    if re.search(r"(?<![<>!:])=|\\(?:le|ge|lt|gt|neq|leq|geq|in)\b|[<>]", text):
        return "equation"
    return "expression"


def strip_math_delimiters(text: str) -> str:
    r"""`text` without surrounding blanks, ``$``, ``\(``, ``\[`` and a final full stop after them."""
    text = text.strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        bare = text.rstrip(".") if text.startswith(opening) else text
        if bare.startswith(opening) and bare.endswith(closing) and len(bare) >= len(opening) + len(closing):
            inside = bare[len(opening) : len(bare) - len(closing)]
            if opening not in inside and "$" not in inside:
                return inside.strip()
    return text


def split_answers(text: str) -> list[str]:
    """The answers in a comma-separated list; commas within brackets do not count, and running text is not split.

    A half-open interval is kept whole, since any closing bracket closes any opening one.
    """
    if re.search(r"\b(?:where|with|and|for|such|any|all)\b", text):
        return [text.strip()]
    parts, depth, start = [], 0, 0
    text = text.replace("$", "")
    for index, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth = max(0, depth - 1)
        elif character == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def _bracketed(text: str) -> tuple[str, str, str]:
    """The text between an opening bracket at the start and its closing one at the end, then both brackets."""
    if not text.startswith(("(", "[", "\\{")):
        return "", "", ""
    depth = 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and character in ")]}":
            if index < len(text) - 1:
                return "", "", ""
            edge = 2 if text.startswith("\\{") else 1
            return text[edge:-edge], text[:edge], text[-edge:]
    return "", "", ""


def one_of_equal(answers: list[str]) -> list[str]:
    r"""The answers, or one of them where all are one value in several writings, as in ``["0.6", "3/5"]``.

    Some sets list the forms that a response may have. An exact form stays rather than a decimal. Only what the grader
    decides without its symbolic path counts as equal.
    """
    if len(answers) < 2 or any(len(answer) > MAX_ANSWER_CHARS for answer in answers):
        return answers
    try:
        key = GroundTruth(normalize_answer(answers[0]))
        equal = all(check_answer(key, normalize_answer(answer)) is True for answer in answers[1:])
    except (ValueError, AnswerTooLarge):
        return answers
    return [min(answers, key=lambda answer: bool(_DECIMAL.fullmatch(answer)))] if equal else answers


def _answers_in_text(text: str, from_solution: bool) -> list[str]:
    place = find_marked(text, (BOXED, HASHES), several=True)
    if place is not None and place.start < place.end:
        names = place.names or ((0, 0),) * len(place.parts)
        pairs = zip(names, place.parts, strict=True)
        return [text[name[0] : name[1]] + strip_math_delimiters(text[start:end]) for name, (start, end) in pairs]
    text = strip_math_delimiters(text)
    return [] if not text or (from_solution and not _is_bare(text)) else [text]


def _is_bare(text: str) -> bool:
    """Whether a text is an answer alone: one line without words, or a number with at most two."""
    if "\n" in text:
        return False
    words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{2,}", re.sub(r"\$[^$]*\$|\\text\{[^{}]*\}", " ", text))
    return not words or (len(words) <= 2 and bool(re.match(r"[-+$]?\d", text)))


def _answers_in_reply(messages: list[dict[str, Any]]) -> list[str]:
    """The answer of the last reply in a conversation: its ``ground_truth`` where it has one, else that of its text."""
    replies = [m for m in messages if (m.get("role") or m.get("from")) in ("assistant", "gpt", "model")]
    if not replies:
        return []
    if replies[-1].get("ground_truth") is not None:
        return answer_strings(replies[-1]["ground_truth"])
    text = replies[-1].get("content") or replies[-1].get("value")
    return answer_strings(text, from_solution=True) if isinstance(text, str) else []


def _decimal(value: float) -> str:
    """A number as decimal digits, to the 15 that a float surely has: 0.8333333333333334 is 5/6 and not above it."""
    if value.is_integer():
        return str(int(value))
    return format(Decimal(f"{value:.15g}"), "f")


def _list_in_string(text: str) -> list[Any] | dict[str, Any] | None:
    """The list or dictionary that a string writes, as JSON or as Python."""
    text = text.strip()
    if text.startswith("{") and text.endswith("}") and '"' in text:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None
    if not (text.startswith(("['", '["')) and text.endswith(("']", '"]')) and len(text) <= 10 * MAX_ANSWER_CHARS):
        return None
    for parse in (json.loads, ast.literal_eval):  # a literal, never an expression
        try:
            value = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return value if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value) else None
    return None
