r"""Whether the text of a key lists several answers, as in ``1,-2`` or ``x=3, y=5``.

Ours. A problem with such a key asks for several answers, so boxes that form a list are one answer to it
(`verl_ispo.answers.answer_place`), for the reward and for ISPO alike. A comma does not always list: it groups digits
(``35,000``), separates the coordinates of a point, the ends of an interval or the members of a set in braces, or comes
before a condition (``2n, n \ge 1``; ``ax+b, where b > 0``). All of these are one answer.
"""

from __future__ import annotations

import re

from .answer_structure import SEPARATOR, split_top_level

_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_CONDITION = re.compile(
    r"\b(?:where|with|for|if|such|any|all|every|when|while|otherwise|not)\b"
    r"|[<>]|\\(?:leq?|geq?|neq?|in|cup|cap|setminus|equiv|forall|exists|[lc]?dots|mid)(?![A-Za-z])|\.\.\.|…",
    re.IGNORECASE,
)
_SIGNS = re.compile(r"\\(?:pm|mp)(?![A-Za-z])")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_MAX_WORDS = 3


def without_grouping(text: str) -> str:
    """``1,000 and 2,500`` with its thousands separators taken out: ``1000 and 2500``."""
    return _GROUPED.sub(lambda number: number.group().replace(",", ""), text)


def lists_several(key: str) -> bool:
    r"""Whether a key lists several answers at its top level, or stands for two with ``\pm``.

    Args:
        key (`str`): as :func:`~verl_ispo.grading.normalization.normalize_answer` returns it.
    """
    if _CONDITION.search(key) or key.startswith("]"):
        return False
    pieces, _ = split_top_level(without_grouping(key), SEPARATOR)
    listed = [piece for piece in pieces if piece.strip()]
    if any(len(_WORD.findall(piece)) > _MAX_WORDS for piece in listed):
        return False
    return len(listed) > 1 or bool(split_top_level(key, _SIGNS)[1])
