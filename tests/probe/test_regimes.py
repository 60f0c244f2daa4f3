"""The probe's rules on made batches of each regime, and the edges of their thresholds.

Derivation: batches are made so that one regime holds by construction (how many rollouts of a group are correct, what
both log-probs of an answer are); the expected words follow from docs/probe.md. Advantages are worked by hand where a
number is given.

Not exercised: whether a training does what a verdict says, which is in docs/probe.md.
"""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.probe.made_batches import Made, cut, groups_of, informative_trace, measured, prior, silent
from verl_ispo.probe.measures import ProbeMeasures
from verl_ispo.probe.regimes import (
    PAYING,
    Hazard,
    Missing,
    Start,
    ifd_is_prior,
    ifd_outweighs,
    is_paid,
    judge,
    pay_of,
    start_of,
)
from verl_ispo.probe.verdict_words import verdict_words


def words_of(measures: ProbeMeasures) -> str:
    words = verdict_words(measures, judge(measures), has_reference=False)
    return "\n".join([words.headline, *(sentence for _, sentences in words.sections() for sentence in sentences)])


HEALTHY = groups_of(16, lambda number: 2 + number % 5, informative_trace)
PRIOR = groups_of(16, lambda number: 0 if number % 2 else 3, prior)
TOO_HARD = groups_of(16, lambda number: 1 if number == 0 else 0, prior)
TOO_EASY = groups_of(16, lambda number: 7 if number == 0 else 8, informative_trace)
NO_ANSWER = groups_of(16, lambda number: number % 3, silent)
CUT = groups_of(16, lambda number: number % 3, cut)
FEW_MIXED = groups_of(16, lambda number: 4 if number < 2 else (0 if number % 2 else 8), informative_trace)

REGIMES = {
    "healthy": (HEALTHY, Start.MIXED, False),
    "prior": (PRIOR, Start.MIXED, True),
    "too hard": (TOO_HARD, Start.TOO_HARD, True),
    "too easy": (TOO_EASY, Start.TOO_EASY, False),
    "no answer": (NO_ANSWER, Start.NO_ANSWER, None),
    "cut": (CUT, Start.CUT, None),
    "few mixed": (FEW_MIXED, Start.FEW_MIXED, False),
}


@pytest.mark.parametrize("name", REGIMES)
def test_each_regime_is_told(name: str) -> None:
    groups, start, is_prior = REGIMES[name]
    measures = measured(groups)
    verdict = judge(measures)
    assert verdict.start is start
    if is_prior is not None:
        assert verdict.ifd_is_prior is is_prior
    assert f"This model starts {start.value}" in words_of(measures)


def test_a_healthy_start_has_nothing_against_the_paper() -> None:
    """What goes wrong: a check that warns of everything is not read."""
    measures = measured(HEALTHY)
    assert judge(measures).hazards["ispo"] == ()
    assert "Nothing seen here speaks against ISPO as in the paper." in words_of(measures)
    assert "No group is without a correct rollout" in words_of(measures)


def test_too_few_prompts_leave_the_verdict_open() -> None:
    """What goes wrong: a handful of easy prompts is taken for a clean bill of health."""
    measures = measured(HEALTHY[:8])
    assert judge(measures).is_open is Missing.GROUPS
    assert "Too few groups without a correct rollout to say" in words_of(measures)
    assert judge(measured(HEALTHY)).is_open is None


def test_where_ifd_is_a_prior_the_paper_pays_for_no_answer_and_two_guards_do_not() -> None:
    """What goes wrong: in groups without a correct rollout every answer loses its IFD, so silence is on top."""
    measures = measured(PRIOR)
    hazards = judge(measures).hazards
    assert {Hazard.PAYS_MISSING, Hazard.PAYS_LOST_TRACE, Hazard.LEARNS_PRIOR} <= set(hazards["ispo"])
    assert hazards["ispo_off"] == hazards["ispo_token_only"] == hazards["grpo"] == hazards["sign"] == ()
    # a plus sign pays no silence, but it learns from the prior all the same
    assert hazards["ispo_guarded"] == (Hazard.LEARNS_PRIOR,)
    words = words_of(measures)
    assert "ISPO as in the paper would pay for giving no answer and answering without a trace." in words
    assert "a prior over answers" in words
    free = next(line for line in words.splitlines() if line.startswith("These presets would do none of this"))
    assert "ispo_off" in free
    assert "ispo_guarded" not in free


def test_the_advantage_of_no_answer_is_what_eq_8_gives() -> None:
    """By hand: 8 incorrect rollouts with an IFD of 2 or 4 have rewards of -1 or -2; one that gives none has 0."""
    group = [Made(False, 0.0, -2.0 if index < 4 else -4.0) for index in range(8)]
    one = measured([group] * 3, methods=["ispo", "ispo_off"]).preset("ispo")
    rewards = [[0.0, -1.0, -1.0, -1.0, -2.0, -2.0, -2.0, -2.0], [0.0, -1.0, -1.0, -1.0, -1.0, -2.0, -2.0, -2.0]]
    expected = []
    for row in rewards:
        mean = sum(row) / 8
        expected.append(-mean / (sum((value - mean) ** 2 for value in row) / 7) ** 0.5)
    assert one.if_unanswered["all_wrong"] == pytest.approx(sum(expected) / 2, abs=1e-4)
    assert one.if_without_trace["all_wrong"] == pytest.approx(sum(expected) / 2, abs=1e-4)
    assert one.all_wrong["incorrect_answer"].mean == pytest.approx(0.0, abs=1e-6)
    assert pay_of(one, "missing").seen == 0


def test_seen_silence_counts_before_computed_silence() -> None:
    """With 5 rollouts without an answer their own advantage is what is judged."""
    group = [*(Made(False, 0.0, -2.0 - index) for index in range(6)), *[Made(False, answered=False)] * 2]
    one = measured([group] * 3, methods=["ispo"]).preset("ispo")
    pay = pay_of(one, "missing")
    assert pay.seen == 6
    assert pay.advantage == one.all_wrong["missing"].mean
    assert pay.advantage > pay.incorrect


def test_a_copied_number_is_paid_where_the_question_makes_it_likely() -> None:
    """What goes wrong: a number of the question is likely without any trace, so its IFD is small, and the minus sign
    pays for it."""
    group = [*(Made(False, 0.0, -4.0, stated=True) for _ in range(6)), *[Made(False, 0.0, -0.5, copied=True)] * 2]
    measures = measured([group] * 4)
    assert Hazard.PAYS_COPYING in judge(measures).hazards["ispo"]
    assert Hazard.PAYS_COPYING not in judge(measures).hazards["ispo_guarded"]
    assert "copying a number of the question" in words_of(measures)


def test_few_groups_without_a_correct_rollout_are_not_judged() -> None:
    """Two such groups, however bad, say nothing: the words say that it cannot be said."""
    groups = [*HEALTHY, *groups_of(2, lambda _: 0, prior)]
    measures = measured(groups)
    assert not set(judge(measures).hazards["ispo"]) & set(PAYING)
    assert judge(measures).is_open is Missing.GROUPS
    assert "Only 2 groups are without a correct rollout" in words_of(measures)


def test_a_few_strange_answers_do_not_hide_a_prior() -> None:
    """What goes wrong: a variance is ruled by outliers. On SmolLM2 one answer in 20 contradicts its trace, and its
    log p(A | Q, T) of -3.7 is half of all variance."""
    groups = [[*group[:-1], Made(False, -3.7, -2.7)] if number % 3 else group for number, group in enumerate(PRIOR)]
    assert judge(measured(groups)).ifd_is_prior


def test_ifd_that_overturns_outcomes_is_told() -> None:
    """What goes wrong: with a negative IFD on correct rollouts and on incorrect ones, eq. 8 takes from the former and
    gives to the latter."""
    group = [Made(index < 4, -4.0, -1.0) for index in range(8)]
    measures = measured([group] * 4)
    hazards = judge(measures).hazards
    assert hazards["ispo"] == (Hazard.OVERTURNS,)
    assert hazards["grpo"] == ()
    assert ifd_outweighs(measures)
    assert "overturn outcomes" in words_of(measures)


def test_cut_responses_that_have_answered_are_another_thing() -> None:
    """A model that answers and goes on until the limit does not start with cut answers."""
    groups = groups_of(16, lambda number: 4, lambda draw, correct: dataclasses.replace(prior(draw, correct), cut=True))
    measures = measured(groups)
    assert start_of(measures) is Start.MIXED
    assert "goes on after its answer" in words_of(measures)


def test_without_any_answer_there_is_no_ifd_and_no_error() -> None:
    measures = measured([[Made(False, answered=False)] * 4] * 4)
    verdict = judge(measures)
    assert verdict.ifd_is_prior is None
    assert verdict.hazards["ispo"] == ()
    assert verdict.is_open is Missing.ANSWERS
    assert "Nothing seen here speaks against" not in words_of(measures)
    assert "No rollout has an answer" in words_of(measures)


def test_without_a_reference_the_token_term_is_nothing() -> None:
    """The drift filter is empty, so presets that differ in the token term alone are one row."""
    measures = measured(PRIOR)
    assert measures.drifted == 0
    paper = measures.preset("ispo")
    no_hinge = measures.preset("ispo_no_hinge")
    assert paper is no_hinge
    assert measures.spreads["mixed"].shares["token"] == pytest.approx(0.0, abs=1e-9)
    assert measured(PRIOR, drift=0.5).drifted == 1.0


def test_shares_of_the_spread_add_up() -> None:
    for drift in (0.0, 0.5):
        for spread in measured(PRIOR, drift).spreads.values():
            if spread.shares:
                assert sum(spread.shares.values()) == pytest.approx(1.0, abs=1e-6)


@st.composite
def made_rollouts(draw: st.DrawFn) -> list[list[Made]]:
    number = st.floats(-6.0, 0.0, width=32)
    rollout = st.builds(
        Made,
        st.booleans(),
        number,
        number,
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.integers(0, 6),
    )
    return draw(st.lists(st.lists(rollout, min_size=2, max_size=4), min_size=1, max_size=5))


@given(groups=made_rollouts())
@settings(max_examples=examples(25), deadline=None)
def test_any_batch_has_a_verdict(groups: list[list[Made]]) -> None:
    """What goes wrong: a share over nothing, or a group of one kind only, ends in an error instead of in words. GRPO
    never has an advantage in same-outcome groups, and the sign advantage never pays for silence."""
    groups = [[dataclasses.replace(one, correct=one.correct and one.answered) for one in group] for group in groups]
    measures = measured(groups, methods=["ispo", "ispo_guarded", "ispo_off", "grpo", "sign"])
    verdict = judge(measures)
    assert words_of(measures)
    assert not verdict.hazards["grpo"]
    assert not set(verdict.hazards["sign"]) & set(PAYING)
    assert not is_paid(measures.preset("sign"), "missing")
    assert measures.preset("grpo").advantage_share["all_wrong"] in (0.0, None)
    assert sum(measures.group_counts.values()) == len(groups)


def test_rollouts_in_another_order_give_the_same_verdict() -> None:
    shuffled = [random.Random(1).sample(group, len(group)) for group in PRIOR]
    first, second = judge(measured(PRIOR)), judge(measured(shuffled[::-1]))
    assert first == second
    assert ifd_is_prior(measured(PRIOR)) == ifd_is_prior(measured(shuffled))
