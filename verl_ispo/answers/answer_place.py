r"""Where the final answer is in a text. Everything that reads an answer uses this module.

IFD scores the tokens that cover the answer, the grader grades its text, the tiny task's reward compares it, the data
preparation takes it from worked solutions: all of them read the same characters. The rule is ours; the paper does
not say where the answer is.

The markers, in order of precedence (``answer_format="auto"``):

1. **A box**: ``\boxed{...}``, ``\fbox{...}`` or ``\framebox{...}`` whose braces balance. The last one counts. Of boxes
   inside one another the outermost counts, since its content is what a reader sees as the answer; where it holds
   nothing but another box, the content of that one. A box that never closes is no box, and those inside it count. As
   in LaTeX, a backslash makes the next character an ordinary one, so ``\{`` does not group, and ``\\{`` does.
   Without any balanced box, the word after the last ``\boxed 5`` counts.
2. **An answer line**: ``Answer:``, in any case, anywhere in a line, also bold (``**Answer**: 5``) or with a full-width
   colon (``Answer：5``). The answer is the rest of the line, or the next line that is not empty, up to 11 lines below;
   a line that only opens displayed maths (``\[`` or ``$$``) is passed over. The last label that has an answer counts,
   and a line that holds a later, empty label is no answer.

White space around the content is no part of it, nor are the ``*`` and ``_`` of emphasis around an answer line. An empty
box is an empty answer: neither an earlier box nor an answer line takes its place.

**Several boxes as one list.** ``\boxed{1} and \boxed{3}`` is one answer, "1, 3", where the problem asks for several
answers, and otherwise it is the answer "3". The text alone does not tell which, so the caller does (``several``). In a
list, only white space, ``$``, commas, semicolons, full stops, display delimiters, "and" or "or" are between two boxes,
40 characters at most; empty boxes are left out. :func:`answer_text` joins the contents with commas, and that is graded;
`AnswerPlace.start` and `AnswerPlace.end` reach from the first content to the last, and that one run is scored.

Texts are untrusted. The work is linear in the length of the text, whatever it holds, and only the last
:data:`MAX_SEARCH_CHARS` characters are searched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_SEARCH_CHARS = 1_000_000
"""Only this many characters from the end of a text are searched for an answer."""

MAX_ANSWER_LINES = 12
"""An answer line's answer is in this many lines, the label's own among them."""

MAX_LIST_GAP_CHARS = 40
"""Two boxes of one list are at most this many characters apart."""

_EMPHASIS = "*_"
_DISPLAY_OPENINGS = (r"\[", "$$")
# One pass over the text, with one entry per brace. "\\." takes an escaped character out of the count.
_BOX_OR_BRACE = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\boxed[ \t]+([^\s{}$\\]+)")
_BETWEEN_BOXES = re.compile(r"(?:\s|\$|,|;|\\[()\[\]]|\\text\{\s*(?:and|or)\s*\}|\band\b|\bor\b|\.(?=\s))*")
# Bounded blanks: with unbounded ones on both sides of the stars, a long run of blanks would cost its square.
_ANSWER_LABEL = re.compile(r"answer[ \t]{0,8}(?:\*\*|__)?[ \t]{0,8}[:：]", re.IGNORECASE)


@dataclass(frozen=True)
class AnswerPlace:
    """Character positions of an answer in a text.

    Attributes:
        marker (`str`): name of the `Marker` that gives the answer.
        lead_in_start (`int`): where the marker begins, such as the backslash of ``\\boxed{``. The trace is the text
            before it, the lead-in reaches from here to `start`.
        start, end (`int`): the content, from its first character to one past its last; equal if it is empty.
        parts (`tuple[tuple[int, int], ...]`): start and end of each content. One, unless several boxes form a list.
    """

    marker: str
    lead_in_start: int
    start: int
    end: int
    parts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Marker:
    """A way to mark the final answer.

    Attributes:
        name (`str`): for code and configuration.
        description (`str`): how a message names it.
        asked (`re.Pattern`): found in a prompt that asks for this marker.
        find (`Callable`): ``find(text, search_start, several)`` gives the place of the answer that this marker gives,
            with empty content if there is a marker without content, or `None` without a marker. `several` is as in
            :func:`find_answer`.
    """

    name: str
    description: str
    asked: re.Pattern[str]
    find: Callable[[str, int, bool], AnswerPlace | None]


def find_answer(text: str, answer_format: str = "auto", several: bool = False) -> AnswerPlace | None:
    """Find the final answer in a text.

    Args:
        text (`str`): a response, untrusted.
        answer_format (`str`, *optional*, defaults to `"auto"`): a key of :data:`ANSWER_FORMATS`, which markers count.
        several (`bool`, *optional*, defaults to `False`): the problem asks for several answers, so boxes that form a
            list are one answer.

    Returns:
        `AnswerPlace` or `None`: `None` where there is no answer, or an empty one.

    Raises:
        ValueError: if `answer_format` is unknown.
    """
    markers = ANSWER_FORMATS.get(answer_format)
    if markers is None:
        raise ValueError(f"answer_format is {answer_format!r}; choose from {', '.join(ANSWER_FORMATS)}")
    place = find_marked(text, markers, several)
    return place if place is not None and place.start < place.end else None


def find_marked(text: str, markers: Sequence[Marker], several: bool = False) -> AnswerPlace | None:
    """The place that the first of some markers gives, possibly empty; `None` where the text has none of them."""
    search_start = max(0, len(text) - MAX_SEARCH_CHARS)
    for marker in markers:
        place = marker.find(text, search_start, several)
        if place is not None:
            return place
    return None


def answer_text(text: str, place: AnswerPlace) -> str:
    """The answer at a place of a text; the answers of a list are joined by commas."""
    return ", ".join(text[start:end] for start, end in place.parts)


def _find_box(text: str, search_start: int, several: bool) -> AnswerPlace | None:
    boxes = _outermost_boxes(text, search_start)
    if not boxes:
        return _find_bare_box(text, search_start)
    chosen = [boxes[-1]]
    if several:
        for left, right in zip(boxes[-2::-1], boxes[:0:-1], strict=False):
            if not _form_a_list(text, left, right):
                break
            chosen.append(left)
        chosen.reverse()
        chosen = [box for box in chosen if box.start < box.end] or chosen[-1:]
    parts = tuple((box.start, box.end) for box in chosen)
    return AnswerPlace(BOXED.name, chosen[0].opening, parts[0][0], parts[-1][1], parts)


@dataclass(frozen=True)
class _Box:
    """A balanced box: where its command begins, its content without blanks, and one past its closing brace."""

    opening: int
    start: int
    end: int
    closing: int


def _outermost_boxes(text: str, search_start: int) -> list[_Box]:
    """The balanced boxes that are in no other balanced box, from left to right."""
    boxes: list[_Box] = []
    # One entry per open brace: (start of the box command, start of its content), or None for a plain brace.
    open_braces: list[tuple[int, int] | None] = []
    for match in _BOX_OR_BRACE.finditer(text, search_start):
        mark = match.group()
        if mark == "{":
            open_braces.append(None)
        elif mark == "}":
            box = open_braces.pop() if open_braces else None
            if box is None:
                continue
            start, end = _without_blanks(text, box[1], match.start())
            # An outer box takes the place of those inside it.
            inner = None
            while boxes and boxes[-1].opening > box[0]:
                inner = boxes.pop()
            if inner is not None and (inner.opening, inner.closing) == (start, end):
                start, end = inner.start, inner.end
            boxes.append(_Box(box[0], start, end, match.end()))
        elif len(mark) > 2:
            open_braces.append((match.start(), match.end()))
    return boxes


def _form_a_list(text: str, left: _Box, right: _Box) -> bool:
    gap = right.opening - left.closing
    return gap <= MAX_LIST_GAP_CHARS and bool(_BETWEEN_BOXES.fullmatch(text, left.closing, right.opening))


def _find_bare_box(text: str, search_start: int) -> AnswerPlace | None:
    last = None
    for last in _BARE_BOX.finditer(text, search_start):  # noqa: B007 - only the last one is wanted
        pass
    return None if last is None else _one_part(BOXED, last.start(), *last.span(1))


def _find_answer_line(text: str, search_start: int, several: bool) -> AnswerPlace | None:
    labels = [match.span() for match in _ANSWER_LABEL.finditer(text, search_start)]
    next_label = len(text)
    for label_start, label_end in reversed(labels):
        content = _answer_behind_label(text, label_end, next_label)
        if content is not None:
            return _one_part(ANSWER_LINE, label_start, *content)
        next_label = label_start
    return None


def _answer_behind_label(text: str, start: int, next_label: int) -> tuple[int, int] | None:
    """Start and end of the first line with content between a label and the next one; `None` if there is none.

    The next label has no answer, or it would count. A line that holds it is no answer either, and nothing is read
    beyond it, so that all labels together cost no more than the length of the text.
    """
    display = None
    for _ in range(MAX_ANSWER_LINES):
        line_end = text.find("\n", start, next_label)
        is_last = line_end < 0
        line = _without_blanks(text, start, next_label if is_last else line_end, _EMPHASIS)
        if line[0] < line[1]:
            if is_last and next_label < len(text):
                break
            if display is not None or text[line[0] : line[1]] not in _DISPLAY_OPENINGS:
                return line
            display = line
        if is_last:
            break
        start = line_end + 1
    return display


def _find_hashes(text: str, search_start: int, several: bool) -> AnswerPlace | None:
    lead_in_start = text.rfind("####", search_start)
    if lead_in_start < 0:
        return None
    return _one_part(HASHES, lead_in_start, *_without_blanks(text, lead_in_start + len("####"), len(text)))


def _one_part(marker: Marker, lead_in_start: int, start: int, end: int) -> AnswerPlace:
    return AnswerPlace(marker.name, lead_in_start, start, end, ((start, end),))


def _without_blanks(text: str, start: int, end: int, also: str = "") -> tuple[int, int]:
    """The range without white space, or characters of `also`, at its ends. No slice, so nested boxes stay cheap."""
    while start < end and (text[start].isspace() or text[start] in also):
        start += 1
    while end > start and (text[end - 1].isspace() or text[end - 1] in also):
        end -= 1
    return start, end


BOXED = Marker("boxed", r"\boxed{}", re.compile(r"\\(?:boxed|fbox|framebox)"), _find_box)
ANSWER_LINE = Marker(
    "answer_line", "an Answer: line", re.compile(r"\banswer\s*[:：]", re.IGNORECASE), _find_answer_line
)
# GSM8K's worked solutions end so, and verl's scorer for it reads nothing else. No response is searched for it.
HASHES = Marker("hashes", "#### and a number", re.compile("####"), _find_hashes)

MARKERS = (BOXED, ANSWER_LINE, HASHES)
"""All known markers. A new one is one record, its entry here, and its name in the formats that look for it."""

ANSWER_FORMATS: dict[str, tuple[Marker, ...]] = {
    "auto": (BOXED, ANSWER_LINE),
    "boxed": (BOXED,),
    "answer_line": (ANSWER_LINE,),
}
"""The markers that are looked for, in order of precedence, by the values of ``algorithm.ispo.answer_format``."""
