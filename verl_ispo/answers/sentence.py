"""Where the sentence, or the line, that holds an answer's marker begins (ours)."""

from __future__ import annotations

import re

MAX_SENTENCE_CHARS = 500
"""A sentence begins at most this many characters before the marker in it."""

# Closing quotes, brackets, emphasis and formulas may stand between a full stop and the blank behind it.
_BOUNDARY = re.compile(r"""\n\s*|[.!?][.!?"'”’)\]*_$]{0,8}\s+|[。！？]["”’」』）]{0,8}\s*|</?think>\s*""")


def sentence_start(text: str, marker_start: int, is_whole: bool) -> int | None:
    """The first character of the sentence, or of the line, in which a marker begins.

    A sentence begins behind a line break, behind a full stop, question or exclamation mark and a blank, behind a tag of
    a thinking trace, or with the text; blanks at its beginning are no part of it. Where none begins within
    :data:`MAX_SENTENCE_CHARS` characters, the text before the marker is no sentence, and the marker's own beginning is
    the answer.

    Args:
        text (`str`): untrusted.
        marker_start (`int`): `AnswerPlace.lead_in_start`.
        is_whole (`bool`): whether nothing comes before `text`.

    Returns:
        `int` or `None`: `None` where it depends on what comes before `text`.
    """
    earliest = max(0, marker_start - MAX_SENTENCE_CHARS)
    last = None
    for last in _BOUNDARY.finditer(text, earliest, marker_start):  # noqa: B007 - only the last one is wanted
        pass
    if last is not None:
        return last.end()
    if marker_start > MAX_SENTENCE_CHARS:
        return marker_start
    if not is_whole:
        return None
    start = 0
    while start < marker_start and text[start].isspace():
        start += 1
    return start
