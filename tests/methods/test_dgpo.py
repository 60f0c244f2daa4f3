"""DGPO: absolute deviation, the scale over the batch's tokens, and the weight of hard prompts.

Not exercised: that verl's token mean runs over the same tokens as the scale.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from verl_ispo.methods.dgpo import DGPOConfig, absolute_deviation_advantage, dgpo_advantage
from verl_ispo.signals.groups import RolloutGroups


def advantage(labels: str, scores: list[float], lengths: list[int], correct: list[bool] | None = None) -> list[float]:
    rewards = torch.tensor(scores, dtype=torch.float64)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(-1)
    verdicts = rewards > 0 if correct is None else torch.tensor(correct)
    return dgpo_advantage(rewards, verdicts, mask, RolloutGroups.from_labels(labels), DGPOConfig()).tolist()


def test_absolute_deviation_by_hand() -> None:
    """1, 0, 0, 0: differences 3/4 and -1/4 three times, sum 3/2; times 4: 2 and -2/3. So is 1, -1, -1, -1 by half."""
    groups = RolloutGroups.from_labels("aaaa")
    for scores in ([1.0, 0.0, 0.0, 0.0], [1.0, -1.0, -1.0, -1.0]):
        found = absolute_deviation_advantage(torch.tensor(scores, dtype=torch.float64), groups, 1e-9)
        assert found.tolist() == pytest.approx([2.0, -2 / 3, -2 / 3, -2 / 3])


def test_the_whole_batch_by_hand() -> None:
    """Accuracies 1/4 and 3/4 weigh 2 e^(-1/8) and 2 e^(-3/8) over their sum; 30 tokens, 20 of them in mixed groups."""
    scores = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    lengths = [1, 2, 3, 4, 4, 3, 2, 1, 5, 5]
    found = advantage("aaaabbbbcc", scores, lengths)
    hard, easy = (2 * math.exp(-p / 2) / (math.exp(-1 / 8) + math.exp(-3 / 8)) for p in (1 / 4, 3 / 4))
    size = 4 / (3 / 2 + 1e-4) * 30 / 20
    expected = [0.75 * size * hard] + [-0.25 * size * hard] * 3 + [0.25 * size * easy] * 3 + [-0.75 * size * easy]
    assert found == pytest.approx([*expected, 0.0, 0.0])
    assert hard > 1 > easy


def test_padding_rows_do_not_count_and_no_mixed_group_means_no_advantage() -> None:
    mixed = advantage("aabb", [1.0, 0.0, 0.0, 0.0], [2, 2, 3, 3])
    assert advantage("aabbx", [1.0, 0.0, 0.0, 0.0, 0.0], [2, 2, 3, 3, 0])[:4] == mixed
    assert advantage("aabbc", [1.0, 1.0, 0.0, 0.0, 1.0], [1, 2, 3, 4, 5]) == [0.0] * 5
    assert advantage("aaa", [0.1, 0.1, 0.1], [1, 1, 1]) == [0.0] * 3


def test_a_group_without_a_correct_rollout_weighs_as_an_easy_one() -> None:
    """Its scores can differ by other rewards; it enters with accuracy 1, like a group that is all correct."""
    scores, lengths = [0.0, 0.5, 0.0, 0.5], [1, 1, 1, 1]
    found = advantage("aabb", scores, lengths, correct=[False, False, True, True])
    assert found[:2] == pytest.approx(found[2:])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0}, r"algorithm\.dgpo\.temperature must be a number in \(0, inf\), got 0"),
        ({"epsilon": -1}, r"algorithm\.dgpo\.epsilon .* got -1"),
        ({"tau": 1}, r"'tau' \(under algorithm\.dgpo\)"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DGPOConfig.from_mapping(settings)
