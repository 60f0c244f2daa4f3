r"""Where a text first states an answer, as a whole number or word (ours).

The comparison is of spellings: 12 is stated by "12", "12." and "$12$", and neither by 312, 12.5, 1/12 or -12, nor by
"twelve" or 24/2. A number may have separators between its thousands, a word may be in capitals, and blanks may be of
any length. Signs of currency and per cent around the answer do not count, nor does ``\text{}``. A number that stands in
the text for something else, such as an operand, states the answer too: the text alone does not tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_STATED_CHARS = 200
"""A longer answer is taken to be stated nowhere else."""

_NUMBER = re.compile(r"[-−+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_WRAPPED = re.compile(r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_AROUND = re.compile(r"(?:\s|\$|\\[$%,;:! ]|%)+")
# Chinese and Japanese are written without blanks: their characters are no part of a number or a word beside them.
_LETTER = r"[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"
_THOUSANDS = r"(?:,|\{,\}|\\,|\\!)?"
_MINUS = "[-\u2212]"
# Beside the number: no other digit or letter, no decimals or thousands, no fraction, root or power, no sign of its own.
_BEFORE_NUMBER = (
    rf"(?<!{_LETTER})(?<![\\.^])(?<!\d,)(?<!\d/)(?<!\^\{{)(?<!frac\{{)(?<!\}}\{{)(?<!sqrt\{{)"
    rf"(?<![^\w)\]}}]{_MINUS})(?<!^{_MINUS})"
)
_BEFORE_SIGN = rf"(?<!{_LETTER})(?<![)\]}}^\\])"
_BEFORE_OTHER = rf"(?<!{_LETTER})(?<!\\)(?<!{_MINUS})"
_BEHIND_NUMBER = rf"(?!{_LETTER})(?![.,]\d)(?!\{{,\}}\d)(?!/\d)(?!\^)(?!\\(?:pi|sqrt|[dt]?frac)(?![a-z]))"
_BEHIND_OTHER = rf"(?!{_LETTER})(?!\^)"


def first_statement(text: str, answers: Sequence[str], end: int) -> int | None:
    """The position in a text at which it has begun to state all of some answers.

    Args:
        text (`str`): untrusted.
        answers (`Sequence[str]`): one content, or those of a list, of which the one stated last counts.
        end (`int`): statements end up to here.

    Returns:
        `int` or `None`: where the statement begins; `None` where an answer is not stated.
    """
    starts = []
    for answer in answers:
        pattern = _stated(answer)
        match = None if pattern is None else pattern.search(text, 0, end)
        if match is None:
            return None
        starts.append(match.start())
    return max(starts, default=None)


def _stated(answer: str) -> re.Pattern[str] | None:
    """What states an answer; `None` where nothing does."""
    if len(answer) > MAX_STATED_CHARS:
        return None
    core = _bare(answer)
    if not core:
        return None
    if _NUMBER.fullmatch(core):
        return _stated_number(core)
    words = r"\s+".join(re.escape(word) for word in core.split())
    # A single letter is a choice or an unknown, where capitals matter.
    flags = re.IGNORECASE if len(core) > 1 else re.NOFLAG
    before = _BEFORE_OTHER if re.match(rf"{_LETTER}|\W", core) else ""
    behind = _BEHIND_OTHER if re.search(rf"(?:{_LETTER}|\W)\Z", core) else ""
    return re.compile(before + words + behind, flags)


def _stated_number(core: str) -> re.Pattern[str]:
    sign, digits = (core[0], core[1:]) if core[0] in "-−+" else ("", core)
    whole, _, decimals = digits.replace(",", "").partition(".")
    first = len(whole) % 3
    groups = [whole[:first]] * bool(first) + [whole[index : index + 3] for index in range(first, len(whole), 3)]
    number = _THOUSANDS.join(groups) + (rf"\.{decimals}" if decimals else "")
    if sign in ("-", "−"):
        return re.compile(_BEFORE_SIGN + _MINUS + number + _BEHIND_NUMBER)
    return re.compile(_BEFORE_NUMBER + number + _BEHIND_NUMBER)


def _bare(answer: str) -> str:
    """The answer without signs of currency and per cent, blanks and a text command around it."""
    core = answer
    for _ in range(3):
        wrapped = _WRAPPED.fullmatch(core)
        inner = core if wrapped is None else wrapped.group(1)
        inner = inner.strip()
        start = _AROUND.match(inner)
        inner = inner[start.end() :] if start else inner
        end = re.search(rf"{_AROUND.pattern}\Z", inner)
        inner = inner[: end.start()] if end else inner
        if inner == core:
            break
        core = inner
    return core
