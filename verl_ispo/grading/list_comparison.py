r"""Compare lists and sets of answers: repeats count in a list, and names say which value is whose.

- A list is a multiset: any order, but ``2,2,3`` is not ``2,3,3``.
- A set in braces counts nothing twice.
- Values with two or more different names are compared by name; where one side leaves the names out, in order, never as
  a bag: ``3,2`` is an answer to ``x=3, y=2``, and ``2,3`` is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .answer_nodes import Assignment, Collection, Node, Relation
from .comparison_rules import Rules, Verdict


@dataclass(frozen=True)
class Pairs:
    """How to compare a pair of items: without sympy (``None`` where that does not decide), and with all there is."""

    exact: Callable[[Node, Node], Verdict]
    full: Callable[[Node, Node], Verdict]


def pairs_of(compare: Callable[[Node, Node, Rules], Verdict], rules: Rules) -> Pairs:
    """How pairs are compared under the problem's rules."""
    exact = replace(rules, symbolic=None)
    return Pairs(lambda gold, answer: compare(gold, answer, exact), lambda gold, answer: compare(gold, answer, rules))


def names_its_values(node: Collection) -> bool:
    """Whether the items have two or more different names: ``x=1, y=2``, or ``f(1)=1, f(2)=2``."""
    return len(_names(node.items)) > 1


def _names(items: tuple[Node, ...]) -> set[str]:
    names = {item.name for item in items if isinstance(item, Assignment)}
    return names | {item.left for item in items if isinstance(item, Relation) and item.operator == "="}


def as_list(node: Collection) -> Collection:
    """A tuple as the list of its items."""
    return replace(node, left="{", right="}")


def _items(node: Node) -> tuple[Node, ...]:
    if not isinstance(node, Collection):
        return (node,)
    return node.items if node.unordered else (replace(node, variable=""),)


def compare_lists(
    gold: Node, answer: Node, pairs: Pairs, *, repeats_in_key: bool = False, names_in_order: bool = False
) -> Verdict:
    """Whether two lists or sets are the same, as the module's docstring says.

    Args:
        gold, answer (`Node`): At least one is a list or a set in braces.
        pairs (`Pairs`): Compares two items.
        repeats_in_key (`bool`, *optional*, defaults to `False`):
            The ground truth may list a value twice (a double root) that an answer gives once.
        names_in_order (`bool`, *optional*, defaults to `False`):
            Values without names are in the order of the names even where these are ``x_1`` and ``x_2``.
    """
    gold_items, answer_items = _items(gold), _items(answer)
    if any(_needs_order(*sides, names_in_order) for sides in ((gold_items, answer_items), (answer_items, gold_items))):
        return _compare_in_order(gold_items, answer_items, pairs) if not _in_braces(gold, answer) else False
    if _in_braces(gold):
        gold_items = _distinct(gold_items, pairs)
    if _in_braces(answer):
        answer_items = _distinct(answer_items, pairs)
    if repeats_in_key and len(_distinct(answer_items, pairs)) == len(answer_items):
        gold_items = _distinct(gold_items, pairs)
    return _same_items(gold_items, answer_items, pairs)


def _compare_in_order(gold: tuple[Node, ...], answer: tuple[Node, ...], pairs: Pairs) -> Verdict:
    """Whether two lists of one length agree item by item."""
    if len(gold) != len(answer):
        return False
    verdicts = [pairs.full(left, right) for left, right in zip(gold, answer, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def _in_braces(*nodes: Node) -> bool:
    return any(isinstance(node, Collection) and node.braces for node in nodes)


def _needs_order(named: tuple[Node, ...], others: tuple[Node, ...], always: bool) -> bool:
    """Whether one side gives its values different names and the other leaves names out."""
    names = _names(named)
    if len(names) < 2 or all(isinstance(item, Assignment | Relation) for item in others):
        return False
    # the roots x_1 and x_2 of one equation may come in any order
    roots = len({name.partition("_")[0] for name in names}) == 1 and all("_" in name for name in names)
    return always or not roots


def _distinct(items: tuple[Node, ...], pairs: Pairs) -> tuple[Node, ...]:
    kept: list[Node] = []
    for item in items:
        if not any(item == other or pairs.exact(other, item) for other in kept):
            kept.append(item)
    return tuple(kept)


def _same_items(gold: tuple[Node, ...], answer: tuple[Node, ...], pairs: Pairs) -> Verdict:
    """Whether the items pair up one to one. Undecided pairs are looked at only among those that found no equal."""
    if len(gold) != len(answer):
        return False
    verdicts = [[pairs.exact(item, other) for other in answer] for item in gold]
    partners = _matching([[verdict is True for verdict in row] for row in verdicts])
    if None not in partners:
        return True
    if None in _matching([[verdict is not False for verdict in row] for row in verdicts]):
        return False
    free = set(range(len(answer))) - {partner for partner in partners if partner is not None}
    for row, partner in enumerate(partners):
        for column in sorted(free) if partner is None else ():
            if verdicts[row][column] is None:
                verdicts[row][column] = pairs.full(gold[row], answer[column])
    if None not in _matching([[verdict is True for verdict in row] for row in verdicts]):
        return True
    open_rows = any(verdict is None for row, partner in zip(verdicts, partners, strict=True)
                    if partner is None for verdict in row)  # fmt: skip
    return None if open_rows else False


def _matching(edges: list[list[bool]]) -> list[int | None]:
    """A largest one-to-one matching: for each row its column, or ``None`` (augmenting paths)."""
    owner: dict[int, int] = {}

    def augment(row: int, seen: set[int]) -> bool:
        for column, edge in enumerate(edges[row]):
            if edge and column not in seen:
                seen.add(column)
                if column not in owner or augment(owner[column], seen):
                    owner[column] = row
                    return True
        return False

    for row in range(len(edges)):
        augment(row, set())
    partners: list[int | None] = [None] * len(edges)
    for column, row in owner.items():
        partners[row] = column
    return partners
