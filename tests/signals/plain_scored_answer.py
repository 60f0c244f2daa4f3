"""What IFD scores in a response, by the plain way: decode everything, search everything, character by character.

The library reads a response from its end and stops early; this is what it has to agree with.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from verl_ispo.answers.answer_place import find_answer
from verl_ispo.answers.sentence import sentence_start
from verl_ispo.answers.statement import first_statement
from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.signals.token_texts import REPLACEMENT, TokenTexts, with_whole_characters


def plain_scored(
    response: Sequence[int], texts: TokenTexts, config: ISPOConfig, several: bool
) -> tuple[int, int, int, int]:
    """First token of the lead-in, first and one past the last token of A, one past T's last; 0 without an answer."""
    begun = ended = [texts(token) for token in response]
    text = "".join(begun)
    if REPLACEMENT in text and texts.decode_together is not None:
        begun, ended = with_whole_characters(response, begun, texts.decode_together)
        text = "".join(ended)
    place = find_answer(text, config.answer_format, several)
    if place is None:
        return 0, 0, 0, 0
    begins, ends = list(accumulate(map(len, begun))), list(accumulate(map(len, ended)))
    opening = place.lead_in_start
    if config.answer_span == "sentence":
        opening = sentence_start(text, opening, is_whole=True)
    first, last = (place.start, place.end) if config.answer_span == "content" else (opening, place.closing)
    start, end = bisect_right(begins, first), bisect_left(ends, last) + 1
    lead_in_start = min(bisect_right(begins, opening), start)
    trace_end = lead_in_start
    if config.trace_end == "first_statement":
        stated = first_statement(text, [text[slice(*part)] for part in place.parts], opening)
        if stated is not None:
            trace_end = min(bisect_right(begins, stated), lead_in_start)
    return lead_in_start, start, end, trace_end
