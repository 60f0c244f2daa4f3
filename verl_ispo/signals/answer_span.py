r"""Where the answer A, its lead-in and the trace T are in a response, as indices of its own tokens (all ours).

`verl_ispo.answers.answer_place` says where the answer is in the text. A is the smallest run of tokens that covers its
content, the lead-in is the run of tokens that opens it, and the trace T is what comes before the lead-in. The text
serves only to find positions: A is never tokenized again, since different ids would be a different answer.

A token that covers characters of both lead-in and content belongs to A. With a byte-level BPE that joins ``{\``, the A
of ``\boxed{\frac12}`` begins with that token, so its first log-prob is also the brace's.

What IFD scores may be more than the content (`ISPOConfig.answer_span`), and T may end earlier
(`ISPOConfig.trace_end`):

| `answer_span` | A | lead-in |
|---|---|---|
| ``content`` | ``42`` | ``\boxed{`` |
| ``marked`` | ``\boxed{42}`` | none |
| ``sentence`` | ``So the answer is $\boxed{42}`` | none |

| `trace_end` | T |
|---|---|
| ``lead_in`` | everything before the lead-in, or before A where it has none |
| ``first_statement`` | that, but only up to where it first states the answer |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from verl_ispo.answers.answer_place import markers_of
from verl_ispo.config.ispo_config import ISPOConfig
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

    def rows(self, index: torch.Tensor) -> AnswerSpans:
        """Some of the rows, by index or mask."""
        return AnswerSpans(self.lead_in_start[index], self.start[index], self.end[index])


@dataclass(frozen=True)
class ScoredAnswers:
    """What IFD compares in each response; with the defaults of `ISPOConfig` all three say the same.

    Attributes:
        content: the graded answer and its lead-in, whatever the settings.
        spans: A and its lead-in, as `answer_span` says.
        trace_end: one past the last token of T, as `trace_end` says, `(batch,)` int64; 0 without an answer.
    """

    content: AnswerSpans
    spans: AnswerSpans
    trace_end: torch.Tensor

    @property
    def stated(self) -> torch.Tensor:
        """Rows whose T ends before its lead-in, since it states the answer there, `(batch,)` bool."""
        return self.trace_end < self.spans.lead_in_start

    def rows(self, index: torch.Tensor) -> ScoredAnswers:
        """Some of the rows, by index or mask."""
        return ScoredAnswers(self.content.rows(index), self.spans.rows(index), self.trace_end[index])


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
    return find_scored_answers(responses, token_text, ISPOConfig(), answer_format, several).content


def find_scored_answers(
    responses: Sequence[Sequence[int]] | torch.Tensor,
    token_text: Callable[[int], str],
    config: ISPOConfig,
    answer_format: str | Sequence[str] | None = None,
    several: Sequence[bool] | None = None,
) -> ScoredAnswers:
    """Answer, lead-in and trace of each response, as `answer_span` and `trace_end` say.

    The statement that `trace_end="first_statement"` looks for is one of the answer's text, as a whole number or word
    (`verl_ispo.answers.statement`), that ends before the lead-in begins. T then ends before the token in which that
    statement begins. Looking for it decodes the whole response.

    Args:
        responses, token_text, several: as for `find_answer_spans`.
        config (`ISPOConfig`): `answer_span`, `trace_end`, and where no `answer_format` is given that too are read.
        answer_format (`str` or `Sequence[str]`, *optional*): of each response, where the data set has its own
            (`row_answer_format`).

    Returns:
        `ScoredAnswers`.
    """
    answer_format = config.answer_format if answer_format is None else answer_format
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
        found = search.find(markers_by_format[row_format], is_list)
        if found is None:
            rows.append((0,) * 7)
        elif config.answer_span == "content" and config.trace_end == "lead_in":
            content = found.content()
            rows.append((*content, *content, content[0]))
        else:
            rows.append((*found.content(), *search.scored(found, config.answer_span, config.trace_end)))
    columns = torch.tensor(rows, dtype=torch.long).reshape(count, 7).T.contiguous()
    return ScoredAnswers(AnswerSpans(*columns[:3]), AnswerSpans(*columns[3:6]), columns[6])


def _flat(responses: Sequence[Sequence[int]] | torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """All token ids one behind the other, and where each response begins and the last one ends."""
    if isinstance(responses, torch.Tensor):
        return responses.values().numpy(), responses.offsets().numpy()
    offsets = np.cumsum([0, *map(len, responses)])
    flat = [token_id for response in responses for token_id in response]
    return np.array(flat, dtype=np.int64), offsets


def answer_tails(
    responses: Sequence[torch.Tensor], spans: AnswerSpans, trace_end: torch.Tensor | None = None
) -> list[torch.Tensor]:
    """What follows each prompt where the answer is scored anew: T, lead-in and A, in the response's own ids.

    Args:
        responses (`Sequence[torch.Tensor]`): token ids of each response.
        spans (`AnswerSpans`): A and its lead-in.
        trace_end (`torch.Tensor` of shape `(batch,)`, *optional*): where T ends; by default T is left out, for
            log p(A | Q).

    Returns:
        `list[torch.Tensor]`: of a response without an answer its first token, whose log-prob nobody reads.
    """
    ends = [0] * len(responses) if trace_end is None else trace_end.tolist()
    bounds = zip(responses, ends, spans.lead_in_start.tolist(), spans.end.tolist(), strict=True)
    return [
        response[:1]
        if end <= lead_in_start
        else torch.cat([response[:stop], response[lead_in_start:end]])
        if stop
        else response[lead_in_start:end]
        for response, stop, lead_in_start, end in bounds
    ]


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
