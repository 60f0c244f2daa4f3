"""Where one response's answer is, in its tokens: read from the end, as little as settles it (ours)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from verl_ispo.answers.answer_place import (
    BOXED,
    HINTED_WORDS,
    MAX_HINTED_WORD_CHARS,
    MAX_SEARCH_CHARS,
    AnswerPlace,
    Marker,
    find_marked,
    find_written,
)
from verl_ispo.answers.boxes import MAX_LIST_GAP_CHARS, find_box_from, safe_start
from verl_ispo.answers.sentence import sentence_start
from verl_ispo.answers.statement import first_statement
from verl_ispo.signals.token_texts import HINTS, REPLACEMENT, TokenTexts, hint_mask, with_whole_characters

_TOKENS_BEFORE_A_HINT = 24
"""A window begins so many tokens before the place where a marker may be: room for the marker's own beginning."""


@dataclass(frozen=True)
class _Window:
    """The text from one token to the response's end.

    Attributes:
        first: the token's index in the response.
        text: of the window.
        begun: the text split by the token in which each character begins.
        ended: the text split by the token in which each character ends; the same where no character is cut.
    """

    first: int
    text: str
    begun: Sequence[str]
    ended: Sequence[str]

    def holds(self, token: int, start: int) -> bool:
        """Whether a token of the response begins in the window, at or behind a position of the text."""
        return token >= self.first and start <= sum(map(len, self.begun[: token - self.first]))

    def token_of(self, character: int) -> int:
        """The response's token in which a character of the text begins."""
        # The first one up to which more characters have begun than come before it.
        return self.first + bisect_right(self._begins, character)

    def token_past(self, end: int) -> int:
        """One past the response's token in which the last character before `end` ends."""
        # The first one up to which as many characters have ended.
        return self.first + bisect_left(self._ends, end) + 1

    @cached_property
    def _begins(self) -> list[int]:
        return list(accumulate(map(len, self.begun)))

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(map(len, self.ended)))


@dataclass(frozen=True)
class FoundAnswer:
    """An answer in a window of its response's text.

    Attributes:
        window: the text that was read.
        place: where the answer is in it.
    """

    window: _Window
    place: AnswerPlace

    def content(self) -> tuple[int, int, int]:
        """First token of the lead-in, and first and one past the last token of the content."""
        start = self.window.token_of(self.place.start)
        end = self.window.token_past(self.place.end)
        return min(self.window.token_of(self.place.lead_in_start), start), start, end


@dataclass(frozen=True)
class AnswerSearch:
    """The search for the answer of one response.

    Args:
        texts (`TokenTexts`).
        token_ids (`np.ndarray`, int64): of the response.
        positions (`np.ndarray`, int64): where a marker may be, ascending.
        masks (`np.ndarray`, uint8): which ones; both from `TokenTexts.hint_positions`.
    """

    texts: TokenTexts
    token_ids: np.ndarray
    positions: np.ndarray
    masks: np.ndarray

    def find(self, markers: Sequence[Marker], several: bool) -> FoundAnswer | None:
        """The answer that some markers give; `None` without one."""
        if not len(self.positions):
            return None
        if self.texts.characters(self.token_ids) > MAX_SEARCH_CHARS:
            window = self._window(0)
            place = find_marked(window.text, markers, several)
            return None if place is None else FoundAnswer(window, place)
        if BOXED in markers:
            found = self._box(self._hinted((BOXED,)), several)
            if found is not None:
                return found
        written = tuple(marker for marker in markers if marker is not BOXED)
        return self._written(self._hinted(written), written)

    def scored(self, found: FoundAnswer, answer_span: str, trace_end: str) -> tuple[int, int, int, int]:
        """First token of the lead-in, first and one past the last token of A, and one past the trace's last token.

        Args:
            found (`FoundAnswer`): of this response.
            answer_span (`str`): see `ISPOConfig.answer_span`.
            trace_end (`str`): see `ISPOConfig.trace_end`.
        """
        window, place = found.window, found.place
        begin = place.lead_in_start
        if answer_span == "content":
            lead_in_start, start, end = found.content()
        else:
            if answer_span == "sentence":
                window, begin = self._sentence(found)
            lead_in_start = start = window.token_of(begin)
            end = found.window.token_past(place.closing)
        if trace_end == "lead_in":
            return lead_in_start, start, end, lead_in_start
        whole = self._window(0)
        answers = [found.window.text[first:last] for first, last in place.parts]
        stated = first_statement(whole.text, answers, begin + len(whole.text) - len(window.text))
        stop = lead_in_start if stated is None else min(whole.token_of(stated), lead_in_start)
        return lead_in_start, start, end, stop

    def _sentence(self, found: FoundAnswer) -> tuple[_Window, int]:
        """A window that holds the sentence of an answer, and where in its text that begins."""
        window = found.window
        while True:
            # All windows end with the response, and begin with a whole character.
            marker_start = found.place.lead_in_start + len(window.text) - len(found.window.text)
            start = sentence_start(window.text, marker_start, is_whole=not window.first)
            if start is not None:
                return window, start
            count = len(self.token_ids) - window.first
            window = self._window(self._whole_from(max(0, window.first - max(count, _TOKENS_BEFORE_A_HINT))))

    def _hinted(self, markers: tuple[Marker, ...]) -> list[int]:
        """Where one of some markers may be: a hint of theirs, and around it the word that goes with it."""
        wanted = self.masks & hint_mask(markers)
        candidates = zip(self.positions[wanted != 0].tolist(), wanted[wanted != 0].tolist(), strict=True)
        return [position for position, mask in candidates if self._has_word(position, mask)]

    def _has_word(self, position: int, mask: int) -> bool:
        first = max(0, position - MAX_HINTED_WORD_CHARS)
        around = self.texts.of(self.token_ids[first : position + MAX_HINTED_WORD_CHARS].tolist())
        text = "".join(around)
        # Tokens without text, and cut characters, may keep the word from being in these tokens.
        if REPLACEMENT in text or "" in around:
            return True
        words = [HINTED_WORDS.get(hint) for index, hint in enumerate(HINTS) if mask >> index & 1]
        return any(word is None or word.search(text) is not None for word in words)

    def _box(self, hinted: list[int], several: bool) -> FoundAnswer | None:
        for window in self._windows(hinted):
            start = safe_start(window.text) if window.first else 0
            if start is None:
                continue
            place, is_certain = find_box_from(window.text, start, several)
            if not is_certain and window.holds(hinted[0], start):
                # No box is before the window, but the name of the first of several may be.
                is_certain = not (several and place and place.lead_in_start - start <= MAX_LIST_GAP_CHARS)
            if is_certain or not window.first:
                return None if place is None else FoundAnswer(window, place)
        return None

    def _written(self, hinted: list[int], markers: Sequence[Marker]) -> FoundAnswer | None:
        for window in self._windows(hinted):
            start = window.text.find("\n") + 1 if window.first else 0
            if window.first and not start:
                continue
            place = find_written(window.text, start, markers)
            if place is not None:
                return FoundAnswer(window, place)
            if window.holds(hinted[0], start):
                return None
        return None

    def _windows(self, hinted: list[int]) -> Iterator[_Window]:
        """Windows that hold the last of some positions, then earlier ones, each at least twice as long as the last."""
        count = len(self.token_ids)
        first = count
        while hinted and first:
            before = bisect_left(hinted, first) - 1
            twice = count - 2 * (count - first)
            wanted = min(twice, hinted[before] - _TOKENS_BEFORE_A_HINT) if before >= 0 else twice
            first = self._whole_from(max(0, wanted))
            yield self._window(first)

    def _whole_from(self, first: int) -> int:
        """The last token up to this one that begins with a character of its own, whatever is before it."""
        while first:
            before = self.texts(int(self.token_ids[first - 1]))
            if before and REPLACEMENT not in before:
                return first
            first -= 1
        return 0

    def _window(self, first: int) -> _Window:
        token_ids = self.token_ids[first:].tolist()
        begun = ended = self.texts.of(token_ids)
        text = "".join(begun)
        if REPLACEMENT in text and self.texts.decode_together is not None:
            begun, ended = with_whole_characters(token_ids, begun, self.texts.decode_together)
            text = "".join(ended)
        return _Window(first, text, begun, ended)
