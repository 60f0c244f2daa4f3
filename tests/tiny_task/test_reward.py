"""The scorer: exact on the final answer, never evaluating, bounded in time.

Not exercised: verl's reward loop around it (see the trainer's tests).
"""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ispo.answers.answer_place import MAX_SEARCH_CHARS, find_answer
from verl_ispo.tiny_task.reward import compute_score


def accepted(response, truth="8"):
    result = compute_score("tiny_arithmetic", response, truth, {})
    assert result["score"] == float(result["acc"])
    return result["acc"]


@pytest.mark.parametrize(
    "response",
    [
        r"9-1=8;\boxed{8}",
        r"\boxed{8.0}",
        r"\boxed{8.000}",
        r"\boxed{ 8 }",
        r"\boxed{+8}",
        r"\boxed{08}",
        r"\boxed{7};\boxed{8}",  # the last one counts
        r"\boxed{8} \boxed{9",  # cut off in a second box
        r"\boxed{\boxed{8}}",
        r"}{\boxed{8}",
    ],
)
def test_correct(response):
    assert accepted(response)


@pytest.mark.parametrize(
    "response",
    [
        "",
        "8",
        r"\boxed{}",
        r"\boxed{9}",
        r"\boxed{8",
        r"\boxed{8}\boxed{9}",
        r"\boxed{8.5}",
        r"\boxed{8.}",
        r"\boxed{-8}",
        r"\boxed{80}",
        r"\boxed{4+4}",  # never evaluated
        r"\boxed{__import__('os')}",
        r"\boxed{{8}}",
        r"\boxed{\boxed{8}x}",
        r"\boxed{８}",  # not an ASCII digit
        r"\boxed{٨}",
        r"\boxed{8e0}",
        r"\boxed{" + "0" * 400 + "8}",
    ],
)
def test_incorrect(response):
    assert not accepted(response)


def test_what_was_read_is_reported_in_one_form():
    assert compute_score("", r"\boxed{-08.0}", "-8") == {"score": 1.0, "acc": True, "pred": "-8"}
    assert compute_score("", "no idea", "8")["pred"] == ""
    assert accepted(r"\boxed{-0}", "0")


def test_a_box_is_read_to_its_matching_brace():
    for text, content in ((r"\boxed{a{b}c}", "a{b}c"), (r"\boxed{a}}", "a"), ("{" * 5 + r"\boxed{a}", "a")):
        place = find_answer(text)
        assert text[place.start : place.end] == content
    assert find_answer(r"\boxed{a") is None


@given(st.text())
def test_any_text_is_scored(response):
    assert accepted(response) in (True, False)


@given(st.text(alphabet="\\boxed{}8;."))
def test_any_text_of_pieces_of_a_box_is_scored(response):
    assert accepted(response) in (True, False)


def test_only_the_end_of_a_long_response_is_read():
    assert accepted("x" * 10 * MAX_SEARCH_CHARS + r"\boxed{8}")
    assert not accepted(r"\boxed{8}" + "x" * MAX_SEARCH_CHARS)


def test_a_hostile_response_takes_bounded_time():
    started = time.process_time()
    for hostile in (r"\boxed{" * 10**5, "{" * 10**6, r"\boxed{" + "0" * 10**6, "}" * 10**6):
        assert not accepted(hostile)
    assert time.process_time() - started < 20  # a guard against quadratic growth, not a benchmark


@pytest.mark.parametrize("truth", ["", "eight", "8.5", None])
def test_a_faulty_ground_truth_is_an_error_of_the_data(truth):
    with pytest.raises(ValueError, match=r"ground_truth .*tiny_arithmetic.* not a whole number"):
        compute_score("tiny_arithmetic", r"\boxed{8}", truth)
