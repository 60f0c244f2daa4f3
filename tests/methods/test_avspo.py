"""AVSPO: virtual rewards in collapsed groups, when they are added, and the threshold that says so.

Not exercised: the paper's text, of which a re-implementation is the source, and the file of the state (tests/trainer).
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from verl_ispo.methods.avspo import (
    METHOD,
    AVSPOConfig,
    CollapseThreshold,
    next_threshold,
    stratified_rewards,
    virtual_rewards,
)
from verl_ispo.methods.method import MethodBatch
from verl_ispo.signals.groups import RolloutGroups

GRPO = 7.0


def batch(labels: str, verdicts: str, state: CollapseThreshold | None = None, empty_rows: int = 0) -> MethodBatch:
    """Rows of one token; ``empty_rows`` more pad the batch."""
    rows = len(labels)
    mask = torch.tensor([[1]] * rows + [[0]] * empty_rows)
    return MethodBatch(
        rewards=torch.zeros(mask.shape),
        response_mask=mask,
        groups=RolloutGroups.from_labels([*labels, *range(empty_rows)]),
        correct=torch.tensor([verdict == "1" for verdict in verdicts] + [False] * empty_rows),
        grpo_advantage=GRPO * mask.float(),
        state=state,
    )


def advantage(*given: Any, **config: Any) -> list[float]:
    return METHOD.advantage(batch(*given), AVSPOConfig(**config)).flatten().tolist()


def test_stratified_rewards_by_hand() -> None:
    """Below 1 in equal steps that end above 0; up to 0.1 in equal steps above 0."""
    assert stratified_rewards(1.0, 3, 0.1).tolist() == pytest.approx([0.75, 0.5, 0.25])
    assert stratified_rewards(0.0, 4, 0.1).tolist() == pytest.approx([0.1, 0.075, 0.05, 0.025])


@pytest.mark.parametrize(("rate", "number"), [(0.01, 1), (0.25, 4), (2 / 3, 7), (1.0, 8)])
def test_the_number_of_virtual_rewards_grows_with_the_collapse(rate: float, number: int) -> None:
    """ceil(8 c^0.5) of eight rollouts."""
    assert len(virtual_rewards(1.0, 8, rate, AVSPOConfig())) == number


def test_both_kinds_of_groups_by_hand() -> None:
    """c = 1, G = 2, m = 2. Correct: 1, 1, 2/3, 1/3; mean 3/4, variance 23/36 - 9/16 = 11/144.

    Incorrect: 0, 0, 0.1, 0.05; mean 0.0375, variance 0.0125/4 - 0.0375^2 = 0.00171875.
    """
    found = advantage("aabb", "1100")
    correct, incorrect = 0.25 / (math.sqrt(11) / 12 + 1e-4), -0.0375 / (math.sqrt(0.00171875) + 1e-4)
    assert found == pytest.approx([correct, correct, incorrect, incorrect])


def test_mixed_groups_are_grpo_and_the_share_has_to_exceed_the_threshold() -> None:
    """One of two groups has collapsed: a share of 0.5 is not above 0.5, but above a threshold of 0.4."""
    assert advantage("aabb", "1011") == [GRPO] * 4
    found = advantage("aabb", "1011", CollapseThreshold(0.4, 0.5))
    assert found[:2] == [GRPO] * 2
    assert found[2] == found[3] > 0


def test_padding_rows_are_no_collapsed_groups() -> None:
    assert METHOD.advantage(batch("aabb", "1011", None, 3), AVSPOConfig()).flatten().tolist() == [GRPO] * 4 + [0.0] * 3


def test_the_authors_code_by_hand() -> None:
    """One reward of 0 beside three of 1: mean 3/4, unbiased std 1/2; nothing is added where any outcome differs."""
    value = 0.25 / (0.5 + 1e-4)
    assert advantage("aaabbb", "111111", virtual_rewards="opposite") == pytest.approx([value] * 6)
    assert advantage("aaabbb", "000000", virtual_rewards="opposite") == pytest.approx([-value] * 6)
    assert advantage("aaabbb", "111000", virtual_rewards="opposite") == [GRPO] * 6


def test_a_single_rollout_is_a_collapsed_group() -> None:
    """c = 1, m = 1. Correct: 1 and 1/2, so 1/4 over 1/4; incorrect: 0 and 0.1, so -0.05 over 0.05."""
    found = advantage("ab", "10")
    assert found == pytest.approx([0.25 / (0.25 + 1e-4), -0.05 / (0.05 + 1e-4)])


def test_the_threshold_moves_with_the_accuracy() -> None:
    """c = 1, so the way from 0.5 is 0.01 * 0.5 = 0.005, up where the accuracy rose, down where it fell."""
    first = next_threshold(CollapseThreshold(), batch("aabb", "1100"), AVSPOConfig())
    assert first == CollapseThreshold(0.5, 0.5)
    risen = next_threshold(first, batch("aabb", "1111"), AVSPOConfig())
    fallen = next_threshold(first, batch("aabb", "0000"), AVSPOConfig())
    same = next_threshold(first, batch("aabb", "0011"), AVSPOConfig())
    assert (risen.threshold, risen.accuracy) == (pytest.approx(0.505), 1.0)
    assert (fallen.threshold, fallen.accuracy) == (pytest.approx(0.495), 0.0)
    assert same == first


def test_the_threshold_stays_in_its_bounds_and_without_one_nothing_moves() -> None:
    low, high = CollapseThreshold(0.101, 0.9), CollapseThreshold(0.899, 0.1)
    assert next_threshold(low, batch("aa", "00"), AVSPOConfig(threshold_rate=1.0)).threshold == 0.1
    assert next_threshold(high, batch("aa", "11"), AVSPOConfig(threshold_rate=1.0)).threshold == 0.9
    assert next_threshold(low, batch("aa", "11"), AVSPOConfig(virtual_rewards="opposite")) == low
    assert next_threshold(low, batch("", "", None, 2), AVSPOConfig()) == low


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"virtual_rewards": "random"}, r"algorithm\.avspo\.virtual_rewards must be one of .*'random'"),
        ({"threshold_min": 0.8, "threshold_max": 0.2}, r"threshold_max must be a number in \[0\.8, 1\], got 0\.2"),
        ({"sensitivity": 0}, r"algorithm\.avspo\.sensitivity must be a number in \(0, 1\]"),
        ({"epsilon": 0}, r"algorithm\.avspo\.epsilon must be a number in \(0, inf\)"),
        ({"threshold": 0.5}, r"'threshold' \(under algorithm\.avspo\)"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AVSPOConfig.from_mapping(settings)


def test_the_group_filter_is_refused() -> None:
    (found,) = METHOD.contradictions({"algorithm.filter_groups.enable": True}.get)
    assert found.second == "algorithm.filter_groups.enable"
    assert not list(METHOD.contradictions({}.get))
