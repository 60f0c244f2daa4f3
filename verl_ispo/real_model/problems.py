"""Sums, and word problems of one and of two steps, by seed, with worked solutions.

They suit a small pretrained model that has been taught the box: on SmolLM2-135M one group of rollouts is solved, one is
mixed and one has no correct rollout about equally often. A held-out problem is never one to train on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ONE_STEP, TWO_STEPS, SUM = "one_step", "two_steps", "sum"
KINDS = (ONE_STEP, TWO_STEPS, SUM)

_NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo")
_THINGS = ("apples", "books", "coins", "eggs", "marbles", "pencils", "shells", "stamps", "stickers", "toys")


@dataclass(frozen=True)
class Problem:
    r"""One problem.

    Attributes:
        kind (`str`): one of `KINDS`.
        question (`str`): as the prompt has it.
        answer (`int`): the correct answer.
        solution (`str`): worked, with the answer in a ``\boxed{}``.
    """

    kind: str
    question: str
    answer: int
    solution: str


def _solution(steps: str, answer: int) -> str:
    return f"{steps}\nThe answer is \\boxed{{{answer}}}."


def _one_step(draw: random.Random) -> Problem:
    name, thing = draw.choice(_NAMES), draw.choice(_THINGS)
    shape = draw.randrange(4)
    if shape == 0:
        first, second = draw.randint(2, 30), draw.randint(2, 30)
        answer, step = first + second, f"{first} + {second}"
        question = f"{name} has {first} {thing} and buys {second} more. How many {thing} does {name} have now?"
    elif shape == 1:
        first = draw.randint(6, 40)
        second = draw.randint(2, first - 2)
        answer, step = first - second, f"{first} - {second}"
        question = f"{name} has {first} {thing} and gives away {second}. How many {thing} does {name} have left?"
    elif shape == 2:
        first, second = draw.randint(2, 9), draw.randint(2, 9)
        answer, step = first * second, f"{first} * {second}"
        question = f"{name} has {first} bags with {second} {thing} each. How many {thing} does {name} have?"
    else:
        second, answer = draw.randint(2, 9), draw.randint(2, 9)
        first, step = second * answer, f"{second * answer} / {second}"
        question = (
            f"{name} shares {first} {thing} equally among {second} friends. How many {thing} does each friend get?"
        )
    return Problem(ONE_STEP, question, answer, _solution(f"{step} = {answer}.", answer))


def _two_steps(draw: random.Random) -> Problem:
    name, thing = draw.choice(_NAMES), draw.choice(_THINGS)
    shape = draw.randrange(3)
    if shape == 0:
        bags, each, more = draw.randint(2, 9), draw.randint(2, 9), draw.randint(2, 20)
        middle, answer = bags * each, bags * each + more
        steps = f"{bags} * {each} = {middle}. {middle} + {more} = {answer}."
        question = (
            f"{name} buys {bags} bags with {each} {thing} each and finds {more} more. "
            f"How many {thing} does {name} have now?"
        )
    elif shape == 1:
        bags, each = draw.randint(2, 9), draw.randint(3, 9)
        fewer = draw.randint(2, bags * each - 1)
        middle, answer = bags * each, bags * each - fewer
        steps = f"{bags} * {each} = {middle}. {middle} - {fewer} = {answer}."
        question = (
            f"{name} has {bags} boxes with {each} {thing} each and gives away {fewer} {thing}. "
            f"How many {thing} does {name} have left?"
        )
    else:
        first, more = draw.randint(5, 30), draw.randint(5, 30)
        middle = first + more
        fewer = draw.randint(2, middle - 2)
        answer = middle - fewer
        steps = f"{first} + {more} = {middle}. {middle} - {fewer} = {answer}."
        question = (
            f"{name} has {first} {thing}, gets {more} more and then loses {fewer}. "
            f"How many {thing} does {name} have in the end?"
        )
    return Problem(TWO_STEPS, question, answer, _solution(steps, answer))


def _sum(draw: random.Random) -> Problem:
    first, second = draw.randint(11, 99), draw.randint(11, 99)
    answer = first + second
    return Problem(SUM, f"What is {first} + {second}?", answer, _solution(f"{first} + {second} = {answer}.", answer))


_MAKERS: dict[str, Callable[[random.Random], Problem]] = {ONE_STEP: _one_step, TWO_STEPS: _two_steps, SUM: _sum}


def made_problems(kind: str, seed: str, excluded: frozenset[str] = frozenset()) -> Iterator[Problem]:
    """Distinct problems of one kind without an end, the same for the same seed.

    Args:
        kind (`str`): one of `KINDS`.
        seed (`str`): of the draws.
        excluded (`frozenset[str]`, *optional*): questions that do not come.
    """
    draw, given = random.Random(f"{seed}/{kind}"), set(excluded)
    while True:
        problem = _MAKERS[kind](draw)
        if problem.question not in given:
            given.add(problem.question)
            yield problem
