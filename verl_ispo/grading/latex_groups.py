"""Where a group of LaTeX ends."""

from __future__ import annotations


def group_end(text: str, start: int) -> int:
    """Index just past the group that opens at ``start`` with ``{``, ``(`` or ``[``, or -1 where it never closes."""
    opener = text[start]
    closer = {"{": "}", "(": ")", "[": "]"}[opener]
    depth, index = 0, start
    while index < len(text):
        char = text[index]
        if char == "\\":
            index += 2
            continue
        if char == opener:
            depth += 1
        elif char == closer:
            depth -= 1
            if depth == 0:
                return index + 1
        index += 1
    return -1
