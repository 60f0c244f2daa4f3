"""Where the answer A and its lead-in are in a response, as indices of the response's own tokens (all ours).

`verl_ispo.answers.answer_place` says where the answer is in the text. A is the smallest run of tokens that covers its
content, the lead-in is the run of tokens that opens it, and the trace T is what comes before the lead-in. The text
serves only to find positions: A is never tokenized again, since different ids would be a different answer.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from verl_ispo.answers.answer_place import find_answer

_REPLACEMENT = "\ufffd"
# A run of tokens that cut through characters is longer than this only in text that is no language. Tokens of a longer
# run are decoded one by one, which bounds the work.
_MAX_CUT_TOKENS = 64


@dataclass(frozen=True)
class AnswerSpans:
    """Token indices in each response, `(batch,)` int64 each; all are 0 where no answer was found.

    Attributes:
        lead_in_start: first token of the lead-in, which is also the trace's length in tokens.
        start: first token of A.
        end: one past the last token of A.
    """

    lead_in_start: torch.Tensor
    start: torch.Tensor
    end: torch.Tensor

    @property
    def found(self) -> torch.Tensor:
        """Rows that have an answer, `(batch,)` bool."""
        return self.end > self.start

    @property
    def length(self) -> torch.Tensor:
        """Answer tokens in each row, `(batch,)` int64."""
        return self.end - self.start


class TokenTexts:
    """Text of single tokens, remembered by id.

    A byte-level tokenizer may cut a character in two, and then neither token decodes to it. This can happen to the
    full-width colon of a marker and to blanks around an answer, so such tokens are decoded together where
    `decode_together` is given. Without it each token is decoded alone.

    Args:
        decode (`Callable`): from a token id to its text.
        special_ids (`Sequence[int]`, *optional*): tokens that count as empty text, such as the end of sequence.
        decode_together (`Callable`, *optional*): from a list of token ids to their text.
    """

    def __init__(
        self,
        decode: Callable[[int], str],
        special_ids: Sequence[int] = (),
        decode_together: Callable[[Sequence[int]], str] | None = None,
    ) -> None:
        self.decode_together = decode_together
        self._decode = decode
        self._texts: dict[int, str] = dict.fromkeys(special_ids, "")

    def __call__(self, token_id: int) -> str:
        text = self._texts.get(token_id)
        if text is None:
            text = self._texts[token_id] = self._decode(token_id)
        return text


def find_answer_spans(
    responses: Sequence[Sequence[int]],
    token_text: Callable[[int], str],
    answer_format: str | Sequence[str] = "auto",
    several: Sequence[bool] | None = None,
) -> AnswerSpans:
    """Answer and lead-in of each response.

    Args:
        responses (`Sequence[Sequence[int]]`): token ids without padding.
        token_text (`Callable`): the text of one token, such as a `TokenTexts`.
        answer_format (`str` or `Sequence[str]`, *optional*, defaults to `"auto"`): see `ISPOConfig.answer_format`;
            one for all responses, or one for each.
        several (`Sequence[bool]`, *optional*): whether each response's problem asks for several answers, as the
            grader sees it; boxes that form a list are then one answer. By default none does.

    Returns:
        `AnswerSpans`.
    """
    flags = [False] * len(responses) if several is None else several
    formats = [answer_format] * len(responses) if isinstance(answer_format, str) else answer_format
    indices = [
        _token_indices(response, token_text, row_format, is_list)
        for response, row_format, is_list in zip(responses, formats, flags, strict=True)
    ]
    columns = torch.tensor(indices, dtype=torch.long).reshape(len(indices), 3)
    return AnswerSpans(lead_in_start=columns[:, 0], start=columns[:, 1], end=columns[:, 2])


def gather_answer(values: torch.Tensor, spans: AnswerSpans) -> tuple[torch.Tensor, torch.Tensor]:
    """Values at the answer's tokens, moved to the left.

    Args:
        values (`torch.Tensor` of shape `(batch, response_length)`).
        spans (`AnswerSpans`).

    Returns:
        `(values, mask)`, both of shape `(batch, answer_length)`, where answer_length is that of the longest answer
        and at least 1; the mask is bool.
    """
    width = max(int(spans.length.max()) if spans.length.numel() else 0, 1)
    offsets = torch.arange(width, device=values.device)
    mask = offsets < spans.length.unsqueeze(-1)
    positions = torch.where(mask, spans.start.unsqueeze(-1) + offsets, 0)
    if values.shape[-1] == 0:  # every response is empty
        return values.new_zeros(mask.shape), mask
    return values.gather(-1, positions), mask


def _token_indices(
    response: Sequence[int], token_text: Callable[[int], str], answer_format: str, several: bool
) -> tuple[int, int, int]:
    """First token of the lead-in, first token of A, and one past A's last token; 0 each without an answer."""
    begun = ended = texts = [token_text(token) for token in response]
    text = "".join(texts)
    decode_together = getattr(token_text, "decode_together", None)
    if _REPLACEMENT in text and decode_together is not None:
        begun, ended = _with_whole_characters(response, texts, decode_together)
        text = "".join(ended)
    place = find_answer(text, answer_format, several)
    if place is None:
        return 0, 0, 0
    # Character c begins in the first token up to which more than c characters have begun. A's last character ends in
    # the first token up to which as many characters have ended as the text has before A's end.
    begins = list(accumulate(map(len, begun)))
    start = bisect_right(begins, place.start)
    end = bisect_left(list(accumulate(map(len, ended))), place.end) + 1
    return min(bisect_right(begins, place.lead_in_start), start), start, end


def _with_whole_characters(
    response: Sequence[int], texts: Sequence[str], decode_together: Callable[[Sequence[int]], str]
) -> tuple[list[str], list[str]]:
    """The response's text, split twice: by the token in which each character begins, and by that in which it ends.

    The two differ only for characters that several tokens share.
    """
    begun, ended = list(texts), list(texts)
    first = 0
    while first < len(texts):
        if not texts[first].endswith(_REPLACEMENT):
            first += 1
            continue
        # Texts of the first token, the first two, ... until one ends in a whole character. Tokens without text, such
        # as special ones, do not interrupt the run.
        read: list[str] = []
        ids: list[int] = []
        for token in range(first, min(first + _MAX_CUT_TOKENS, len(texts))):
            if not texts[token]:
                read.append(read[-1])
                continue
            if _REPLACEMENT not in texts[token]:
                break
            ids.append(response[token])
            read.append(decode_together(ids))
            if not read[-1].endswith(_REPLACEMENT):
                _share_out(read, begun, ended, first)
                break
        first += len(read)
    return begun, ended


def _share_out(read: Sequence[str], begun: list[str], ended: list[str], first: int) -> None:
    """Give the characters of the last text in `read` to the tokens from `first` on."""
    whole = read[-1]
    begun_before = ended_before = 0
    for token, text in enumerate(read, start=first):
        is_cut = text.endswith(_REPLACEMENT)
        # Only the last character is cut where those before it are final, replacement characters of the text included.
        is_final = is_cut and whole.startswith(text[:-1])
        ended_here = max(ended_before, min(len(text) - 1 if is_final else len(text.rstrip(_REPLACEMENT)), len(whole)))
        begun_here = max(begun_before, min(ended_here + is_cut, len(whole)))
        begun[token], ended[token] = whole[begun_before:begun_here], whole[ended_before:ended_here]
        begun_before, ended_before = begun_here, ended_here
