r"""Where the final answer is in a text. Everything that reads an answer uses this module.

IFD scores the tokens that cover the answer, the grader grades its text, the tiny task's reward compares it, the data
preparation takes it from worked solutions: all of them read the same characters. The rule is ours; the paper does
not say where the answer is.

The markers (``algorithm.ispo.answer_format`` and the grader's ``answer_format`` choose among them):

| name | what it is |
|---|---|
| ``boxed`` | the last ``\boxed{...}``, ``\fbox{...}`` or ``\framebox{...}`` with content, else ``\boxed 5`` |
| ``answer_line`` | ``Answer: 5``, also bold, full-width, or with the answer up to 11 lines below |
| ``hashes`` | ``#### 5``, as in GSM8K |
| ``answer_tag`` | ``<answer>5</answer>`` |
| ``sentence`` | "The final answer is 5.", and with it minerva's "Final Answer: The final answer is 5. I hope ..." |
| ``heading`` | a heading or a bold or lone line "Final Answer", and the first line below |
| ``chinese`` | ``答案：5``, ``答案是 5`` |

**Precedence.** A box counts before anything else, wherever it stands: it is what models are asked for most, and what
the other markers are often written around (``Answer: $\boxed{5}$``, "so the answer is 5. ... \boxed{6}"). Of the
others, the one whose answer begins last counts, whichever marker it is: that is the text's last word, so a response
that gives two different answers is graded by its last, and a marker inside another (``<answer>The answer is
5.</answer>``) is the narrower one. Exactly one place is graded; a hedge gains nothing.

White space around the content is no part of it, nor are the ``*`` and ``_`` of emphasis. A marker without content
gives no answer: the one before it counts, or another marker.

**Where a prompt asks for a box only**, only a box should count. The data preparation writes what the template asks for
into ``extra_info.answer_format``, which the grader and ISPO both follow (:func:`row_answer_format`), unless they are
given a format other than ``auto``.

**Several boxes as one list.** ``\boxed{1} and \boxed{3}`` is one answer, "1, 3", where the problem asks for several
answers, and otherwise it is the answer "3". The text alone does not tell which, so the caller does (``several``). In a
list, only white space, ``$``, punctuation, delimiters, bullets, "and" or "or", and a name with its equals sign are
between two boxes, 40 characters at most; empty boxes are left out. Where each box has a name of its own (``x=``,
``y=``), the names belong to the answer. :func:`answer_text` joins the contents with commas, and that is graded;
`AnswerPlace.start` and `AnswerPlace.end` reach from the first content to the last, and that one run is scored.

Texts are untrusted. The work is linear in the length of the text, whatever it holds, and only the last
:data:`MAX_SEARCH_CHARS` characters are searched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import boxes, written_markers
from .place import MAX_SEARCH_CHARS, AnswerPlace, answer_text

__all__ = ["ANSWER_FORMATS", "MARKERS", "MAX_SEARCH_CHARS", "AnswerPlace", "Marker", "answer_text", "find_answer"]


@dataclass(frozen=True)
class Marker:
    """A way to mark the final answer.

    Attributes:
        name (`str`): for code and configuration.
        description (`str`): how a message names it.
        asked (`re.Pattern`): found in a prompt that asks for this marker.
        hint (`str`): letters that every text with this marker holds one after the other, in lower case; a text
            without them need not be searched.
        find (`Callable`): ``find(text, search_start, several)`` gives the place of the last answer that this marker
            gives, or `None` without one. `several` is as in :func:`find_answer`.
    """

    name: str
    description: str
    asked: re.Pattern[str]
    hint: str
    find: Callable[[str, int, bool], AnswerPlace | None]


BOXED = Marker(boxes.NAME, r"\boxed{}", re.compile(r"\\(?:boxed|fbox|framebox)"), "ox", boxes.find_box)
ANSWER_LINE = Marker(
    "answer_line",
    "an Answer: line",
    re.compile(r"\banswer\s*[:：](?!\s*the final answer is)", re.IGNORECASE),
    "sw",
    written_markers.find_answer_line,
)
# GSM8K's worked solutions end so, and verl's scorer for it reads nothing else.
HASHES = Marker("hashes", "#### and a number", re.compile("####"), "####", written_markers.find_hashes)
ANSWER_TAG = Marker(
    "answer_tag", "<answer> tags", re.compile("</?answer>", re.IGNORECASE), "sw", written_markers.find_tag
)
SENTENCE = Marker(
    "sentence",
    'a sentence "The final answer is"',
    re.compile(r"(?:[\"'“‘:]|\b(?:say|with|form|write))\s*(?:so )?the (?:final )?answer is", re.IGNORECASE),
    "sw",
    written_markers.find_sentence,
)
HEADING = Marker(
    "heading",
    'a heading "Final Answer"',
    re.compile(r"(?:\*\*|#\s|^)final answer(?:\*\*|\s*$)|\bfinal answer\W{1,4}(?:section|heading)", re.I | re.M),
    "sw",
    written_markers.find_heading,
)
CHINESE = Marker("chinese", "答案", re.compile(r"答案\s*(?:[:：是为]|】)"), "答案", written_markers.find_chinese)

MARKERS = (BOXED, ANSWER_LINE, HASHES, ANSWER_TAG, SENTENCE, HEADING, CHINESE)
"""All known markers. A new one is one record and its entry here."""

HINTED_WORDS = {
    "ox": re.compile(r"\\(?:boxed|fbox|framebox)"),
    "sw": re.compile("answer", re.IGNORECASE),
}
"""By a marker's hint, the word around it that every text with such a marker holds, where it is more than the hint."""

MAX_HINTED_WORD_CHARS = 10
"""A hinted word has at most this many characters."""

ANSWER_FORMATS: dict[str, tuple[Marker, ...]] = {"auto": MARKERS, **{marker.name: (marker,) for marker in MARKERS}}
"""The markers that are looked for, by the single values of ``algorithm.ispo.answer_format``."""


def markers_of(answer_format: str) -> tuple[Marker, ...]:
    """The markers of an answer format.

    Args:
        answer_format (`str`): a key of :data:`ANSWER_FORMATS`, or several joined by ``+`` or commas, such as
            ``"boxed+hashes"``.

    Raises:
        ValueError: if it, or a part of it, is unknown.
    """
    known = ANSWER_FORMATS.get(answer_format)
    if known is not None:
        return known
    chosen: set[Marker] = set()
    for name in re.split(r"[+,]", str(answer_format)):
        markers = ANSWER_FORMATS.get(name.strip())
        if markers is None:
            raise ValueError(
                f"answer_format is {answer_format!r}; choose from {', '.join(ANSWER_FORMATS)}, or several joined by +"
            )
        chosen.update(markers)
    return tuple(marker for marker in MARKERS if marker in chosen)


def row_answer_format(extra_info: Any, answer_format: str = "auto") -> str:
    """The answer format of one row: what the caller chose, and with ``"auto"`` what the row's prompt asks for.

    Args:
        extra_info (`Any`): the row's ``extra_info``; ``answer_format`` (`str`) is read.
        answer_format (`str`, *optional*, defaults to `"auto"`): of the run.
    """
    if answer_format != "auto" or not isinstance(extra_info, Mapping):
        return answer_format
    given = extra_info.get("answer_format")
    return "auto" if given in (None, "") or given != given else str(given)  # a merged file has NaN where a set has none


def asked_markers(prompt: str) -> set[Marker]:
    """The markers that a prompt mentions."""
    return {marker for marker in MARKERS if marker.asked.search(prompt)}


def find_answer(text: str, answer_format: str = "auto", several: bool = False) -> AnswerPlace | None:
    """Find the final answer in a text.

    Args:
        text (`str`): a response, untrusted.
        answer_format (`str`, *optional*, defaults to `"auto"`): which markers count, see :func:`markers_of`.
        several (`bool`, *optional*, defaults to `False`): the problem asks for several answers, so boxes that form a
            list are one answer.

    Returns:
        `AnswerPlace` or `None`: `None` where there is no answer, or an empty one.

    Raises:
        ValueError: if `answer_format` is unknown.
    """
    return find_marked(text, markers_of(answer_format), several)


def find_marked(text: str, markers: Sequence[Marker], several: bool = False) -> AnswerPlace | None:
    """The answer that some markers give: a box, else the one that begins last; `None` where none gives one."""
    search_start = max(0, len(text) - MAX_SEARCH_CHARS)
    if BOXED in markers:
        place = BOXED.find(text, search_start, several)
        if place is not None:
            return place
    return find_written(text, search_start, markers)


def find_written(text: str, search_start: int, markers: Sequence[Marker]) -> AnswerPlace | None:
    """The answer that begins last behind `search_start`, of the markers other than a box; `None` where none gives one.

    No such marker spans a line break, and what is behind one does not depend on the text before its line. A marker
    before `search_start` can have its answer behind it, but not behind that of a marker there, which is no empty line.
    So where `search_start` begins a line, a place that is found is the one that the whole text gives.
    """
    places = [marker.find(text, search_start, False) for marker in markers if marker is not BOXED]
    return max((place for place in places if place is not None), key=lambda place: place.start, default=None)
