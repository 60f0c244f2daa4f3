"""What comparing answers needs to know: the problem's rules, who decides what is not arithmetic, and verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from .answer_nodes import Node

Verdict = bool | None
"""Equal, different, or not decided."""


class SymbolicComparer(Protocol):
    """What a worker can decide about scalars that are not plain arithmetic."""

    def expressions_equal(self, gold: str, answer: str) -> Verdict: ...

    def equations_equal(self, gold: tuple[str, str], answer: tuple[str, str]) -> Verdict: ...

    def sets_equal(self, gold: Node, answer: Node) -> Verdict: ...


@dataclass(frozen=True)
class Rules:
    """What the problem says about its answer.

    Args:
        tolerance (`Fraction`, *optional*): Largest absolute error of a number; without it numbers must be equal.
        symbolic (`SymbolicComparer`, *optional*): Decides what the exact path cannot.
        multiple_answers (`bool`, *optional*, defaults to `False`):
            The ground truth lists all answers, a double one perhaps twice.
        in_set (`bool`, *optional*, defaults to `False`): Members of sets in braces are compared: 1 is not {1}.
    """

    tolerance: Fraction | None = None
    symbolic: SymbolicComparer | None = None
    multiple_answers: bool = False
    in_set: bool = False


def any_equal(verdicts: Iterable[Verdict]) -> Verdict:
    undecided = False
    for verdict in verdicts:
        if verdict:
            return True
        undecided |= verdict is None
    return None if undecided else False


def all_equal(verdicts: Iterable[Verdict]) -> Verdict:
    undecided = False
    for verdict in verdicts:
        if verdict is False:
            return False
        undecided |= verdict is None
    return None if undecided else True
