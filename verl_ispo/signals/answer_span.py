"""Where the answer A and its lead-in lie in a response, on the response's own token ids (all ours).

A is the smallest run of tokens that covers the content of the last balanced ``\\boxed{...}``, or else of the last
``Answer:`` line. The lead-in is the run of tokens that opens it. The trace T is what comes before the lead-in. The text
serves only to find places: A is never tokenised again, since other ids would be another answer.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

# One pass over the text, so that hostile nesting costs no more than its length. An escaped brace, \{, is a character
# in LaTeX and does not group.
_BOX_SCANNER = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
_ANSWER_LINE = re.compile(r"answer[ \t]*:([^\n]*)", re.IGNORECASE)


@dataclass(frozen=True)
class AnswerSpans:
    """Token places in each response, `(batch,)` int64 each; all are 0 where no answer was found.

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

    Every character that marks an answer (backslash, braces, letters, colon, newline) is ASCII, and a token that holds
    one decodes to it on its own, whatever the tokenizer does with bytes of other scripts.

    Args:
        decode (`Callable`): from a token id to its text.
        special_ids (`Sequence[int]`): tokens that count as empty text, such as the end of sequence.
    """

    def __init__(self, decode: Callable[[int], str], special_ids: Sequence[int] = ()) -> None:
        self._decode = decode
        self._texts: dict[int, str] = dict.fromkeys(special_ids, "")

    def __call__(self, token_id: int) -> str:
        text = self._texts.get(token_id)
        if text is None:
            text = self._texts[token_id] = self._decode(token_id)
        return text


def find_answer_spans(
    responses: Sequence[Sequence[int]], token_text: Callable[[int], str], answer_format: str = "auto"
) -> AnswerSpans:
    """Answer and lead-in of each response.

    Args:
        responses (`Sequence[Sequence[int]]`): token ids without padding.
        token_text (`Callable`): the text of one token, such as a `TokenTexts`.
        answer_format (`str`, *optional*, defaults to `"auto"`): see `ISPOConfig.answer_format`.

    Returns:
        `AnswerSpans`.
    """
    places = [_token_places([token_text(token) for token in response], answer_format) for response in responses]
    columns = torch.tensor(places, dtype=torch.long).reshape(len(places), 3)
    return AnswerSpans(lead_in_start=columns[:, 0], start=columns[:, 1], end=columns[:, 2])


def locate_answer(text: str, answer_format: str = "auto") -> tuple[int, int, int] | None:
    """Character places (lead-in start, content start, content end) of the answer; `None` where there is none."""
    if answer_format in ("auto", "boxed"):
        boxed = _last_balanced_box(text)
        if boxed is not None or answer_format == "boxed":
            return boxed
    return _last_answer_line(text)


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
    places = torch.where(mask, spans.start.unsqueeze(-1) + offsets, 0)
    if values.shape[-1] == 0:  # every response is empty
        return values.new_zeros(mask.shape), mask
    return values.gather(-1, places), mask


def _token_places(texts: list[str], answer_format: str) -> tuple[int, int, int]:
    located = locate_answer("".join(texts), answer_format)
    if located is None:
        return 0, 0, 0
    lead_in_at, content_at, content_end_at = located
    ends = list(accumulate(len(text) for text in texts))
    # The token that holds character c is the first whose end lies behind c; A ends with the token of its last one.
    start = bisect_right(ends, content_at)
    end = bisect_left(ends, content_end_at) + 1
    return min(bisect_right(ends, lead_in_at), start), start, end


def _last_balanced_box(text: str) -> tuple[int, int, int] | None:
    open_braces: list[tuple[int, int] | None] = []
    best: tuple[int, int, int] | None = None
    for match in _BOX_SCANNER.finditer(text):
        mark = match.group()
        if mark == "{":
            open_braces.append(None)
        elif mark == "}":
            box = open_braces.pop() if open_braces else None
            # Inner boxes close first, so the last to open is found by comparing where they open.
            if box is not None and (best is None or box[0] > best[0]):
                best = (*box, match.start())
        elif mark.startswith("\\boxed"):
            open_braces.append((match.start(), match.end()))
    return None if best is None else _without_surrounding_space(text, *best)


def _last_answer_line(text: str) -> tuple[int, int, int] | None:
    last = None
    for last in _ANSWER_LINE.finditer(text):  # noqa: B007 - only the last one is wanted
        pass
    return None if last is None else _without_surrounding_space(text, last.start(), *last.span(1), strip="*")


def _without_surrounding_space(
    text: str, lead_in_at: int, start: int, end: int, strip: str = ""
) -> tuple[int, int, int] | None:
    content = text[start:end]
    blank = " \t\r\n\f\v" + strip
    start += len(content) - len(content.lstrip(blank))
    end -= len(content) - len(content.rstrip(blank))
    return (lead_in_at, start, end) if start < end else None
