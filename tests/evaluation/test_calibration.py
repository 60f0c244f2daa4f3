"""Confidence against correctness: AUROC, calibration error, accuracy of the more confident half.

Derivation. Each measure has a plain form without weights: Mann-Whitney's U over the number of pairs (scipy's), a loop
over ten bins of the sorted responses, and the expected accuracy of the first half over random orders of equal
confidences. Weights of problems are what resampling needs, and a whole weight w must give what w copies of the
problem's responses give (for the error, whose bins stay those of the data: the same bins). AUROC and the confident half
depend on the order of the confidences alone.

Not exercised: whether exp(mean log-prob) is the best confidence there is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.evaluation.conftest import ResultWriter
from tests.examples import examples
from verl_ispo.evaluation.calibration import BINS, MEASURES, Responses, auroc, confident_half, interval, measured
from verl_ispo.evaluation.calibration_scores import LEFT_OUT
from verl_ispo.evaluation.document import build_document
from verl_ispo.evaluation.layout_csv import format_scores_csv
from verl_ispo.evaluation.layout_markdown import format_markdown
from verl_ispo.evaluation.metrics import CALIBRATION, Metric, parse_metric
from verl_ispo.evaluation.results import load_result
from verl_ispo.evaluation.score_summary import format_summary, summarise


@st.composite
def made_responses(draw: st.DrawFn) -> Responses:
    """One to five problems with up to six responses each, a few levels of confidence so that some are equal."""
    problems = draw(st.integers(1, 5))
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, problems - 1), st.sampled_from([0.1, 0.4, 0.5, 0.9, 1.0]), st.booleans()),
            min_size=1,
            max_size=30,
        )
    )
    problem, confidence, correct = zip(*rows, strict=True)
    return Responses(np.array(problem), np.array(confidence), np.array(correct), problems)


def copies(responses: Responses, weights: np.ndarray) -> Responses:
    """Each problem's responses as often as its weight says."""
    times = weights[responses.problem]
    parts = (responses.problem, responses.confidence, responses.correct)
    return Responses(*(np.repeat(part, times) for part in parts), responses.problems)


def plain_auroc(responses: Responses) -> float:
    positive, negative = (responses.confidence[responses.correct == sign] for sign in (True, False))
    if not positive.size or not negative.size:
        return float("nan")
    return stats.mannwhitneyu(positive, negative).statistic / (positive.size * negative.size)


def plain_ece(responses: Responses) -> float:
    order = np.argsort(responses.confidence, kind="stable")
    total = 0.0
    for members in np.array_split(order, BINS):
        if members.size:
            gap = responses.confidence[members].mean() - responses.correct[members].mean()
            total += members.size * abs(gap)
    return total / responses.confidence.size


def plain_confident_half(responses: Responses) -> float:
    """Takes whole responses from the most confident on, and shares of the level that the middle cuts."""
    left = half = responses.confidence.size / 2
    correct = 0.0
    for level in sorted(set(responses.confidence.tolist()), reverse=True):
        here = responses.correct[responses.confidence == level]
        taken = min(left, here.size)
        correct += taken * here.mean()
        left -= taken
    return correct / half


PLAIN = {"auroc": plain_auroc, "ece": plain_ece, "confident_half": plain_confident_half}


@pytest.mark.parametrize("name", MEASURES)
@settings(max_examples=examples(100), deadline=None)
@given(responses=made_responses())
def test_without_weights_each_measure_is_its_plain_form(name: str, responses: Responses) -> None:
    [found] = MEASURES[name](responses, np.ones((1, responses.problems)))
    assert found == pytest.approx(PLAIN[name](responses), nan_ok=True)


@pytest.mark.parametrize("name", ["auroc", "confident_half"])
@settings(max_examples=examples(100), deadline=None)
@given(responses=made_responses(), data=st.data())
def test_a_weight_is_as_many_copies(name: str, responses: Responses, data: st.DataObject) -> None:
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=responses.problems, max_size=responses.problems)))
    [found] = MEASURES[name](responses, weights[None].astype(float))
    copied = copies(responses, weights)
    assert found == pytest.approx(PLAIN[name](copied) if copied.problem.size else float("nan"), nan_ok=True)


@settings(max_examples=examples(50), deadline=None)
@given(responses=made_responses(), data=st.data())
def test_order_of_responses_and_scale_of_confidence_do_not_matter(responses: Responses, data: st.DataObject) -> None:
    order = np.array(data.draw(st.permutations(range(responses.problem.size))))
    other = Responses(
        responses.problem[order], responses.confidence[order] ** 3, responses.correct[order], responses.problems
    )
    weights = np.arange(responses.problems, dtype=float)[None]
    for measure in (auroc, confident_half):
        assert measure(other, weights) == pytest.approx(measure(responses, weights), nan_ok=True)


def test_what_cannot_be_measured_has_no_value_and_no_interval() -> None:
    alike = measured([Responses(np.array([0, 1]), np.array([0.2, 0.8]), np.array([True, True]), 2)], auroc)
    assert np.isnan(alike.values).all()
    assert interval([alike]) is None
    # One correct response of one problem: half of the resamples of two problems lack a side.
    two = measured([Responses(np.array([0, 1]), np.array([0.2, 0.8]), np.array([False, True]), 2)], auroc)
    assert two.values == (1.0,)
    assert interval([two]) is None
    # Where no response is correct, every resample says 0; that is no interval of no width.
    none = measured([Responses(np.array([0, 1]), np.array([0.2, 0.8]), np.array([False, False]), 2)], confident_half)
    assert none.values == (0.0,)
    assert interval([none]) is None


@pytest.mark.parametrize(("name", "least"), [("auroc", 0.85), ("confident_half", 0.85)])
def test_the_interval_covers_what_more_problems_would_give(name: str, least: float) -> None:
    """40 problems with 8 responses, 50 draws of the problems; the truth is that of 20,000 problems."""
    rng = np.random.default_rng(0)

    def drawn(problems: int) -> Responses:
        problem = np.repeat(np.arange(problems), 8)
        difficulty = rng.normal(size=problems)[problem]
        confidence = 1 / (1 + np.exp(-(difficulty + rng.normal(size=problem.size))))
        return Responses(problem, confidence, rng.random(problem.size) < 1 / (1 + np.exp(-2 * difficulty)), problems)

    [truth] = MEASURES[name](drawn(20_000), np.ones((1, 20_000)))
    intervals = [interval([measured([drawn(40)], MEASURES[name])]) for _ in range(50)]
    covered = np.mean([one.low <= truth <= one.high for one in intervals if one is not None])
    assert least <= covered <= 1.0


# ---------------------------------------------------------------- in the table

Sure = Callable[[bool, int], tuple[float | None, float | None]]


def sure_when_correct(correct: bool, index: int) -> tuple[float | None, float | None]:
    """Response and answer log-prob: the answer is surer where it is correct, the response says nothing."""
    return -0.5, -0.1 if correct else -2.0


def test_the_table_shows_each_measure_and_what_is_left_out(write_result: ResultWriter) -> None:
    grades = {"math": "1101"}
    sampled = {"math": ["10", "11", "00", "01"]}

    def some_without_answer(correct: bool, index: int) -> tuple[float | None, float | None]:
        return (-0.5, None) if index == 1 and not correct else sure_when_correct(correct, index)

    folders = [
        write_result("ispo", grades, sampled, method="ISPO", log_probs=some_without_answer),
        write_result("grpo", grades, sampled, method="GRPO"),
    ]
    document = build_document([load_result(folder) for folder in folders])
    names = [table.metric.name for table in document.tables]
    assert names[-len(CALIBRATION) :] == list(CALIBRATION)
    tables = {table.metric.name: table for table in document.tables}
    ispo, grpo = (row.cells[0] for row in tables["auroc_answer"].rows)
    assert (ispo.score.value, ispo.score.problems) == (1.0, 4)
    assert ispo.score.notes == (LEFT_OUT["answer"],)
    assert (grpo.score, grpo.missing) == (None, "no log-probs recorded")
    assert tables["auroc_response"].rows[0].cells[0].score.value == 0.5
    assert LEFT_OUT["answer"] in format_markdown(document)
    assert "math,auroc_answer,run,100.0000" in format_scores_csv(document)


def test_several_benchmarks_and_seeds_are_averaged(write_result: ResultWriter) -> None:
    grades, sampled = {"a": "10", "b": "01"}, {"a": ["10", "01"], "b": ["10", "10"]}

    def sure_when_incorrect(correct: bool, index: int) -> tuple[float | None, float | None]:
        return -0.5, -2.0 if correct else -0.1

    folders = [
        write_result("one", grades, sampled, training_seed=1, log_probs=sure_when_correct),
        write_result("two", grades, sampled, training_seed=2, log_probs=sure_when_incorrect),
    ]
    document = build_document([load_result(folder) for folder in folders], [parse_metric("auroc_answer")])
    [row] = document.tables[0].rows
    for cell in row.cells:
        assert cell.score.value == 0.5
        assert [value for _, value in cell.score.seeds] == [1.0, 0.0]
    assert document.tables[0].columns[-1] == "Average"
    assert document.comparisons == ()


def test_the_summary_has_them_and_older_results_have_none(write_result: ResultWriter, tmp_path: Path) -> None:
    grades, sampled = {"math": "10"}, {"math": ["10", "00"]}
    new = load_result(write_result("new", grades, sampled, log_probs=sure_when_correct))
    summary = summarise(new)
    assert summary["math"]["calibration"]["auroc_answer"]["score"] == 1.0
    assert "calibration: auroc_answer 100.0" in format_summary(summary)
    old = load_result(write_result("old", grades, sampled))
    assert summarise(old)["math"]["calibration"] == {}
    assert "calibration" not in format_summary(summarise(old))
    assert all(not metric.is_calibration for metric in (Metric("greedy", 1), Metric("avg", 2)))
