"""Chains of additions and subtractions in six levels, their worked traces, and the split into train and held-out.

A problem is a question such as ``3+4-2=``. A worked response spells out one operation at a time, carrying the
running total forward, and ends in a box: ``3+4=7;7-2=5;\\boxed{5}``. In the warm-up the separator and the way the
answer is written (``5`` or ``5.0``) vary, so that rollouts differ in ways that do not matter; this is where the
spread within an all-correct group comes from.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from verl_ispo.user_error import UserError


@dataclass(frozen=True)
class Level:
    """How hard a problem is: the number of its operands, and the largest one (the smallest is 1)."""

    number: int
    terms: int
    largest_operand: int

    @property
    def distinct_problems(self) -> int:
        """How many different questions the level holds."""
        return self.largest_operand**self.terms * 2 ** (self.terms - 1)


LEVELS: dict[int, Level] = {
    number: Level(number, terms, largest)
    for number, (terms, largest) in enumerate([(2, 9), (3, 9), (4, 9), (3, 50), (4, 50), (6, 50)], start=1)
}


@dataclass(frozen=True)
class Problem:
    """One chain. ``terms`` carries the signs: ``3+4-2=`` has the terms ``(3, 4, -2)``."""

    level: int
    terms: tuple[int, ...]

    @property
    def question(self) -> str:
        first, *rest = self.terms
        return str(first) + "".join(f"{term:+d}" for term in rest) + "="

    @property
    def answer(self) -> int:
        return sum(self.terms)


@dataclass(frozen=True)
class ResponseMix:
    """How the worked responses of a warm-up vary.

    Args:
        no_trace_share (`float`): share of the responses that are the bare box.
        comma_share (`float`): share of the traces separated by ``,`` instead of ``;``.
        decimal_share (`float`): share of the answers written ``5.0`` instead of ``5``.
    """

    no_trace_share: float
    comma_share: float = 0.5
    decimal_share: float = 0.3


def draw_problem(level: Level, rng: random.Random) -> Problem:
    """Draw one problem of a level, uniformly over its distinct questions."""
    operands = [rng.randint(1, level.largest_operand) for _ in range(level.terms)]
    signs = [1, *(rng.choice((1, -1)) for _ in range(level.terms - 1))]
    return Problem(level.number, tuple(sign * operand for sign, operand in zip(signs, operands, strict=True)))


def worked_response(problem: Problem, *, separator: str = ";", decimal: bool = False, trace: bool = True) -> str:
    """Write the trace and the boxed answer of a problem.

    Args:
        problem (`Problem`): the chain to work out.
        separator (`str`, *optional*, defaults to `";"`): ends each step of the trace.
        decimal (`bool`, *optional*, defaults to `False`): write the answer as ``5.0``.
        trace (`bool`, *optional*, defaults to `True`): `False` gives the bare box.
    """
    boxed = f"\\boxed{{{problem.answer}{'.0' if decimal else ''}}}"
    if not trace:
        return boxed
    steps = []
    total, *rest = problem.terms
    for term in rest:
        steps.append(f"{total}{term:+d}={total + term}{separator}")
        total += term
    return "".join(steps) + boxed


def draw_response(problem: Problem, mix: ResponseMix, rng: random.Random) -> str:
    """Draw one worked response of a problem from a mix of formats."""
    return worked_response(
        problem,
        separator="," if rng.random() < mix.comma_share else ";",
        decimal=rng.random() < mix.decimal_share,
        trace=rng.random() >= mix.no_trace_share,
    )


def held_out_problems(seed: int, per_level: int = 50) -> list[Problem]:
    """Draw the held-out problems: ``per_level`` distinct questions of each level, in the order of the levels.

    They are drawn first and for all levels, whatever the training mix is, so that two mixes are scored on the same
    problems. Level 1 has 162 questions in all; the fixed count taken from it is never trained on.

    Args:
        seed (`int`): same seed, same problems, on every machine.
        per_level (`int`, *optional*, defaults to `50`): at most half of the smallest level.

    Raises:
        UserError: if ``per_level`` leaves less than half of a level to train on.
    """
    smallest = min(LEVELS.values(), key=lambda level: level.distinct_problems)
    limit = smallest.distinct_problems // 2
    if not 1 <= per_level <= limit:
        raise UserError(
            f"per_level={per_level} is out of range: level {smallest.number} has only {smallest.distinct_problems} "
            f"distinct problems and half of them are kept for training, so choose 1 to {limit}"
        )
    rng = random.Random(f"held-out/{seed}")
    problems: list[Problem] = []
    taken: set[str] = set()
    for level in LEVELS.values():
        wanted = len(problems) + per_level
        while len(problems) < wanted:
            problem = draw_problem(level, rng)
            if problem.question not in taken:
                taken.add(problem.question)
                problems.append(problem)
    return problems


def training_problems(levels: Sequence[int], rng: random.Random, held_out: frozenset[str]) -> Iterator[Problem]:
    """Draw training problems without end: a level uniformly, then a problem of it that is not held out.

    A short chain of small operands belongs to a harder level too (``3+4-2=`` is one of levels 2 and 4), so a question
    held out of one level is excluded from all of them. Problems repeat, level 1 often.

    Args:
        levels (`Sequence[int]`): level numbers of the mix.
        rng (`random.Random`): source of the draws.
        held_out (`frozenset[str]`): questions that must not be drawn.

    Raises:
        UserError: if ``levels`` is empty or names a level that does not exist.
    """
    unknown = sorted(set(levels) - set(LEVELS))
    if unknown or not levels:
        raise UserError(f"levels {list(levels)} must be a non-empty choice of {sorted(LEVELS)}; unknown: {unknown}")
    while True:
        level = LEVELS[rng.choice(levels)]
        problem = draw_problem(level, rng)
        while problem.question in held_out:
            problem = draw_problem(level, rng)
        yield problem
