r"""Answers out of cells of every shape that public math files have.

Derivation. The shapes are those of the published files: a float (AMC), a list or a list written as a string
(OlympiadBench), a worked solution with a box (AIME on the hub, MATH), a solution that ends in ``####`` (GSM8K), bare
text. The grader relies on two promises: an answer is a string, and several answers are a JSON list of strings.

Not exercised: whether an answer is correct.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.answer_kinds import (
    MAX_ANSWER_CHARS,
    answer_strings,
    answer_type,
    ground_truth,
    one_of_equal,
    split_answers,
    uncheckable_reason,
)
from verl_ispo.answers.answer_place import BOXED, find_marked


@pytest.mark.parametrize(
    ("cell", "answers"),
    [
        (27.0, ["27"]),
        (0.5, ["0.5"]),
        (204, ["204"]),
        ("27.0", ["27.0"]),
        (" 025 ", ["025"]),
        (["2"], ["2"]),
        (["1", "2"], ["1", "2"]),
        ("['2']", ["2"]),
        (r"['$\\frac{1}{2}$']", [r"\frac{1}{2}"]),
        ('["1", "2"]', ["1", "2"]),
        ("[0, 1]", ["[0, 1]"]),
        ("Thus $x=3$ and the answer is $\\boxed{\\frac{1}{2}}$.", [r"\frac{1}{2}"]),
        (r"\boxed{1} or rather \boxed{2}", ["2"]),
        (r"The roots are $\boxed{2}$ and $\boxed{-1}$.", ["2", "-1"]),
        (r"So $x=\boxed{3}, y=\boxed{5}$.", ["x=3", "y=5"]),
        (r"It is $\boxed 7$.", ["7"]),
        (r"It is $\boxed{5}$, put in \boxed{}.", ["5"]),
        (0.8333333333333334, ["0.833333333333333"]),  # 5/6 to the digits that a float has for sure
        (1e22, ["1" + "0" * 22]),
        (5e-7, ["0.0000005"]),
        ('{"ground_truth": "4"}', ["4"]),
        ({"value": "4", "pass_at_n": 0.25}, ["4"]),
        ('{"ground_truth": ["1", "2"]}', ["1", "2"]),
        ('{"test_cases": [1]}', []),
        (r"\{1, 2\}", [r"\{1, 2\}"]),
        ("{1, 2}", ["{1, 2}"]),
        ([{"from": "human", "value": "Q"}, {"from": "assistant", "ground_truth": {"value": "4"}}], ["4"]),
        ([{"from": "user", "value": "Q"}, {"from": "assistant", "value": "so \\boxed{4}"}], ["4"]),
        ([{"role": "user", "content": "Q"}, {"role": "assistant", "content": "It is four."}], []),
        ([{"role": "user", "content": "Q"}], []),
        ("He has 3 * 6 = 18.\n#### 1,800", ["1,800"]),
        (r"$(-\infty, 0) \cup\{1\}$.", [r"(-\infty, 0) \cup\{1\}"]),
        (r"\[ 7 \]", ["7"]),
        ("$f(n)=n$, $g(n)=1$", ["$f(n)=n$, $g(n)=1$"]),
        (True, ["True"]),
        (None, []),
        (float("nan"), []),
        ("", []),
        ("  ", []),
        ([], []),
        ([None], []),
    ],
)
def test_answer_strings(cell, answers):
    assert answer_strings(cell) == answers


def test_a_solution_without_a_box_is_an_answer_only_if_short():
    assert answer_strings("34", from_solution=True) == ["34"]
    assert answer_strings("First,\nthen.", from_solution=True) == []
    assert answer_strings("Suppose not. Then a prime divides it. QED", from_solution=True) == []
    assert answer_strings("$4$", from_solution=True) == ["4"]
    assert answer_strings("34 cm", from_solution=True) == ["34 cm"]
    assert answer_strings(r"x = \frac{1}{2}", from_solution=True) == [r"x = \frac{1}{2}"]


@pytest.mark.parametrize(
    ("answers", "one"),
    [
        (["0.6", "3/5"], ["3/5"]),
        (["2", "2.0"], ["2"]),
        (["1", "2"], ["1", "2"]),
        (["x+1", "1+x"], ["x+1", "1+x"]),  # not decided without the symbolic path
        (["5"], ["5"]),
        ([], []),
    ],
)
def test_forms_of_one_value_are_one_answer(answers, one):
    """A list of accepted forms is read as several answers, of which a response has to give every one."""
    assert one_of_equal(answers) == one


def boxed_content(text):
    place = find_marked(text, [BOXED])
    return None if place is None else text[place.start : place.end]


def test_boxes_nest_and_may_be_left_open():
    assert boxed_content(r"\boxed{\text{a}{b}\{} ") == r"\text{a}{b}\{"
    assert boxed_content(r"\boxed{1} \boxed{2") == "1"
    assert boxed_content("none") is None
    assert boxed_content(r"\boxed{" * 20_000) is None  # and at once


@given(st.text(alphabet="ab{}\\ ", max_size=20))
def test_a_balanced_box_gives_back_its_content(text):
    depth, escaped = 0, False
    for character in text:
        depth += (character == "{" and not escaped) - (character == "}" and not escaped)
        escaped = character == "\\" and not escaped  # two backslashes are a line break, and the brace behind it groups
        if depth < 0:
            return
    if depth == 0 and not escaped and text.strip(" {}"):  # an empty box is none
        assert boxed_content(f"so \\boxed{{{text}}} holds") == text.strip()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("$(1,8,19), (2,7,13), (4,5,7)$", ["(1,8,19)", "(2,7,13)", "(4,5,7)"]),
        ("$69$,$84$", ["69", "84"]),
        ("$221,$8$", ["221", "8"]),
        ("10,11,-2", ["10", "11", "-2"]),
        ("[0,1),(2,3]", ["[0,1)", "(2,3]"]),
        (r"$\frac{1}{2},\sqrt{x}$", [r"\frac{1}{2}", r"\sqrt{x}"]),
        (r"$(22+8 \sqrt{6}, 1)$,$(1, 2)$", [r"(22+8 \sqrt{6}, 1)", "(1, 2)"]),
        ("$f(x)=a x+b$, where $b$ is any integer", ["$f(x)=a x+b$, where $b$ is any integer"]),
        ("7", ["7"]),
    ],
)
def test_split_answers(text, parts):
    assert split_answers(text) == parts


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("27", "integer"),
        ("-1,000", "integer"),
        ("27.5", "decimal"),
        (r"\dfrac{1}{2}", "fraction"),
        (r"\frac43", "fraction"),
        ("3/4", "fraction"),
        (r"25\%", "percentage"),
        ("Yes", "boolean"),
        (r"\text{(C)}", "choice"),
        ("(0, 1)", "tuple"),
        ("(0, 1]", "interval"),
        ("[1, 2, 3]", "tuple"),
        (r"(2,\infty)", "interval"),
        (r"(0,9) \cup (9,36)", "interval"),
        (r"\{1, 23\}", "set"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "matrix"),
        ("x = 5", "equation"),
        (r"k \neq 1", "equation"),
        ("(a, b) = (2, 13)", "equation"),
        (r"\text{Evelyn}", "text"),
        ("even", "text"),
        ("p - q", "expression"),
        (r"3\sqrt{13}", "expression"),
    ],
)
def test_answer_type(text, kind):
    assert answer_type(text) == kind


def test_the_published_type_tells_an_interval_from_a_pair():
    assert answer_type("(-1, 2)", "Interval") == "interval"
    assert answer_type("(-1, 2)", "Tuple") == "tuple"


@given(st.lists(st.text(min_size=1), min_size=2))
def test_several_answers_are_a_json_list_of_strings(answers):
    truth = ground_truth(answers)
    assert truth.multiple_answers
    assert json.loads(truth.text) == answers


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([], "no answer"),
        (["N/A"], "placeholder"),
        (["Proof."], "proof"),
        (["notfound"], "placeholder"),
        (["None"], "placeholder"),  # as Python writes a missing value
        (["none"], None),  # there is no such number
        ([r"\text{None}"], None),
        (["1" * (MAX_ANSWER_CHARS + 1)], "too long"),
        (["see ![figure](x.png)"], "image"),
        (["the function grows without bound since every term of the sum is larger than its neighbour"], "prose"),
        (["27"], None),
        ([r"\frac{\sqrt{\sin \alpha + \cos \beta}}{\operatorname{lcm}(a, b)}"], None),
    ],
)
def test_uncheckable_reason(answers, reason):
    assert uncheckable_reason(answers) == reason


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_no_cell_breaks_it(cell):
    answers = answer_strings(cell)
    assert all(isinstance(answer, str) and answer for answer in answers)
    truth = ground_truth(answers)
    assert isinstance(truth.text, str)
    uncheckable_reason(answers)
