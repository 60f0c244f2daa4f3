"""How sure a model was of a response: the mean log-prob of the response, and of the answer in it (both ours).

The answer is the run of tokens that the grader's answer stands in, which is what IFD scores in training too, with the
default ``answer_span=content``.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from verl_ispo.answers.answer_place import row_answer_format
from verl_ispo.evaluation.questions import Question
from verl_ispo.evaluation.sampler import Completion
from verl_ispo.evaluation.samples import LogProbs
from verl_ispo.grading.ground_truth_reading import asks_for_several
from verl_ispo.signals.answer_span import find_answer_spans
from verl_ispo.signals.token_texts import TokenTexts

DECIMALS = 6
"""Log-probs are rounded, so that a batch's order of summation in float64 does not show in the files."""


def mean_log_probs(completion: Completion, question: Question, texts: TokenTexts | None) -> LogProbs:
    """The mean log-probs of one response.

    Args:
        completion (`Completion`).
        question (`Question`): its ground truth and ``extra_info.answer_format`` say what counts as an answer.
        texts (`TokenTexts`, *optional*): of the tokenizer; needed where the completion has token ids.
    """
    log_probs = completion.log_probs
    if not log_probs:
        return LogProbs(None, None)
    token_ids: Sequence[int]
    if completion.token_ids is not None and texts is not None:
        token_ids = completion.token_ids
    elif completion.pieces is not None:
        token_ids, texts = range(len(completion.pieces)), _texts_of_pieces(completion.pieces)
    else:
        return LogProbs(_mean(log_probs), None)
    spans = find_answer_spans(
        [list(token_ids)],
        texts,
        row_answer_format(question.extra_info),
        several=[asks_for_several(question.ground_truth, question.extra_info)],
    )
    start, end = int(spans.start[0]), int(spans.end[0])
    return LogProbs(_mean(log_probs), _mean(log_probs[start:end]) if start < end else None)


def _texts_of_pieces(pieces: Sequence[bytes]) -> TokenTexts:
    def decode(indices: Sequence[int]) -> str:
        return b"".join(pieces[index] for index in indices).decode(errors="replace")

    return TokenTexts(lambda index: decode([index]), decode_together=decode)


def _mean(log_probs: Sequence[float]) -> float:
    return round(fmean(log_probs), DECIMALS)
