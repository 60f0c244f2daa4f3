r"""The last box in a text, or the last boxes where they form a list.

As in LaTeX, a backslash makes the next character an ordinary one, so ``\{`` does not group, and ``\\{`` does. Of boxes
inside one another the outermost counts, since its content is what a reader sees as the answer; where it holds nothing
but another box, the content of that one. A box that never closes is no box, and those inside it count.

An empty box (``\boxed{}``, or one that only holds blanks, dots or "your answer") is a mention of the format and no
answer: the last box with content counts. Without any, the word after the last ``\boxed 5`` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .place import AnswerPlace, one_part, without_blanks

NAME = "boxed"

MAX_LIST_GAP_CHARS = 40
"""Two boxes of one list are at most this many characters apart."""

MAX_BOX_NAME_CHARS = 24
"""The name of a list's first box begins at most this many characters before it."""

_MAX_EMPTY_CHARS = 40

# One pass over the text, with one entry per brace. "\\." takes an escaped character out of the count.
_BOX_OR_BRACE = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{|\\.|[{}]", re.DOTALL)
_SAFE = re.compile(r"[^A-Za-z\\\s]")  # may be a command's last character, but none before it
_BARE_BOX = re.compile(r"\\boxed(?:[ \t]+|(?=\d))([^\s{}$\\]+)")
_EMPTY = re.compile(
    r"(?:\s|[.…?~_]|\\[ ,;:!]|\\(?:quad|qquad|[lc]?dots|square|Box)(?![A-Za-z])|\\text\{\s*\}|\{\s*\}"
    r"|\\(?:h?phantom|hspace)\*?\{[^{}]*\})*"
    r"|(?:\\text\{)?\s*[\[<($]?(?:your |final |the )*answer(?: here)?[\]>)]?\s*\}?",
    re.IGNORECASE,
)
_BLANK = r"\s|\$|\\[()\[\]]|\\[ ,;:!\\]|\\q?quad(?![A-Za-z])|&"
_JOIN = (
    r"[,;，；、]|\.(?=\s)|\\(?:text(?:bf|rm|it)?|mathrm|mbox)\{\\?\s*,?\s*(?:and|or)\\?\s*,?\s*\}"
    r"|<br>|\b(?:and|or|also|as well as|together with)\b"
    r"|\\(?:lor|land|vee|wedge)(?![A-Za-z])|[和或与]"
)
# What begins an item of a list: a dash, a bullet, a number or a letter with a bracket or full stop.
_BULLET = r"(?<=\n)[ \t]{0,8}(?:[-*+•]|\(?(?:\d{1,2}|[a-h]|i{1,3})[.)])(?=[\s$\\])|\((?:\d|[a-h]|i{1,3})\)"
_LETTER = r"(?:[A-Za-z]|\\(?:alpha|beta|gamma|delta|lambda|mu|theta|phi|omega)(?![A-Za-z]))"
_BOX_NAME = rf"{_LETTER}(?:_(?:\{{\w{{1,4}}\}}|\w))?'{{0,2}}(?:\([A-Za-z]\))?\s{{0,3}}=\s{{0,3}}"
_BETWEEN_BOXES = re.compile(rf"(?:{_BULLET}|{_JOIN}|{_BLANK})*(?P<name>{_BOX_NAME})?(?:\$|\\[(\[]|\s)*")
_NAME_BEFORE_BOX = re.compile(rf"(?<![A-Za-z\\_^])(?P<name>{_BOX_NAME})(?:\$|\\[(\[]|\s)*\Z")
_INDEX = re.compile(r"_(?:\{\w{1,4}\}|\w)")


@dataclass(frozen=True)
class _Box:
    """A balanced box: where its command begins, its content without blanks, and one past its closing brace."""

    opening: int
    start: int
    end: int
    closing: int


def find_box(text: str, search_start: int, several: bool) -> AnswerPlace | None:
    """The answer in the last box with content; see `verl_ispo.answers.answer_place` for lists of boxes."""
    return _find_box(text, search_start, several)[0]


def find_box_from(text: str, start: int, several: bool) -> tuple[AnswerPlace | None, bool]:
    """The answer in the last box that opens behind `start`, and whether the text before it cannot change that.

    A box that opens behind `start` closes by braces behind it. What is before can only matter through a box around
    the one that is found, which would close behind it, and for a list through a box close before its first one.

    Args:
        text (`str`).
        start (`int`): from :func:`safe_start`.
        several (`bool`): as in `find_answer`.
    """
    place, examined_from, stray_closing = _find_box(text, start, several)
    if place is None or place.marker != NAME or examined_from < 0:
        return place, False
    if several:
        return place, stray_closing < start and examined_from - start > MAX_LIST_GAP_CHARS
    return place, stray_closing < place.start


def safe_start(text: str) -> int | None:
    """The first position that no command of a box and no escaped character spans; `None` without one."""
    match = _SAFE.search(text)
    return None if match is None else match.end()


def _find_box(text: str, search_start: int, several: bool) -> tuple[AnswerPlace | None, int, int]:
    """The answer; where the first box that was looked at begins, -1 for none; the last brace that closes nothing."""
    boxes, stray_closing = _outermost_boxes(text, search_start)
    last = next((index for index in reversed(range(len(boxes))) if not _is_empty(text, boxes[index])), None)
    if last is None:
        return _find_bare_box(text, search_start), -1, stray_closing
    chosen, names, examined_from = [boxes[last]], [], boxes[last].opening
    if several:
        for index in range(last - 1, -1, -1):
            left, right = boxes[index], boxes[index + 1]
            examined_from = right.opening
            gap = _list_gap(text, left, right)
            if gap is None:
                break
            examined_from = left.opening
            if right is chosen[-1]:
                names.append(gap.span("name"))
            if not _is_empty(text, left):
                chosen.append(left)
        chosen.reverse()
        first = chosen[0].opening
        begin = max(search_start, first - MAX_BOX_NAME_CHARS)
        before = _NAME_BEFORE_BOX.search(text, begin, first)
        names.append(before.span("name") if before is not None else (-1, -1))
        names.reverse()
    parts = tuple((box.start, box.end) for box in chosen)
    kept = tuple(names) if _tell_unknowns_apart(text, names, len(parts)) else ()
    lead_in_start = kept[0][0] if kept else chosen[0].opening
    place = AnswerPlace(NAME, lead_in_start, parts[0][0], parts[-1][1], parts, chosen[-1].closing, kept)
    return place, examined_from, stray_closing


def _outermost_boxes(text: str, search_start: int) -> tuple[list[_Box], int]:
    """The balanced boxes that are in no other balanced box, from left to right, and the last brace that closes nothing.

    Without such a brace its position is -1.
    """
    boxes: list[_Box] = []
    # One entry per open brace: (start of the box command, start of its content), or None for a plain brace.
    open_braces: list[tuple[int, int] | None] = []
    stray_closing = -1
    for match in _BOX_OR_BRACE.finditer(text, search_start):
        mark = match.group()
        if mark == "{":
            open_braces.append(None)
        elif mark == "}":
            if not open_braces:
                stray_closing = match.start()
                continue
            box = open_braces.pop()
            if box is None:
                continue
            start, end = without_blanks(text, box[1], match.start())
            # An outer box takes the place of those inside it.
            inner = None
            while boxes and boxes[-1].opening > box[0]:
                inner = boxes.pop()
            if inner is not None and (inner.opening, inner.closing) == (start, end):
                start, end = inner.start, inner.end
            boxes.append(_Box(box[0], start, end, match.end()))
        elif len(mark) > 2:
            open_braces.append((match.start(), match.end()))
    return boxes, stray_closing


def _is_empty(text: str, box: _Box) -> bool:
    return box.end - box.start <= _MAX_EMPTY_CHARS and _EMPTY.fullmatch(text, box.start, box.end) is not None


def _list_gap(text: str, left: _Box, right: _Box) -> re.Match[str] | None:
    """The match of what is between two boxes of one list; `None` where they form no list."""
    if right.opening - left.closing > MAX_LIST_GAP_CHARS:
        return None
    return _BETWEEN_BOXES.fullmatch(text, left.closing, right.opening)


def _tell_unknowns_apart(text: str, names: list[tuple[int, int]], boxes: int) -> bool:
    """Whether every box has a name of its own: ``x=``, ``y=``, but not ``x=``, ``x=`` or ``x_1=``, ``x_2=``.

    Values of one unknown, numbered or not, are a list of values, as keys write them.
    """
    if len(names) != boxes or boxes < 2 or any(start < 0 for start, _ in names):
        return False
    letters = {_INDEX.sub("", text[start:end]).replace(" ", "").strip() for start, end in names}
    return len(letters) == boxes


def _find_bare_box(text: str, search_start: int) -> AnswerPlace | None:
    last = None
    for last in _BARE_BOX.finditer(text, search_start):  # noqa: B007 - only the last one is wanted
        pass
    if last is None:
        return None
    start, end = last.span(1)
    while end > start + 1 and text[end - 1] in ".,;:":
        end -= 1
    return one_part(NAME, last.start(), (start, end))
