"""`RunningIFD`: an exponential mean by outcome, over the steps before the one that it is used in.

The update is checked by hand; what centring and capping do to a reward is in test_reference, against loops. Here are
the properties that make them guards: in a group of one outcome in which all have answered, centring by the mean changes
no difference between rollouts, and it puts a rollout without an answer at the usual value instead of at an extreme.

Not exercised: that the means survive a checkpoint (tests/training).
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verl_ispo.signals.running_ifd import RunningIFD, capped_ifd, centred_ifd

IFD = torch.tensor([1.0, 3.0, 5.0, 0.0])
CORRECT = torch.tensor([True, True, False, False])
ANSWERED = torch.tensor([True, True, True, False])


def test_by_hand() -> None:
    """Correct: mean 2. Incorrect: 5, the rollout without an answer does not count. Then 0.9 * 2 + 0.1 * 10 = 2.8."""
    first = RunningIFD().updated(IFD, CORRECT, ANSWERED, decay=0.9)
    assert first == RunningIFD(right=2.0, wrong=5.0)
    second = first.updated(torch.tensor([10.0]), torch.tensor([True]), torch.tensor([True]), decay=0.9)
    assert second.right == pytest.approx(2.8)
    assert second.wrong == 5.0  # no incorrect rollout in that batch


def test_a_batch_without_answers_or_rollouts_changes_nothing() -> None:
    known = RunningIFD(1.0, None)
    assert known.updated(IFD, CORRECT, torch.zeros(4, dtype=torch.bool), 0.9) == known
    empty = torch.zeros(0)
    assert known.updated(empty, empty.bool(), empty.bool(), 0.9) == known


@given(st.permutations(range(4)))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    moved = RunningIFD().updated(IFD[order], CORRECT[order], ANSWERED[order], 0.9)
    assert moved == RunningIFD().updated(IFD, CORRECT, ANSWERED, 0.9)


def test_centring_keeps_differences_and_puts_a_missing_answer_in_the_middle() -> None:
    wrong = torch.tensor([False] * 4)
    centred = centred_ifd(torch.tensor([2.0, 4.0, 3.0, 0.0]), wrong, ANSWERED, RunningIFD(wrong=3.0))
    assert centred.tolist() == [-1.0, 1.0, 0.0, 0.0]


def test_capping_lets_through_what_right_rollouts_show() -> None:
    assert capped_ifd(IFD, RunningIFD(right=2.0, wrong=9.0)).tolist() == [1.0, 2.0, 2.0, 0.0]


def test_before_a_mean_is_known_nothing_changes() -> None:
    assert torch.equal(centred_ifd(IFD, CORRECT, ANSWERED, RunningIFD()), IFD)
    assert torch.equal(capped_ifd(IFD, RunningIFD(wrong=1.0)), IFD)
