"""Where an answer is, and what every marker's search needs: the record, the bounds, and trimming without slices."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SEARCH_CHARS = 1_000_000
"""Only this many characters from the end of a text are searched for an answer."""


@dataclass(frozen=True)
class AnswerPlace:
    """Character positions of an answer in a text.

    Attributes:
        marker (`str`): name of the `Marker` that gives the answer.
        lead_in_start (`int`): where the marker begins, such as the backslash of ``\\boxed{``, or the name of the first
            of several named boxes. The trace is the text before it, the lead-in reaches from here to `start`.
        start, end (`int`): the content, from its first character to one past its last; equal if it is empty.
        parts (`tuple[tuple[int, int], ...]`): start and end of each content. One, unless several boxes form a list.
        closing (`int`): where the marker ends: one past the last box's closing brace or past ``</answer>``; `end` for a
            marker that closes with its content, such as ``Answer: 5``.
        names (`tuple[tuple[int, int], ...]`, *optional*): start and end of the names in front of the parts, such as
            ``x=``, where several boxes give one value each of several unknowns; empty otherwise.
    """

    marker: str
    lead_in_start: int
    start: int
    end: int
    parts: tuple[tuple[int, int], ...]
    closing: int
    names: tuple[tuple[int, int], ...] = ()


def one_part(marker: str, lead_in_start: int, content: tuple[int, int], closing: int | None = None) -> AnswerPlace:
    """The place of an answer with a single content; by default its marker closes with it."""
    return AnswerPlace(marker, lead_in_start, *content, (content,), content[1] if closing is None else closing)


def answer_text(text: str, place: AnswerPlace) -> str:
    """The answer at a place of a text; the answers of a list, each behind its name, are joined by commas."""
    names = place.names or ((0, 0),) * len(place.parts)
    pairs = zip(names, place.parts, strict=True)
    return ", ".join(text[name[0] : name[1]] + text[start:end] for name, (start, end) in pairs)


def without_blanks(text: str, start: int, end: int, also: str = "") -> tuple[int, int]:
    """The range without white space, or characters of `also`, at its ends. No slice, so nested boxes stay cheap."""
    while start < end and (text[start].isspace() or text[start] in also):
        start += 1
    while end > start and (text[end - 1].isspace() or text[end - 1] in also):
        end -= 1
    return start, end
