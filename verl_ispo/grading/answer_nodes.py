"""The parts that an answer is split into."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scalar:
    """A number, an expression, a word or a choice letter, without its unit."""

    text: str
    unit: str = ""
    percent: bool = False
    scale: int = 1


@dataclass(frozen=True)
class Collection:
    r"""Items in brackets (``left`` and ``right`` are the brackets), or in any order where ``left`` is ``{``.

    What has any order is a list, whose repeats count, or a set if it stood in ``braces``.
    """

    left: str
    right: str
    items: tuple[Node, ...]
    variable: str = ""
    braces: bool = False

    @property
    def unordered(self) -> bool:
        return self.left == "{"


@dataclass(frozen=True)
class Union:
    """A union of intervals and sets."""

    parts: tuple[Node, ...]
    variable: str = ""


@dataclass(frozen=True)
class Difference:
    r"""``left \setminus right``, both sets."""

    left: Node
    right: Node


@dataclass(frozen=True)
class Matrix:
    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True)
class Assignment:
    r"""``x = 5``, ``f(x) = 2x`` (then ``parameters`` is ``("x",)``) or ``x \in [0, 1]``."""

    name: str
    parameters: tuple[str, ...]
    value: Node


@dataclass(frozen=True)
class Relation:
    r"""An equation or inequality that is not an assignment: ``operator`` is one of ``=``, ``<``, ``\le``, ``\ne``."""

    operator: str
    left: str
    right: str


Node = Scalar | Collection | Union | Difference | Matrix | Assignment | Relation
