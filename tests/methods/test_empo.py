"""EMPO: the reward by hand, and the groups from which nothing is learned.

Not exercised: the effect on training.
"""

from __future__ import annotations

import pytest
import torch

from verl_ispo.methods.empo import METHOD, empo_reward
from verl_ispo.methods.method import MethodBatch, Need
from verl_ispo.signals.groups import RolloutGroups


def batch(labels: str, answers: list[str | None]) -> MethodBatch:
    mask = torch.ones(len(labels), 2)
    return MethodBatch(
        rewards=torch.zeros(mask.shape),
        response_mask=mask,
        groups=RolloutGroups.from_labels(labels),
        answer_texts=answers,
    )


@pytest.mark.parametrize(
    ("labels", "answers", "rewards"),
    [
        ("aaaa", ["4", "4", "5", "6"], [0.5, 0.5, 0.25, 0.25]),
        ("aaaa", ["4", "4", None, None], [0.5, 0.5, 0.0, 0.0]),
        ("aaaa", ["4", "5", "6", "7"], [0.0] * 4),
        ("aaaa", ["4", "5", None, None], [0.0] * 4),
        ("aaaa", [None] * 4, [0.0] * 4),
        ("aaaa", ["4"] * 4, [1.0] * 4),
        ("aaba", ["4", "5", "4", "5"], [1 / 3, 2 / 3, 0.0, 2 / 3]),
        ("a", ["4"], [0.0]),
    ],
)
def test_the_reward_by_hand(labels: str, answers: list[str | None], rewards: list[float]) -> None:
    assert empo_reward(batch(labels, answers)).tolist() == pytest.approx(rewards)


def test_the_advantage_by_hand() -> None:
    """Rewards 1/2, 1/2, 0, 0: mean 1/4, unbiased variance 4/16 / 3 = 1/12."""
    found = METHOD.advantage(batch("aaaa", ["4", "4", None, None]), None)
    assert found.tolist() == pytest.approx([0.25 * 12**0.5] * 2 + [-0.25 * 12**0.5] * 2, rel=1e-5)


@pytest.mark.parametrize("answers", [["4"] * 3, ["4", "5", "6"], [None, None, "6"]])
def test_groups_that_agree_wholly_or_not_at_all_get_nothing(answers: list[str | None]) -> None:
    assert METHOD.advantage(batch("aaa", answers), None).tolist() == [0.0] * 3


def test_it_needs_no_labels() -> None:
    assert METHOD.needs == {Need.ANSWER_TEXT}
    assert list(METHOD.contradictions({"algorithm.filter_groups.enable": True}.get))
