"""Find the final answer in a response: the last balanced ``\\boxed{...}``, else the last ``Answer:`` line.

The response is untrusted text of any length. Only its last :data:`MAX_SEARCH_CHARS` characters are searched, in one
linear pass, so that a megabyte of unclosed boxes costs no more than a megabyte of prose.
"""

from __future__ import annotations

import re
from collections import deque

MAX_SEARCH_CHARS = 200_000
"""Only this many characters from the end of a response are searched for an answer."""

_TOKEN = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\boxed[ \t]+([^\s{}$\\]+)")
_ANSWER_LINE = re.compile(r"answer[ \t]{0,8}(?:\*\*|__)?[ \t]{0,8}[:：]", re.IGNORECASE)
_BETWEEN_BOXES = re.compile(r"(?:\s|\$|,|;|\\[()\[\]]|\\text\{\s*(?:and|or)\s*\}|\band\b|\bor\b|\.(?=\s))*")


def _outer_boxes(text: str) -> list[tuple[int, int, str]]:
    """All balanced, outermost boxes as ``(start, end, content)``. Escaped braces are not braces."""
    boxes: list[tuple[int, int, str]] = []
    # One entry per open brace: (start of the \boxed command, start of its content), or None for a plain brace.
    open_braces: list[tuple[int, int] | None] = []
    for token in _TOKEN.finditer(text):
        piece = token.group()
        if piece == "{":
            open_braces.append(None)
        elif piece == "}":
            if not open_braces:
                continue
            box = open_braces.pop()
            if box is not None:
                # An outer box replaces the ones inside it. An outer box that never closes leaves them standing.
                while boxes and boxes[-1][0] > box[0]:
                    boxes.pop()
                boxes.append((box[0], token.end(), text[box[1] : token.start()]))
        elif piece.endswith("{") and piece.startswith(("\\boxed", "\\fbox")):
            open_braces.append((token.start(), token.end()))
    return boxes


def _answer_after_label(text: str) -> str | None:
    """The rest of the last ``Answer:`` line, or the next line that is not empty; ``None`` if there is no such line."""
    for label in reversed(list(_ANSWER_LINE.finditer(text))):
        lines = [line.strip().strip("*_").strip() for line in text[label.end() :].split("\n", 12)[:12]]
        filled = [line for line in lines if line]
        if not filled:
            continue
        if filled[0] in (r"\[", "$$") and len(filled) > 1:
            return filled[1]
        return filled[0]
    return None


def extract_answer(response: str, join_last_boxes: bool = False) -> str | None:
    r"""Extract the final answer of a response.

    Args:
        response (`str`):
            The decoded response.
        join_last_boxes (`bool`, *optional*, defaults to `False`):
            For problems with several answers: boxes at the end that only ``,``, ``and`` or ``or`` separates, as in
            ``\boxed{1} and \boxed{2}``, are joined by commas. Otherwise the last box alone counts.

    Returns:
        `str` or `None`: The text of the answer, not yet normalised; ``None`` where the response states none.
    """
    text = response[-MAX_SEARCH_CHARS:]
    if "\\boxed" in text or "\\fbox" in text:
        boxes = _outer_boxes(text)
        bare = None if boxes else _last_match(_BARE_BOX, text)
        if bare is not None:
            return bare.group(1)
        if boxes:
            contents = [boxes[-1][2]]
            if join_last_boxes:
                for left, right in zip(boxes[-2::-1], boxes[:0:-1], strict=False):
                    if right[0] - left[1] > 40 or not _BETWEEN_BOXES.fullmatch(text, left[1], right[0]):
                        break
                    contents.insert(0, left[2])
            joined = ", ".join(contents)
            return joined if joined.strip() else None
    return _answer_after_label(text[-20_000:])


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)
