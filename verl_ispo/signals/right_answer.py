r"""The gain of the correct answer through a rollout's trace, for groups without a correct rollout (all ours).

    gain = (1/|A*|) [log p(A* | Q, T, lead-in) - log p(A* | Q, lead-in)]

A* is the row's ground truth, T the rollout's trace, and the lead-in the tokens that open the rollout's own answer, such
as ``\boxed{``. Where a tokenizer joins the end of the lead-in with the beginning of A* (``{\frac`` may begin with one
token ``{\``), A* is the smallest run of tokens that covers it, as A is in a response; the tokens before that run are
then the tokenizer's and not the rollout's.

One group's rollouts have the same prompt and A*, so log p(A* | Q, lead-in) differs between them only where their
lead-ins do. Equal texts are scored once: that changes no number, and the term falls out of a group's advantage exactly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from verl_ispo.signals.answer_span import AnswerSpans
from verl_ispo.signals.checks import check_finite
from verl_ispo.signals.conditional_ifd import conditional_ifd

MAX_RIGHT_ANSWER_TOKENS = 64
"""A longer ground truth (a proof, a whole program) is not scored. Ours."""

_MAX_CHARS_PER_TOKEN = 16
_BOX_OPENING = re.compile(r"\\(?:boxed|fbox)\s*\{\s*")
_NOT_SCORED = -1

Encode = Callable[[str], Sequence[int]]
Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class RightAnswerRows:
    """The texts to score, and which of them belong to each rollout.

    Attributes:
        heads: what is given, one tensor of token ids per text.
        tails: A*, whose tokens are scored.
        given_trace: for each rollout, the index of its text with the trace; -1 for a rollout that is not scored.
        ablated: for each rollout, the index of its text without the trace; -1 likewise.
        too_long: for each rollout, whether its ground truth has more than `MAX_RIGHT_ANSWER_TOKENS` tokens.
    """

    heads: list[torch.Tensor]
    tails: list[torch.Tensor]
    given_trace: tuple[int, ...]
    ablated: tuple[int, ...]
    too_long: tuple[bool, ...]


@dataclass(frozen=True)
class RightAnswerScores:
    """Log-probs of the correct answer's tokens.

    Attributes:
        given_trace: after prompt, trace and lead-in, `(batch, key_length)` float32, left-aligned.
        ablated: after prompt and lead-in, same shape.
        mask: where there is a token, same shape, bool; a rollout that was not scored has none.
        too_long: `(batch,)` bool, as in `RightAnswerRows`.
    """

    given_trace: torch.Tensor
    ablated: torch.Tensor
    mask: torch.Tensor
    too_long: torch.Tensor

    @property
    def scored(self) -> torch.Tensor:
        """Rollouts that have a gain, `(batch,)` bool."""
        return self.mask.any(dim=-1)

    def rows(self, index: torch.Tensor) -> RightAnswerScores:
        """The scores of some rollouts."""
        return RightAnswerScores(self.given_trace[index], self.ablated[index], self.mask[index], self.too_long[index])


def right_answer_rows(
    prompts: Sequence[torch.Tensor],
    responses: Sequence[torch.Tensor],
    spans: AnswerSpans,
    right_answers: Sequence[str | None],
    encode: Encode,
    decode: Decode,
    max_length: int | None = None,
    trace_end: torch.Tensor | None = None,
) -> RightAnswerRows:
    """The texts whose forward gives the gain of the correct answer.

    A rollout is not scored if it has no answer and so no lead-in, if its ground truth is empty or has more than
    `MAX_RIGHT_ANSWER_TOKENS` tokens, or if its text would be longer than ``max_length``.

    Args:
        prompts (`Sequence[torch.Tensor]`): token ids of each prompt.
        responses (`Sequence[torch.Tensor]`): token ids of each response.
        spans (`AnswerSpans`): where lead-in and answer are in the responses.
        right_answers (`Sequence[str]`): ground truth of each rollout; `None` for a rollout that nothing is asked of.
        encode (`Callable`): from a text to its token ids, without special tokens.
        decode (`Callable`): from token ids to their text, special tokens kept.
        max_length (`int`, *optional*): most tokens of a text.
        trace_end (`torch.Tensor` of shape `(batch,)`, int64, *optional*): one past T's last token, where T ends before
            the lead-in begins.

    Returns:
        `RightAnswerRows`.
    """
    heads: list[torch.Tensor] = []
    tails: list[torch.Tensor] = []
    known: dict[tuple[bytes, bytes], int] = {}
    placed: dict[tuple[tuple[int, ...], int, str], tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def index_of(head: torch.Tensor, tail: torch.Tensor) -> int:
        index = known.setdefault((head.numpy().tobytes(), tail.numpy().tobytes()), len(heads))
        if index == len(heads):
            heads.append(head)
            tails.append(tail)
        return index

    too_long_keys = {
        key: len(key) > _MAX_CHARS_PER_TOKEN * MAX_RIGHT_ANSWER_TOKENS or len(encode(key)) > MAX_RIGHT_ANSWER_TOKENS
        for key in set(right_answers)
        if key
    }
    columns: list[tuple[int, int]] = []
    ends = spans.lead_in_start if trace_end is None else trace_end
    bounds = zip(ends.tolist(), spans.lead_in_start.tolist(), spans.start.tolist(), spans.end.tolist(), strict=True)
    for prompt, response, key, (trace_length, lead_in_start, start, end) in zip(
        prompts, responses, right_answers, bounds, strict=True
    ):
        columns.append((_NOT_SCORED, _NOT_SCORED))
        if not key or too_long_keys[key] or end <= start:
            continue
        lead_in, first_of_answer = tuple(response[lead_in_start:start].tolist()), int(response[start])
        case = (lead_in, first_of_answer, key)
        if case not in placed:
            placed[case] = place_right_answer(lead_in, first_of_answer, key, encode, decode)
        opening, tail = (prompt.new_tensor(part) for part in placed[case])
        with_trace = torch.cat([prompt, response[:trace_length], opening])
        if len(tail) and (max_length is None or len(with_trace) + len(tail) <= max_length):
            columns[-1] = index_of(with_trace, tail), index_of(torch.cat([prompt, opening]), tail)
    return RightAnswerRows(
        heads=heads,
        tails=tails,
        given_trace=tuple(with_trace for with_trace, _ in columns),
        ablated=tuple(without for _, without in columns),
        too_long=tuple(bool(key) and too_long_keys[key] for key in right_answers),
    )


def place_right_answer(
    lead_in: Sequence[int], first_of_answer: int, right_answer: str, encode: Encode, decode: Decode
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    r"""The correct answer behind a rollout's lead-in: the tokens that open it, and its own.

    What opens an answer may end inside the first token of the rollout's answer: the brace of ``{4``, the space of
    ``" 42"``. That part of the token belongs to the lead-in's text too.

    Args:
        lead_in (`Sequence[int]`): the rollout's lead-in.
        first_of_answer (`int`): the first token of the rollout's own answer.
        right_answer (`str`): the ground truth.
        encode, decode (`Callable`): as in `right_answer_rows`.

    Returns:
        `tuple`: token ids before A*, which are the rollout's own lead-in unless the tokenizer joins its end with
        something, and the token ids of A*.
    """
    own_text, text = decode(lead_in), decode([*lead_in, first_of_answer])
    box = _BOX_OPENING.search(text)
    opens_up_to = len(text) - len(text[len(own_text) :].lstrip()) if box is None else box.end()
    opening_text = text[: max(opens_up_to, len(own_text))]
    opening, whole = encode(opening_text), encode(opening_text + right_answer)
    shared = 0
    while shared < min(len(opening), len(whole) - 1) and opening[shared] == whole[shared]:
        shared += 1
    keeps_own = shared == len(opening) and opening_text == own_text
    return tuple(lead_in) if keeps_own else tuple(whole[:shared]), tuple(whole[shared:])


def right_answer_scores(log_probs: Sequence[torch.Tensor], rows: RightAnswerRows) -> RightAnswerScores:
    """Each rollout's log-probs of the correct answer, from those of the scored texts.

    Args:
        log_probs (`Sequence[torch.Tensor]`): of the tails of ``rows``, one tensor each.
        rows (`RightAnswerRows`).

    Returns:
        `RightAnswerScores`.
    """
    nothing = torch.zeros(0)
    given_trace, ablated = (
        [nothing if index == _NOT_SCORED else log_probs[index].float() for index in indices]
        for indices in (rows.given_trace, rows.ablated)
    )
    lengths = torch.tensor([len(values) for values in given_trace], dtype=torch.long)
    width = max(int(lengths.max()) if len(lengths) else 0, 1)

    def padded(values: Sequence[torch.Tensor]) -> torch.Tensor:
        out = torch.zeros(len(values), width)
        for row, one in enumerate(values):
            out[row, : len(one)] = one
        return out

    return RightAnswerScores(
        given_trace=padded(given_trace),
        ablated=padded(ablated),
        mask=torch.arange(width) < lengths.unsqueeze(-1),
        too_long=torch.tensor(rows.too_long, dtype=torch.bool),
    )


def right_answer_gain(scores: RightAnswerScores) -> torch.Tensor:
    """(1/|A*|) [log p(A* | Q, T, lead-in) - log p(A* | Q, lead-in)], nats per token.

    Args:
        scores (`RightAnswerScores`).

    Returns:
        `torch.Tensor` of shape `(batch,)`, float32; 0 for a rollout that was not scored.

    Raises:
        NonFiniteSignalError: NaN or infinity where the mask is true, with field, row and position.
    """
    check_finite(scores.mask, right_answer_log_prob=scores.given_trace, ablated_right_answer_log_prob=scores.ablated)
    return conditional_ifd(scores.given_trace, scores.ablated, scores.mask)
