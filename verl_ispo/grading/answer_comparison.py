"""Compare two answers part by part: equal, different, or not decided.

The rules for brackets, sets, units and percentages stand here once. Scalars that the exact path cannot decide go to a
:class:`SymbolicComparer`: a worker has one; the caller's process has none, so its verdict may be ``None``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from .answer_nodes import Assignment, Collection, Difference, Matrix, Node, Relation, Scalar, Union
from .answer_structure import parse_answer
from .canonical_spelling import is_only_spelled, same_spelling
from .choice_letters import compare_choices
from .comparison_rules import Rules, Verdict, all_equal, any_equal
from .degrees import same_degrees
from .equation_comparison import compare_assignments, compare_relations
from .exact_numbers import decimal_places, exact_value, significant_digits, values_equal
from .expression_guard import GoldNotUnderstood, check_expression
from .letter_values import differ_by_value
from .list_comparison import as_list, compare_lists, names_its_values, pairs_of
from .ratios import compare_ratios
from .units import unit_factor

MIN_ROUNDED_DIGITS = 6
"""A decimal with this many significant digits equals the exact value that rounds to it (math-verify: six places)."""


_SHORT_WORDS = "yes no true false odd even none both neither dne east west"
_WORDS = frozenset(_SHORT_WORDS.split())
_BASED = re.compile(r"\(?([0-9A-F]+(?:\.[0-9A-F]+)?)\)?_\{?(?:\\text\{)?\s*(\d{1,2}|[a-z]+)\s*\}?\}?")
_BASE_NAMES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "sixteen": 16,
}  # fmt: skip
_EMPTY_SET = Scalar(r"\emptyset")
_INFINITE = {r"\infty", r"-\infty"}
_LATIN = re.compile(r"\\text\{([^{}]*)\}|([A-Za-z][A-Za-z' -]*)")


def compare(gold: Node, answer: Node, rules: Rules) -> Verdict:
    """Whether two answers are the same; ``None`` where ``rules`` has no symbolic comparer and one is needed.

    Args:
        gold, answer (`Node`): From :func:`~verl_ispo.grading.answer_structure.parse_answer`.
        rules (`Rules`): The problem's tolerance, and the comparer for what is not plain arithmetic.

    Raises:
        GoldNotUnderstood: if the ground truth cannot be parsed as an expression.
        RefusedExpression: if a scalar is too long, too deep, or its numbers are too large to work out.
    """
    if gold == answer:
        return True
    if isinstance(gold, Assignment) or isinstance(answer, Assignment):
        return compare_assignments(gold, answer, rules, compare)
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        if isinstance(gold, Union | Difference) or isinstance(answer, Union | Difference):
            return _compare_real_sets(gold, answer, rules)
        return compare_relations(gold, answer, rules, compare)
    if isinstance(gold, Union | Difference) or isinstance(answer, Union | Difference):
        return _compare_real_sets(gold, answer, rules)
    if isinstance(gold, Matrix) or isinstance(answer, Matrix):
        return _compare_matrices(gold, answer, rules)
    if isinstance(gold, Collection) or isinstance(answer, Collection):
        return _compare_collections(gold, answer, rules)
    return _compare_scalars(gold, answer, rules)


def _parts(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Union):
        return tuple(inner for part in node.parts for inner in _parts(part))
    if isinstance(node, Collection) and node.unordered:
        return node.items
    if isinstance(node, Collection):
        return (replace(node, variable=""),)
    return (node,)


def _compare_as_sets(gold: tuple[Node, ...], answer: tuple[Node, ...], rules: Rules) -> Verdict:
    """Each item of one side has an equal on the other. Undecided pairs are looked at only where no pair is equal."""
    exact = replace(rules, symbolic=None)

    def found(item: Node, others: tuple[Node, ...], compare_pair: Callable[[Node, Node, Rules], Verdict]) -> Verdict:
        verdicts = [compare_pair(item, other, exact) for other in others]
        if True in verdicts or rules.symbolic is None:
            return any_equal(verdicts)
        undecided = [other for other, verdict in zip(others, verdicts, strict=True) if verdict is None]
        return any_equal(compare_pair(item, other, rules) for other in undecided)

    def swapped(item: Node, other: Node, rules: Rules) -> Verdict:
        return compare(other, item, rules)

    forward = all_equal(found(item, answer, compare) for item in gold)
    if forward is False:
        return False
    backward = all_equal(found(item, gold, swapped) for item in answer)
    return all_equal([forward, backward])


def _compare_real_sets(gold: Node, answer: Node, rules: Rules) -> Verdict:
    """Unions of intervals and points: the same parts in any order, or the same set of real numbers."""
    variables = [node.variable for node in (gold, answer) if isinstance(node, Union | Collection) and node.variable]
    if len(set(variables)) > 1 or not all(_is_real_set(node) for node in (gold, answer)):
        return False
    both_unions = isinstance(gold, Union) and isinstance(answer, Union)
    if both_unions and _compare_as_sets(_parts(gold), _parts(answer), replace(rules, symbolic=None)):
        return True
    return rules.symbolic.sets_equal(gold, answer) if rules.symbolic else None


def _is_real_set(node: Node) -> bool:
    if isinstance(node, Collection) and node.unordered:
        # x < 2 and x > 3 lists two conditions; it is not a union
        return not any(isinstance(item, Collection) and item.variable for item in node.items)
    return isinstance(node, Union | Difference | Collection) or (isinstance(node, Relation) and node.operator == r"\ne")


def _compare_collections(gold: Node, answer: Node, rules: Rules) -> Verdict:
    gold_unordered = isinstance(gold, Collection) and gold.unordered
    answer_unordered = isinstance(answer, Collection) and answer.unordered
    if gold_unordered or answer_unordered:
        return _compare_unordered(gold, answer, rules)
    if not isinstance(gold, Collection) or not isinstance(answer, Collection) or len(gold.items) != len(answer.items):
        return False
    if gold.variable and answer.variable and gold.variable != answer.variable:
        return False
    if names_its_values(gold) and names_its_values(answer):
        return compare_lists(as_list(gold), as_list(answer), pairs_of(compare, rules))  # (b, a) = (13, 2)
    same_brackets = (_bracket(gold.left), _bracket(gold.right)) == (_bracket(answer.left), _bracket(answer.right))
    if not same_brackets and (len(gold.items) < 3 or "{" in (gold.left, answer.left)):
        return False
    return all_equal(compare(left, right, rules) for left, right in zip(gold.items, answer.items, strict=True))


def _compare_unordered(gold: Node, answer: Node, rules: Rules) -> Verdict:
    """Two lists or sets; one of the two may be a tuple, an interval or a single value."""
    pairs = pairs_of(compare, rules)
    if isinstance(gold, Collection) and not gold.unordered and isinstance(answer, Collection):
        if names_its_values(answer) and not names_its_values(gold):
            return False  # x=3, y=5 is no pair: its order would have to be guessed
        if names_its_values(gold):
            return compare_lists(as_list(gold), answer, pairs, names_in_order=True)
    elif isinstance(answer, Collection) and not answer.unordered and isinstance(gold, Collection):
        # [1, 3, 5] lists the answers; with two items it would be an interval
        if names_its_values(gold) or ((answer.left, answer.right) == ("[", "]") and len(answer.items) > 2):
            return compare_lists(gold, as_list(answer), pairs, names_in_order=True)
    elif isinstance(gold, Collection) and isinstance(answer, Collection):
        if gold.braces and answer.braces:
            pairs = pairs_of(compare, replace(rules, in_set=True))
        return compare_lists(gold, answer, pairs, repeats_in_key=rules.multiple_answers)
    braces, other = (gold, answer) if isinstance(gold, Collection) and gold.unordered else (answer, gold)
    if isinstance(braces, Collection) and braces.braces:
        of_sets = any(item == _EMPTY_SET or (isinstance(item, Collection) and item.braces) for item in braces.items)
        if rules.in_set or other == _EMPTY_SET or of_sets:
            return False  # a set of the empty set is not the empty set, nor is {{1}} the set {1}
    return compare_lists(gold, answer, pairs, repeats_in_key=rules.multiple_answers)


def _bracket(bracket: str) -> str:
    return {r"\l": "(", r"\r": ")"}.get(bracket, bracket)


def _compare_matrices(gold: Node, answer: Node, rules: Rules) -> Verdict:
    if isinstance(gold, Matrix) and isinstance(answer, Matrix):
        if [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
            return False
        pairs = [
            pair
            for gold_row, answer_row in zip(gold.rows, answer.rows, strict=True)
            for pair in zip(gold_row, answer_row, strict=True)
        ]
        return all_equal(compare(left, right, rules) for left, right in pairs)
    other = answer if isinstance(gold, Matrix) else gold
    if isinstance(other, Scalar) and r"\begin" in other.text:  # a matrix times a factor, for instance
        texts = [_matrix_text(side) if isinstance(side, Matrix) else side.text for side in (gold, answer)]
        return rules.symbolic.expressions_equal(*texts) if rules.symbolic else None
    return False


def _matrix_text(matrix: Matrix) -> str:
    rows = ["&".join(cell.text if isinstance(cell, Scalar) else "" for cell in row) for row in matrix.rows]
    return r"\begin{pmatrix}" + r"\\".join(rows) + r"\end{pmatrix}"


def _compare_scalars(gold: Scalar, answer: Scalar, rules: Rules) -> Verdict:
    chosen = compare_choices(gold.text, answer.text)
    if isinstance(chosen, bool):
        return chosen
    if chosen is not None:
        gold_text, answer_text = (parse_answer(text) for text in chosen)
        if isinstance(gold_text, Scalar) and isinstance(answer_text, Scalar):
            gold, answer = _with_marks_of(gold, gold_text), _with_marks_of(answer, answer_text)
    gold_based, answer_based = _based(gold.text), _based(answer.text)
    if gold_based is not None or answer_based is not None:
        return gold_based == answer_based
    ratio = compare_ratios(gold.text, answer.text)
    if isinstance(ratio, bool):
        return ratio
    if ratio is not None:
        return all_equal(compare(parse_answer(left), parse_answer(right), rules) for left, right in ratio)
    if (worded := _compare_words(gold.text, answer.text)) is not None:
        return worded
    if _EMPTY_SET.text in (gold.text, answer.text):
        return gold.text == answer.text
    if gold.text in _INFINITE or answer.text in _INFINITE:
        other = answer.text if gold.text in _INFINITE else gold.text
        if other in _INFINITE or exact_value(other) is not None:
            return gold.text == answer.text
    return any_equal(_compare_reading(*reading, rules) for reading in _readings(gold, answer))


def _with_marks_of(scalar: Scalar, inner: Scalar) -> Scalar:
    """The text of a choice, with the unit or percent sign that was split from behind it."""
    return replace(inner, unit=inner.unit or scalar.unit, percent=inner.percent or scalar.percent)


def _based(text: str) -> tuple[str, int] | None:
    """Digits and base of a number such as ``52_8``; ``None`` for any other text, ``F_2`` and ``C_n`` among them."""
    match = _BASED.fullmatch(text)
    if match is None or not re.search(r"\d", match.group(1)):
        return None
    base = int(match.group(2)) if match.group(2).isdigit() else _BASE_NAMES.get(match.group(2), 0)
    return (match.group(1).lstrip("0") or "0", base) if base >= 2 else None


def _word(text: str) -> str | None:
    """The word or phrase that a text is, in lower case, or ``None`` where it may be mathematics."""
    match = _LATIN.fullmatch(text)
    if match is None:
        return None
    phrase = " ".join((match.group(1) or match.group(2)).lower().strip(" .!,").split())
    if match.group(1) is None and len(phrase) < 4 and phrase not in _WORDS:
        return None
    return re.sub(r"^(?:an?|the) ", "", phrase) if re.fullmatch(r"[a-z][a-z' -]+", phrase) else None


def _compare_words(gold: str, answer: str) -> Verdict:
    gold_word, answer_word = _word(gold), _word(answer)
    if gold_word is not None and answer_word is not None:
        return gold_word == answer_word
    if gold_word is not None:
        return False
    return False if answer_word is not None else None


def _readings(gold: Scalar, answer: Scalar) -> list[tuple[str, str, str, str]]:
    r"""The ways to read a pair of scalars, each as ``(gold, factor, answer, factor)``; any equal one makes them equal.

    A percentage is read as a fraction of one and, for numbers above one, as the bare number (``50\%`` and ``50``).
    """
    gold_factor, answer_factor = str(gold.scale), str(answer.scale)
    if gold.unit and answer.unit and gold.unit != answer.unit:
        factor = unit_factor(answer.unit, gold.unit)
        if factor is None:
            return []
        answer_factor = _times(answer_factor, factor)
    for scalar, other in ((gold, answer), (answer, gold)):
        if scalar.unit == "degree" and not other.unit and r"\pi" in other.text:
            if scalar is gold:
                gold_factor += r"\cdot\frac{\pi}{180}"
            else:
                answer_factor += r"\cdot\frac{\pi}{180}"
    readings = []
    if gold.percent == answer.percent:
        readings.append((gold.text, gold_factor, answer.text, answer_factor))
    else:
        hundredth = Fraction(1, 100)
        readings.append(
            (
                gold.text,
                _times(gold_factor, hundredth) if gold.percent else gold_factor,
                answer.text,
                _times(answer_factor, hundredth) if answer.percent else answer_factor,
            )
        )
        bare = exact_value(answer.text if gold.percent else gold.text)
        if isinstance(bare, Fraction) and abs(bare) > 1:
            readings.append((gold.text, gold_factor, answer.text, answer_factor))
    return readings


def _times(factor: str, by: Fraction) -> str:
    return rf"{factor}\cdot\frac{{{by.numerator}}}{{{by.denominator}}}"


def _compare_reading(gold: str, gold_factor: str, answer: str, answer_factor: str, rules: Rules) -> Verdict:
    if gold == answer and gold_factor == answer_factor:
        return True
    gold_value, answer_value = _factored_value(gold, gold_factor), _factored_value(answer, answer_factor)
    if gold_value is not None and answer_value is not None:
        verdict = values_equal(gold_value, answer_value, rules.tolerance)
        if verdict is not None and (verdict or rules.tolerance is not None):
            return verdict
        if gold_factor == answer_factor == "1" and _is_rounding(gold, gold_value, answer, answer_value):
            return True
        if verdict is not None:
            return verdict
    if same_spelling(gold, answer) and gold_factor == answer_factor:
        return True
    if is_only_spelled(answer):
        return False  # \\mathbb{Z}_4 is not \\mathbb{Z}_8, and a key that the parser knows has another value
    gold, answer = same_degrees(gold, answer)
    if not check_expression(answer):
        return False
    if not check_expression(gold):
        raise GoldNotUnderstood(f"the ground truth is not an expression: {gold[:80]!r}")
    if rules.symbolic is None:
        same_factor = gold_factor == answer_factor == "1" and rules.tolerance is None
        return False if same_factor and differ_by_value(gold, answer) else None
    texts = [text if factor == "1" else f"{factor}\\cdot({text})" for text, factor in
             ((gold, gold_factor), (answer, answer_factor))]  # fmt: skip
    return rules.symbolic.expressions_equal(*texts)


def _factored_value(text: str, factor: str) -> object | None:
    return exact_value(text) if factor == "1" else exact_value(f"{factor}\\cdot({text})")


def _is_rounding(gold: str, gold_value: object, answer: str, answer_value: object) -> bool:
    """One side is a decimal of enough digits, the other an exact form, and the decimal is that form rounded."""
    gold_places, answer_places = decimal_places(gold), decimal_places(answer)
    if (gold_places is None) == (answer_places is None):
        return False
    text, places = (gold, gold_places) if gold_places is not None else (answer, answer_places)
    assert places is not None
    if significant_digits(text) < MIN_ROUNDED_DIGITS:
        return False
    return values_equal(gold_value, answer_value, Fraction(1, 2 * 10**places)) is True
