"""Text of a policy's tokens: what each decodes to, which could belong to a marker, and characters cut in two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from verl_ispo.answers.answer_place import MARKERS, Marker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\ufffd"

HINTS = tuple(dict.fromkeys(marker.hint for marker in MARKERS))
"""What the markers' hints are looked for as; bit k of a mask stands for the k-th."""

_ALL_HINTS = (1 << len(HINTS)) - 1
_UNKNOWN = 0xFF
# A token that holds a whole hint has bit k of the low half, one that could begin it that of the high half.
_HALF = 4
# Tokens are looked at so many at a time, which keeps what is made of them in the processor's cache.
_CHUNK = 1 << 18
# A run of tokens that cut through characters is longer than this only in text that is no language. Tokens of a longer
# run are decoded one by one, which bounds the work.
_MAX_CUT_TOKENS = 64


@cache
def hint_mask(markers: tuple[Marker, ...]) -> int:
    """Which of :data:`HINTS` belong to some markers."""
    return sum(1 << index for index, hint in enumerate(HINTS) if any(marker.hint == hint for marker in markers))


class TokenTexts:
    """Text of single tokens, remembered by id.

    A byte-level tokenizer may cut a character in two, and then neither token decodes to it. This can happen to the
    full-width colon of a marker and to blanks around an answer, so such tokens are decoded together where
    `decode_together` is given. Without it each token is decoded alone.

    Args:
        decode (`Callable`): from a token id to its text.
        special_ids (`Sequence[int]`, *optional*): tokens that count as empty text, such as the end of sequence.
        decode_together (`Callable`, *optional*): from a list of token ids to their text.
        decode_each (`Callable`, *optional*): from a list of token ids to the text of each alone, as `decode` gives it
            but faster for many.
    """

    @classmethod
    def of_tokenizer(cls, tokenizer: PreTrainedTokenizerBase) -> TokenTexts:
        """The texts of a tokenizer's tokens; special ones count as empty."""
        return cls(
            lambda token_id: tokenizer.decode([token_id], clean_up_tokenization_spaces=False),
            special_ids=tokenizer.all_special_ids,
            decode_together=lambda ids: tokenizer.decode(ids, clean_up_tokenization_spaces=False),
            decode_each=lambda ids: tokenizer.batch_decode(
                [[token_id] for token_id in ids], clean_up_tokenization_spaces=False
            ),
        )

    def __init__(
        self,
        decode: Callable[[int], str],
        special_ids: Sequence[int] = (),
        decode_together: Callable[[Sequence[int]], str] | None = None,
        decode_each: Callable[[Sequence[int]], Sequence[str]] | None = None,
    ) -> None:
        self.decode_together = decode_together
        self._decode_each = decode_each or (lambda token_ids: [decode(token_id) for token_id in token_ids])
        self._texts: dict[int, str] = dict.fromkeys(special_ids, "")
        # by id, grown as ids are seen: hints held and begun (see `_HALF`), hints that a text could go on with, length
        self._held = np.full(0, _UNKNOWN, dtype=np.uint8)
        self._goes_on = np.zeros(0, dtype=np.uint8)
        self._lengths = np.zeros(0, dtype=np.int64)

    def __call__(self, token_id: int) -> str:
        text = self._texts.get(token_id)
        if text is None:
            text = self._texts[token_id] = self._decode_each([token_id])[0]
        return text

    def of(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each of some tokens, which have been seen by `hint_positions`."""
        texts = self._texts
        return [texts[token_id] for token_id in token_ids]

    def hint_positions(self, token_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where one of :data:`HINTS` may begin, whatever the tokens that it is cut into.

        A hint is inside one token, or there are two neighbours (with nothing but empty tokens between them) of which
        the first ends in a letter of it and the second begins with the next one.

        Args:
            token_ids (`np.ndarray` of shape `(tokens,)`, int64): of many responses, one behind the other.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: positions, ascending, and the mask of hints at each.
        """
        self._learn(token_ids)
        positions, masks = [], []
        for first in range(0, len(token_ids), _CHUNK):
            chunk = token_ids[first : first + _CHUNK + 1]  # one more, the neighbour of the last
            held, goes_on = self._held[chunk], self._goes_on[chunk]
            found = held & _ALL_HINTS
            found[:-1] |= (held[:-1] >> _HALF) & goes_on[1:]
            found = found[:_CHUNK]
            here = np.flatnonzero(found)
            positions.append(here + first)
            masks.append(found[here])
        if not positions:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint8)
        return np.concatenate(positions), np.concatenate(masks)

    def characters(self, token_ids: np.ndarray) -> int:
        """At least as many as the tokens' text has; they have been seen by `hint_positions`."""
        return int(self._lengths[token_ids].sum())

    def _learn(self, token_ids: np.ndarray) -> None:
        """Decode the tokens that have not been seen."""
        if not len(token_ids):
            return
        size = int(token_ids.max()) + 1
        if size > len(self._held):
            more = size - len(self._held)
            self._held = np.concatenate([self._held, np.full(more, _UNKNOWN, dtype=np.uint8)])
            self._goes_on = np.concatenate([self._goes_on, np.zeros(more, dtype=np.uint8)])
            self._lengths = np.concatenate([self._lengths, np.zeros(more, dtype=np.int64)])
        is_new = np.zeros(size, dtype=bool)
        for first in range(0, len(token_ids), _CHUNK):
            chunk = token_ids[first : first + _CHUNK]
            is_new[chunk[self._held[chunk] == _UNKNOWN]] = True
        new = np.flatnonzero(is_new).tolist()
        undecoded = [token_id for token_id in new if token_id not in self._texts]
        if undecoded:
            self._texts.update(zip(undecoded, self._decode_each(undecoded), strict=True))
        for token_id in new:
            text = self._texts[token_id]
            self._held[token_id], self._goes_on[token_id] = _hints_of(text)
            self._lengths[token_id] = len(text)


def _hints_of(text: str) -> tuple[int, int]:
    """Hints that a token holds (low half) and may begin (high half), and those that it may go on with."""
    if not text:
        return _ALL_HINTS << _HALF, _ALL_HINTS
    # Python's re takes a capital and a long s for an s where case does not count; a cut character may be a long one.
    folded = text.lower().replace("ſ", "s").replace(REPLACEMENT, "s")
    held = begins = goes_on = 0
    for index, hint in enumerate(HINTS):
        # a piece of a character may be a piece of any that takes several bytes
        if hint in folded or (REPLACEMENT in text and not hint.isascii()):
            held |= 1 << index
        if folded[-1] in hint[:-1]:
            begins |= 1 << index
        if folded[0] in hint[1:]:
            goes_on |= 1 << index
    return held | begins << _HALF, goes_on


def with_whole_characters(
    response: Sequence[int], texts: Sequence[str], decode_together: Callable[[Sequence[int]], str]
) -> tuple[list[str], list[str]]:
    """The response's text, split twice: by the token in which each character begins, and by that in which it ends.

    The two differ only for characters that several tokens share.
    """
    begun, ended = list(texts), list(texts)
    first = 0
    while first < len(texts):
        if not texts[first].endswith(REPLACEMENT):
            first += 1
            continue
        # Texts of the first token, the first two, ... until one ends in a whole character, or no token goes on: then
        # the replacement character at the end is one of the text. Tokens without text, such as special ones, do not
        # interrupt the run.
        read: list[str] = []
        ids: list[int] = []
        last = min(first + _MAX_CUT_TOKENS, len(texts))
        for token in range(first, last):
            if not texts[token]:
                read.append(read[-1])
                continue
            if REPLACEMENT not in texts[token]:
                break
            ids.append(response[token])
            read.append(decode_together(ids))
            if not read[-1].endswith(REPLACEMENT):
                break
        if len(read) < _MAX_CUT_TOKENS or not read[-1].endswith(REPLACEMENT):
            _share_out(read, texts, begun, ended, first)
        first += len(read)
    return begun, ended


def _share_out(read: Sequence[str], texts: Sequence[str], begun: list[str], ended: list[str], first: int) -> None:
    """Give the characters of the last text in `read` to the tokens from `first` on."""
    whole = read[-1]
    begun_before = ended_before = 0
    following = None  # the next token with text
    is_cut = [False] * len(read)
    for index in reversed(range(len(read))):
        # A token that ends in a replacement character of the text itself leaves the next token's text as it is alone.
        if read[index].endswith(REPLACEMENT) and following is not None:
            added = read[index] + texts[first + following]
            is_cut[index] = read[following] != added or not whole.startswith(read[index])
        if texts[first + index]:
            following = index
    for index, text in enumerate(read):
        # Only the last character is cut where those before it are final, replacement characters of the text included.
        whole_until = len(text) - 1 if whole.startswith(text[:-1]) else len(text.rstrip(REPLACEMENT))
        ended_here = whole_until if is_cut[index] else len(text)
        ended_here = max(ended_before, min(ended_here, len(whole)))
        begun_here = max(begun_before, min(ended_here + is_cut[index], len(whole)))
        token = first + index
        begun[token], ended[token] = whole[begun_before:begun_here], whole[ended_before:ended_here]
        begun_before, ended_before = begun_here, ended_here
