"""Questions cut off before their end, and how well a model goes on with them (arXiv 2507.10532).

A model that has read a benchmark can write the rest of a question and give the answer from its beginning. The paper
measures both from 40, 60 and 80 % of each question, greedily and without a chat template: how often the rest is
completed exactly, its ROUGE-L, and how often the answer is correct. What it leaves open is ours: the share is counted
in words, so that the cut is between two of them; the response is compared as words, so that blanks do not count; and
only as many words of it are compared as the rest of the question has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from verl_ispo.evaluation.questions import Question

LEAST_WORDS = 5
"""A shorter question is left out: its parts of 40, 60 and 80 % would hardly differ."""
_WORD = re.compile(r"\S+")
_MAX_WORDS = 1000


@dataclass(frozen=True)
class CutQuestion:
    """The beginning of a question, which a model is given, and its rest.

    Attributes:
        question (`Question`): asks the beginning as one message; its id has the share at the end, as in ``q-3@60``.
        percent (`int`): share of the words in the beginning.
        rest (`str`): what was cut off.
    """

    question: Question
    percent: int
    rest: str


def split_question(text: str, percent: int) -> tuple[str, str] | None:
    """Beginning and rest of a question, of at least one word each; `None` for one of fewer than `LEAST_WORDS` words.

    Args:
        text (`str`): the question.
        percent (`int`): share of its words in the beginning, rounded down.
    """
    words = list(_WORD.finditer(text))
    if len(words) < LEAST_WORDS:
        return None
    kept = min(max(len(words) * percent // 100, 1), len(words) - 1)
    return text[: words[kept - 1].end()], text[words[kept].start() :].rstrip()


def cut_questions(questions: Sequence[Question], percents: Sequence[int]) -> list[CutQuestion]:
    """Each question cut at each share; those of fewer than `LEAST_WORDS` words are left out."""
    cuts = []
    for question in questions:
        for percent in percents:
            parts = split_question(question.text, percent)
            if parts is not None:
                message = {"role": "user", "content": parts[0]}
                name = f"{question.question_id}@{percent}"
                cuts.append(CutQuestion(replace(question, question_id=name, messages=(message,)), percent, parts[1]))
    return cuts


def completes(response: str, rest: str) -> bool:
    """Whether a response begins with the rest of the question, word by word; the last word may have more behind it."""
    wanted, written = rest.split(), response.split()[: len(rest.split())]
    if len(written) < len(wanted) or written[:-1] != wanted[:-1]:
        return False
    behind = written[-1].removeprefix(wanted[-1])
    # "triangle?Let" completes "triangle?", "triangles" does not complete "triangle"
    same_word = wanted[-1][-1].isalnum() and behind[:1].isalnum()
    return written[-1].startswith(wanted[-1]) and not same_word


def rouge_l(response: str, rest: str) -> float:
    """ROUGE-L of the response's first words against the rest of the question, as many as that has.

    F1 of the longest common subsequence of words (Lin, 2004), in [0, 1].
    """
    wanted = rest.split()[:_MAX_WORDS]
    written = response.split()[: len(wanted)]
    row = [0] * (len(written) + 1)
    for word in wanted:
        diagonal = 0
        for column, other in enumerate(written, start=1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    return 2.0 * row[-1] / (len(wanted) + len(written))
