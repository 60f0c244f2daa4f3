"""Where an answer is on its response's tokens, by the plain way: decode everything, search everything.

The library reads a response from its end and stops early (`verl_ispo.signals.answer_search`); this is what it has to
agree with.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from verl_ispo.answers.answer_place import find_answer
from verl_ispo.signals.token_texts import REPLACEMENT, TokenTexts, with_whole_characters


def plain_indices(
    response: Sequence[int], texts: TokenTexts, answer_format: str, several: bool
) -> tuple[int, int, int]:
    """First token of the lead-in, first token of A, and one past A's last token; 0 each without an answer."""
    begun = ended = [texts(token) for token in response]
    text = "".join(begun)
    if REPLACEMENT in text and texts.decode_together is not None:
        begun, ended = with_whole_characters(response, begun, texts.decode_together)
        text = "".join(ended)
    place = find_answer(text, answer_format, several)
    if place is None:
        return 0, 0, 0
    begins = list(accumulate(map(len, begun)))
    start = bisect_right(begins, place.start)
    end = bisect_left(list(accumulate(map(len, ended))), place.end) + 1
    return min(bisect_right(begins, place.lead_in_start), start), start, end
