"""Where the answer A and its lead-in are in a response, as indices of the response's own tokens (all ours).

`verl_ispo.answers.answer_place` says where the answer is in the text. A is the smallest run of tokens that covers its
content, the lead-in is the run of tokens that opens it, and the trace T is what comes before the lead-in. The text
serves only to find positions: A is never tokenized again, since different ids would be a different answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from verl_ispo.answers.answer_place import markers_of
from verl_ispo.signals.answer_search import AnswerSearch
from verl_ispo.signals.token_texts import TokenTexts


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


def find_answer_spans(
    responses: Sequence[Sequence[int]] | torch.Tensor,
    token_text: Callable[[int], str],
    answer_format: str | Sequence[str] = "auto",
    several: Sequence[bool] | None = None,
) -> AnswerSpans:
    """Answer and lead-in of each response.

    Nearly all of a response is never decoded: its tokens tell where a marker can be (`TokenTexts.hint_positions`), and
    the text is read from the last such position to the end, then from earlier ones, each time at least twice as much,
    until no text before can change what is found.

    Args:
        responses (`Sequence[Sequence[int]]` or nested `torch.Tensor`): token ids without padding.
        token_text (`Callable`): the text of one token, best a `TokenTexts` that is kept.
        answer_format (`str` or `Sequence[str]`, *optional*, defaults to `"auto"`): see `ISPOConfig.answer_format`;
            one for all responses, or one for each.
        several (`Sequence[bool]`, *optional*): whether each response's problem asks for several answers, as the
            grader sees it; boxes that form a list are then one answer. By default none does.

    Returns:
        `AnswerSpans`.
    """
    texts = token_text if isinstance(token_text, TokenTexts) else TokenTexts(token_text)
    token_ids, offsets = _flat(responses)
    count = len(offsets) - 1
    flags = [False] * count if several is None else several
    formats = [answer_format] * count if isinstance(answer_format, str) else answer_format
    positions, masks = texts.hint_positions(token_ids)
    first_of_row = np.searchsorted(positions, offsets).tolist()
    markers_by_format = {one: markers_of(one) for one in set(formats)}
    bounds = offsets.tolist()
    rows = []
    for row, (row_format, is_list) in enumerate(zip(formats, flags, strict=True)):
        start, end = bounds[row], bounds[row + 1]
        here = slice(first_of_row[row], first_of_row[row + 1])
        search = AnswerSearch(texts, token_ids[start:end], positions[here] - start, masks[here])
        rows.append(search.indices(markers_by_format[row_format], is_list))
    columns = torch.tensor(rows, dtype=torch.long).reshape(count, 3)
    return AnswerSpans(lead_in_start=columns[:, 0], start=columns[:, 1], end=columns[:, 2])


def _flat(responses: Sequence[Sequence[int]] | torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """All token ids one behind the other, and where each response begins and the last one ends."""
    if isinstance(responses, torch.Tensor):
        return responses.values().numpy(), responses.offsets().numpy()
    offsets = np.cumsum([0, *map(len, responses)])
    flat = [token_id for response in responses for token_id in response]
    return np.array(flat, dtype=np.int64), offsets


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
