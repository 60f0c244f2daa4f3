"""The study's comparison and its rule, on made-up measures whose answers are known by hand.

The rule is docs/tiny_study.md's: a guard that loses traces or answers in any seed is out, however accurate it is; of
the others the most accurate one is chosen; and a rate that was never logged does not count as kept.

Not exercised: reading runs (test_with_verl, tests/evaluation) and the runs themselves (examples/tiny_study.sh).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from verl_ispo.example_runs.study_measures import RunMeasures, compare
from verl_ispo.tiny_task.study import choose_guard, describe, is_admissible

PROBLEMS = 40


def measures(solved: int, dropped: float = 0.02, missing: float = 0.0) -> RunMeasures:
    """Two levels, in each of which the first ``solved`` of 40 problems are solved by every sample."""
    level = np.array([1.0] * solved + [0.0] * (PROBLEMS - solved))
    return RunMeasures(
        greedy=(level, level),
        sampled=(level, level),
        hazards={"trace dropped": dropped, "answer missing": missing},
        all_wrong_share=0.25,
        flat_groups=0.5,
    )


def test_difference_by_hand() -> None:
    """Seeds differ by 4/40 and 8/40: mean 0.15, standard error 0.05."""
    found = compare([measures(24), measures(28)], [measures(20), measures(20)])
    assert found.mean == pytest.approx(0.15)
    assert found.by_seed == pytest.approx((0.1, 0.2))
    half = stats.t.ppf(0.975, 1) * 0.05
    assert found.over_seeds == pytest.approx((0.15 - half, 0.15 + half))
    assert found.over_problems.low < 0.15 < found.over_problems.high
    assert found.over_problems.low > 0
    assert found.p_value < 0.05


def test_a_method_against_itself_is_no_difference() -> None:
    runs = [measures(20), measures(25)]
    found = compare(runs, runs)
    assert (found.mean, found.over_seeds, found.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_one_seed_has_no_interval_over_seeds() -> None:
    assert compare([measures(21)], [measures(20)]).over_seeds is None


@pytest.mark.parametrize(
    ("guard", "baseline", "admissible"),
    [
        ([measures(20, dropped=0.10)], [measures(20, dropped=0.0)], True),
        ([measures(20, dropped=0.11)], [measures(20, dropped=0.0)], False),
        ([measures(20, dropped=0.24)], [measures(20, dropped=0.20)], True),
        ([measures(20, missing=0.26)], [measures(20, missing=0.20)], False),
        ([measures(20), measures(20, dropped=0.5)], [measures(20), measures(20)], False),
        ([measures(20, dropped=math.nan)], [measures(20)], False),
        ([measures(20)], [measures(20, dropped=math.nan)], True),
    ],
)
def test_admissible(guard: list[RunMeasures], baseline: list[RunMeasures], admissible: bool) -> None:
    assert is_admissible(guard, baseline) is admissible


def test_the_most_accurate_admissible_guard_is_chosen() -> None:
    runs = {
        "grpo": [measures(39)],
        "ispo": [measures(38)],
        "ispo_off": [measures(30)],
        "ispo_token_only": [measures(31)],
        "ispo_informative": [measures(35, dropped=0.4)],
        "ispo_capped_ifd": [measures(31)],
    }
    assert choose_guard(runs) == "ispo_token_only"
    assert choose_guard({"grpo": runs["grpo"], "ispo_informative": runs["ispo_informative"]}) is None


def test_the_text_names_what_is_missing_refused_and_chosen() -> None:
    runs = {
        "grpo": {1: measures(20), 2: measures(22)},
        "ispo_off": {1: measures(24), 2: measures(26)},
        "ispo_informative": {1: measures(30, dropped=0.9), 2: measures(30)},
        "ispo_token_only": {1: measures(20)},
    }
    text = describe(runs, [1, 2])
    assert "left out: ispo_token_only seed 2" in text
    assert "Not admissible (traces or answers lost in some seed): ispo_informative." in text
    assert "Chosen: **ispo_off**" in text
    assert "| ispo_off | +10.0 |" in text
    assert "52.5 (50.0, 55.0)" in text


def test_without_the_baseline_nothing_is_compared() -> None:
    assert "No comparison: grpo is not complete." in describe({"ispo_off": {1: measures(20)}}, [1])
