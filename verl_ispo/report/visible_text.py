"""Model text made safe to look at: nothing invisible, nothing that reorders or hides its neighbours, bounded in length.

Jinja2 escapes HTML when the page is made. This module handles characters that HTML would pass through and a reader
would not see: controls, marks of writing direction, zero-width and unassigned characters, lone surrogates.
"""

from __future__ import annotations

import unicodedata

MAX_TOKEN_CHARS = 60

# Real text has at most this many marks on a letter; a stack of hundreds is drawn over the lines around it.
_MAX_COMBINING_MARKS = 3


def visible(text: str, max_chars: int) -> str:
    """The text with a symbol or a code point for every invisible character, cut after `max_chars` characters.

    Args:
        text (`str`): untrusted.
        max_chars (`int`): longest part of ``text`` that is shown; the rest is counted in a note at the end.
    """
    shown: list[str] = []
    marks = 0
    for character in text[:max_chars]:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        shown.append(_code_point(character) if marks > _MAX_COMBINING_MARKS else _symbol(character))
    if len(text) > max_chars:
        shown.append(f"…(+{len(text) - max_chars:,} characters)")
    return "".join(shown)


def _symbol(character: str) -> str:
    if character in "\n\t ":
        return {"\n": "↵", "\t": "⇥", " ": " "}[character]
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    # Cc controls, Cf direction and joiners, Cs lone surrogates, Co private, Cn unassigned, Zl/Zp line separators
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return _code_point(character)
    return character


def _code_point(character: str) -> str:
    return f"‹U+{ord(character):04X}›"
