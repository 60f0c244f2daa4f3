r"""Which rollouts of a group give the same answer, without a ground truth.

Two answers are the same if their texts are, apart from white space, ``$``, ``\left``, ``\right``, and the size of a
fraction (``\dfrac``, ``\tfrac``); ours. The grader's equivalence (``1/2`` and ``0.5``) is not used: it is no
equivalence relation, and answers are compared here before anything is graded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from verl_ispo.methods.method import MethodBatch

# Longer answers are compared as they are.
MAX_ANSWER_CHARS = 4_000

_WITHOUT_MEANING = re.compile(r"\\(?:left|right)(?![A-Za-z])|[\s$]")
_SIZED_FRACTION = re.compile(r"\\[dt]frac(?![A-Za-z])")


def answer_key(text: str) -> str:
    """The same text for answers that count as the same."""
    if len(text) > MAX_ANSWER_CHARS:
        return text
    return _WITHOUT_MEANING.sub("", _SIZED_FRACTION.sub(r"\\frac", text))


def group_votes(batch: MethodBatch) -> tuple[list[str | None], list[Counter[str]]]:
    """Each rollout's answer and each group's votes.

    Args:
        batch (`MethodBatch`): with `answer_texts`.

    Returns:
        `(answers, votes)`: the key of each rollout's answer, `None` without one; and per group how many rollouts give
        each answer.
    """
    answers = [_key_or_none(text) for text in batch.answer_texts]
    votes: list[Counter[str]] = [Counter() for _ in range(batch.groups.count)]
    for answer, group in zip(answers, batch.groups.ids.tolist(), strict=True):
        if answer is not None:
            votes[group][answer] += 1
    return answers, votes


def votes_of_rollouts(batch: MethodBatch) -> tuple[Sequence[int], Sequence[int]]:
    """How many rollouts of its group give a rollout's answer, and the most that any answer of the group has.

    Args:
        batch (`MethodBatch`): with `answer_texts`.

    Returns:
        `(votes, most)`, a number per row; both 0 where nobody in the group has an answer, `votes` 0 without one.
    """
    answers, votes = group_votes(batch)
    groups = batch.groups.ids.tolist()
    own = [0 if answer is None else votes[group][answer] for answer, group in zip(answers, groups, strict=True)]
    return own, [max(votes[group].values(), default=0) for group in groups]


def _key_or_none(text: str | None) -> str | None:
    # an answer of nothing but white space is none
    return None if text is None else answer_key(text) or None
