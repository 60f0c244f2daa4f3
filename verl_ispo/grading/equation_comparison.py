"""Compare equations, named values (``x = 5``, ``f(x) = 2x``) and inequalities, with each other and with bare values."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from .answer_nodes import Assignment, Collection, Node, Relation, Scalar
from .answer_structure import parse_answer
from .comparison_rules import Rules, Verdict, all_equal
from .exact_numbers import exact_value
from .expression_guard import GoldNotUnderstood
from .list_comparison import compare_lists, pairs_of
from .named_quantities import is_arithmetic, is_product_of_coordinates, names_a_quantity

Compare = Callable[[Node, Node, Rules], Verdict]

_VARIABLES = frozenset("xyztuvwnkmrs")


def compare_assignments(gold: Node, answer: Node, rules: Rules, compare: Compare) -> Verdict:
    """Compare two answers of which one at least is an `Assignment`; ``compare`` compares their parts."""
    if isinstance(gold, Assignment) and isinstance(answer, Assignment):
        if len(gold.parameters) != len(answer.parameters) and gold.parameters and answer.parameters:
            return False
        if not _names_agree(gold.name, answer.name):
            return _compare_equations(gold, answer, rules)
        value = answer.value
        if len(gold.parameters) == 1 and len(answer.parameters) == 1 and gold.parameters != answer.parameters:
            if not {*gold.parameters, *answer.parameters} <= _VARIABLES:
                return False  # P(A) is not P(B)
            value = _rename(value, answer.parameters[0], gold.parameters[0])
        return compare(gold.value, value, rules)
    bare = answer if isinstance(gold, Assignment) else gold
    if isinstance(bare, Relation):
        return _compare_equations(gold, answer, rules)
    if isinstance(bare, Collection) and bare.variable:
        return False  # an inequality is not an assignment
    if isinstance(bare, Collection) and bare.unordered and any(isinstance(item, Assignment) for item in bare.items):
        return compare_lists(gold, answer, pairs_of(compare, rules))
    if isinstance(gold, Assignment):
        return False if is_product_of_coordinates(gold.name) else compare(gold.value, answer, rules)
    assert isinstance(answer, Assignment)
    return compare(gold, answer.value, rules)


def _names_agree(gold: str, answer: str) -> bool:
    """The same name, one with and one without a subscript, or one spelled out in words (``\\text{Area}``)."""
    left, right = (re.sub(r"[{}\s]|\\(?=[A-Za-z])", "", name) for name in (gold, answer))
    if left == right or ("\\text" in gold) != ("\\text" in answer):
        return True
    (left_letter, _, left_index), (right_letter, _, right_index) = left.partition("_"), right.partition("_")
    return left_letter == right_letter and not (left_index and right_index)


def _rename(node: Node, old: str, new: str) -> Node:
    """Rename the parameter of a function; left alone where the new name is in use already."""
    if isinstance(node, Scalar):
        letters = re.sub(r"\\[A-Za-z]+", " ", node.text)
        if new in letters:
            return node
        pattern = re.compile(rf"(\\[A-Za-z]+)|{re.escape(old)}")
        # f(t) = \frac{t}{2} to x: "\frac" stays, "t" is renamed, and a command before a letter keeps its space
        return replace(node, text=pattern.sub(lambda match: match.group(1) or new, node.text))
    return node


def _sides(node: Node) -> tuple[str, str] | None:
    if isinstance(node, Relation) and node.operator == "=":
        return node.left, node.right
    if isinstance(node, Assignment) and isinstance(node.value, Scalar) and not node.value.unit:
        parameters = f"({','.join(node.parameters)})" if node.parameters else ""
        return node.name + parameters, node.value.text
    return None


def _compare_equations(gold: Node, answer: Node, rules: Rules) -> Verdict:
    gold_sides, answer_sides = _sides(gold), _sides(answer)
    if gold_sides is None or answer_sides is None:
        return False
    if (
        any(
            exact_value(sides[1]) is not None and isinstance(node, Assignment)
            for node, sides in ((gold, gold_sides), (answer, answer_sides))
        )
        and isinstance(gold, Assignment)
        and isinstance(answer, Assignment)
    ):
        return False  # x = 5 is not y = 5  # fmt: skip
    return rules.symbolic.equations_equal(gold_sides, answer_sides) if rules.symbolic else None


def compare_relations(gold: Node, answer: Node, rules: Rules, compare: Compare) -> Verdict:
    """Compare two answers of which one at least is a `Relation`; ``compare`` compares their parts."""
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        if gold.operator != answer.operator:
            return False
        direct = all_equal(
            compare(parse_answer(left), parse_answer(right), replace(rules, symbolic=None))
            for left, right in ((gold.left, answer.left), (gold.right, answer.right))
        )
        if direct:
            return True
        if rules.symbolic is None:
            return None
        if gold.operator == "=":
            return rules.symbolic.equations_equal((gold.left, gold.right), (answer.left, answer.right))
        left, right = (f"{side.left}-({side.right})" for side in (gold, answer))
        return rules.symbolic.expressions_equal(left, right)
    named = gold if isinstance(gold, Relation) else answer
    assert isinstance(named, Relation)
    if named.operator != "=":
        return False
    if is_arithmetic(named.left):
        holds = _true_equation(named, rules, compare)
    else:
        holds = names_a_quantity(named.left, named.right, is_key=named is gold)
    if not holds:
        return holds
    value = parse_answer(named.right)
    return compare(value, answer, rules) if named is gold else compare(gold, value, rules)


def _true_equation(equation: Relation, rules: Rules, compare: Compare) -> Verdict:
    """Whether both sides of an equation between numbers have one value: ``2+3=5`` does, ``5=6`` does not."""
    try:
        return compare(parse_answer(equation.left), parse_answer(equation.right), rules)
    except GoldNotUnderstood:
        return False
