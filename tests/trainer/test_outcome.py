"""Correct or incorrect, from whatever a scorer returned: ``acc`` where there is one, else a score of 0/1 or -1/+1, else
an error.

Outcome and correctness are two things. A guess here would flip the sign of the IFD term, so what cannot be told is
refused.

Not exercised: a batch of a shaped scorer that happens to hold 0 and 1 alone, which nobody can tell from a verdict.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verl_ispo.trainer.outcome import ScorerOutputError, correctness


def verdicts(scores: list[float], infos: list[dict] | None = None) -> list[bool]:
    found = correctness(torch.tensor(scores), infos or [{} for _ in scores])
    assert found.dtype == torch.bool
    return found.tolist()


@given(st.lists(st.booleans()))
def test_plain_scores(correct: list[bool]) -> None:
    assert verdicts([float(one) for one in correct]) == correct
    assert verdicts([1.0 if one else -1.0 for one in correct]) == correct


@given(st.lists(st.tuples(st.booleans(), st.floats(-5, 5, width=32)), min_size=1))
def test_acc_beside_a_shaped_score(rows: list[tuple[bool, float]]) -> None:
    correct = [one for one, _ in rows]
    for as_scorers_write_it in (bool, int, float, np.bool_, np.float32, torch.tensor):
        infos = [{"acc": as_scorers_write_it(one), "pred": "x"} for one in correct]
        assert verdicts([score for _, score in rows], infos) == correct


def test_acc_of_minus_one_is_wrong() -> None:
    """verl's reward managers copy a plain score into ``acc``."""
    assert verdicts([-1.0, 1.0], [{"acc": -1.0}, {"acc": 1.0}]) == [False, True]


def test_an_empty_acc_counts_as_none() -> None:
    assert verdicts([0.0, 1.0], [{"acc": None}, {}]) == [False, True]


@pytest.mark.parametrize(
    "scores",
    [
        [0.5],
        [0.0, 1.0, 0.1],
        [2.0],
        [1.0, -0.5],
        [0.0, -1.0],
        [0.0, 1.0, -1.0],
        [math.nan],
        [math.inf, 1.0],
        [0.999999],
    ],
)
def test_a_score_that_is_no_verdict_is_refused_with_the_remedy(scores: list[float]) -> None:
    with pytest.raises(ScorerOutputError) as caught:
        verdicts(scores)
    for part in ("0/1", "-1/+1", "acc", "reward.custom_reward_function"):
        assert part in str(caught.value)
    strange = next((score for score in scores if score not in (0.0, 1.0)), None)
    assert f"{strange:.6g}"[:4] in str(caught.value)


@pytest.mark.parametrize("acc", [0.5, 2, math.nan, "maybe", [1]])
def test_an_acc_that_is_no_verdict_is_refused(acc: object) -> None:
    with pytest.raises(ScorerOutputError, match="acc"):
        verdicts([1.0, 0.0], [{"acc": True}, {"acc": acc}])


def test_no_rows() -> None:
    assert verdicts([]) == []
