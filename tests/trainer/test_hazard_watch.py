"""Warnings: a rate that has more than doubled since the first step and passes 10 %, or traces below half their first
length.

Both conditions have to hold for a rate. The first step is the first one seen in the run, also after a resume.

Not exercised: that the trainer logs the sentences and keeps the first step beside the checkpoint (the trainer tests).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ispo.trainer.hazard_watch import HazardWatch

RATES = ["ispo/trace_dropped_rate", "ispo/answer_missing_rate"]


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize(
    ("first", "now", "warned"),
    [
        (0.00, 0.09, False),  # doubled, but rare
        (0.00, 0.10, False),  # at 10 %, not past it
        (0.00, 0.11, True),
        (0.04, 0.11, True),
        (0.06, 0.11, False),  # past 10 %, but not doubled
        (0.20, 0.40, False),  # doubled, not more
        (0.20, 0.41, True),
        (0.60, 0.99, False),
    ],
)
def test_rates(name: str, first: float, now: float, warned: bool) -> None:
    watch = HazardWatch()
    assert watch.observe({name: first}) == []
    warnings = watch.observe({name: now})
    assert bool(warnings) == warned
    if warned:
        (warning,) = warnings
        assert name in warning
        assert "method=ispo_guarded (algorithm.ispo.all_wrong_groups=informative)" in warning


@pytest.mark.parametrize(("first", "now", "warned"), [(40.0, 20.0, False), (40.0, 19.9, True), (40.0, 80.0, False)])
def test_trace_length(first: float, now: float, warned: bool) -> None:
    watch = HazardWatch()
    watch.observe({"ispo/trace_length": first})
    assert bool(watch.observe({"ispo/trace_length": now})) == warned


@given(st.lists(st.floats(0, 1), min_size=2, max_size=10))
def test_every_step_is_compared_with_the_first(rates: list[float]) -> None:
    watch = HazardWatch()
    for rate in rates:
        assert bool(watch.observe({RATES[0]: rate})) == (rate > 0.10 and rate > 2 * rates[0])


def test_the_first_step_survives_a_resume() -> None:
    watch = HazardWatch()
    watch.observe({RATES[0]: 0.01, "ispo/trace_length": 40.0})
    resumed = HazardWatch(watch.first)
    assert len(resumed.observe({RATES[0]: 0.5, "ispo/trace_length": 5.0})) == 2


def test_a_metric_that_comes_later_starts_there_and_one_that_is_missing_is_no_alarm() -> None:
    watch = HazardWatch()
    assert watch.observe({}) == []
    assert watch.observe({RATES[1]: 0.5}) == []
    assert watch.observe({}) == []
