"""Read a ground truth and what ``extra_info`` says about it: several answers, a unit, a tolerance."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from verl_ispo.answers.ground_truth import GroundTruth

from .answer_structure import split_top_level
from .normalization import MAX_ANSWER_CHARS, normalize_answer
from .units import canonical_unit

_LIST_SEPARATOR = re.compile(
    r"\s*(?:[,;]|\\text\{\s*[,;]?\s*(?:and|or)?\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*"
)
_SIGNS = re.compile(r"\\(?:pm|mp)(?![A-Za-z])")
_CONDITION = re.compile(
    r"\b(?:where|with|for|if|such|any|all|every|when|while|otherwise|not)\b"
    r"|[<>]|\\(?:leq?|geq?|neq?|in|cup|cap|setminus|equiv|forall|exists|[lc]?dots|mid)(?![A-Za-z])|\.\.\.|…",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_MAX_WORDS_OF_AN_ITEM = 3
_GROUPED = re.compile(r"(?<![\d.,(\[])\d{1,3}(?:,\d{3})+(?![\d,])")


def _listed(text: str) -> list[str] | None:
    """The strings of a list written as JSON or as Python (``"['2', '3']"``); ``None`` for any other text."""
    if not (text.startswith("[") and text.endswith("]") and ('"' in text or "'" in text)):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            items = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(items, list) and items and all(isinstance(item, str | int | float) for item in items):
            return [str(item) for item in items]
    return None


def read_tolerance(value: Any) -> Fraction | None:
    """``"1e-1"``, ``0.1``, and the OlympiadBench form ``"1e-1,1e-2"`` (the first counts); ``None`` for none.

    Raises:
        ValueError: if it is not a number, or below 0.
    """
    text = str(value).split(",")[0].strip() if value is not None else ""
    if text in ("", "None", "nan"):
        return None
    try:
        tolerance = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"extra_info['tolerance'] is {value!r}, not a number; give one such as '1e-1'") from error
    if tolerance < 0:
        raise ValueError(f"extra_info['tolerance'] is {value!r}; give a number of at least 0")
    return tolerance


def read_log_base(value: Any) -> str:
    r"""The base of a bare ``\log``: ``"e"``, which is also what ``None`` and ``""`` mean, or a whole number from 2 on.

    Raises:
        ValueError: if it is neither.
    """
    text = str(value).strip() if value is not None else ""
    if text in ("", "None", "nan", "e"):  # a merged file has NaN where a set has none
        return "e"
    if re.fullmatch(r"[1-9]\d{0,3}", text) and text != "1":
        return text
    raise ValueError(f"extra_info['log_base'] is {value!r}; give 'e' or a whole number such as '10'")


def without_grouping(text: str) -> str:
    """``1,000 and 2,500`` with its thousands separators taken out: ``1000 and 2500``."""
    return _GROUPED.sub(lambda number: number.group().replace(",", ""), text)


def lists_several(key: str) -> bool:
    r"""Whether the text of a key lists several answers at its top level, or stands for two with ``\pm``.

    Ours. A comma does not always list: it groups digits (``35,000``), separates the coordinates of a point, the ends of
    an interval or the members of a set in braces, or comes before a condition (``2n, n \ge 1``; ``ax+b, where b > 0``).
    All of these are one answer.

    Args:
        key (`str`): as :func:`~verl_ispo.grading.normalization.normalize_answer` returns it.
    """
    if len(key) > MAX_ANSWER_CHARS or _CONDITION.search(key) or key.startswith("]"):
        return False
    items = [item for item in split_top_level(without_grouping(key), _LIST_SEPARATOR)[0] if item.strip()]
    if any(len(_WORD.findall(item)) > _MAX_WORDS_OF_AN_ITEM for item in items):
        return False
    return len(items) > 1 or bool(split_top_level(key, _SIGNS)[1])


def asks_for_several(ground_truth: Any, extra_info: Any = None) -> bool:
    """Whether a problem has several answers, so that boxes that form a list are graded as one answer.

    For callers that need to find the answer that is graded, such as `find_answer_spans`; the arguments are those of
    `read_ground_truth`. Never raises, whatever the ground truth is.
    """
    answers = _normalized_answers(ground_truth)
    return _is_flagged(extra_info) or len(answers) > 1 or any(map(lists_several, answers))


def _is_flagged(extra_info: Any) -> bool:
    return isinstance(extra_info, Mapping) and bool(extra_info.get("multiple_answers"))


def published_answers(ground_truth: Any) -> list[str]:
    """The answers of a ground truth as the data set writes them, one text each; an empty one may be among them."""
    if isinstance(ground_truth, list | tuple):
        return [str(item) for item in ground_truth]
    text = str(ground_truth).strip() if ground_truth is not None else ""
    return _listed(text[: 4 * MAX_ANSWER_CHARS]) or [text]


def right_answer_text(ground_truth: Any) -> str:
    """A ground truth as a response would state it: the data set's text, several answers joined by commas.

    Neither normalized nor with the unit of ``extra_info``. Empty where there is none, and where it is not the text of
    an answer (a mapping, as some scorers take it).
    """
    if isinstance(ground_truth, Mapping):
        return ""
    if hasattr(ground_truth, "tolist"):  # a list that was read from parquet
        ground_truth = ground_truth.tolist()
    return ", ".join(answer.strip() for answer in published_answers(ground_truth) if answer.strip())


def _normalized_answers(ground_truth: Any) -> list[str]:
    return [answer for answer in map(normalize_answer, published_answers(ground_truth)) if answer]


def read_ground_truth(ground_truth: Any, extra_info: Mapping[str, Any] | None = None) -> GroundTruth:
    """Read a ground truth as the data sets carry it.

    Args:
        ground_truth (`str`, `int`, `float` or `list`):
            The answer; several answers as a list, or as a list written as a string.
        extra_info (`Mapping`, *optional*):
            ``multiple_answers`` (`bool`), ``unit`` (`str`), ``tolerance`` (`str`, such as ``"1e-1"``) and ``log_base``
            (`str`, the base of a bare ``\\log``: ``"e"``, the default, or ``"10"``) are read.

    Returns:
        `GroundTruth`: With the text and the unit in normal form; ``answer_type`` is empty.

    Raises:
        ValueError: if the ground truth is empty or too long, the tolerance is not a number, or the base of logarithms
            is neither ``"e"`` nor a whole number.
    """
    info = extra_info if isinstance(extra_info, Mapping) else {}
    answers = _normalized_answers(ground_truth)
    if not answers:
        raise ValueError(f"the ground truth is empty: {ground_truth!r}")
    if len(answers) > 1:
        answers = [without_grouping(answer) for answer in answers]
    text = ", ".join(answers)
    if len(text) > MAX_ANSWER_CHARS:
        raise ValueError(f"the ground truth has more than {MAX_ANSWER_CHARS} characters: {text[:80]!r}...")
    unit = info.get("unit")
    tolerance = read_tolerance(info.get("tolerance"))
    return GroundTruth(
        text=re.sub(r"\s+", " ", text),
        multiple_answers=_is_flagged(info) or len(answers) > 1,
        unit=canonical_unit(normalize_answer(str(unit))) if unit else "",
        tolerance="" if tolerance is None else str(tolerance),
        log_base=read_log_base(info.get("log_base")),
    )
