"""DCPO: the advantage over two epochs by hand, the history that it keeps, and the bounds of the ratio.

Not exercised: that the trainer keeps the history in the checkpoint (tests/trainer).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import pytest
import torch

from tests.methods.made_loss import gradient, made_loss_batch, slope
from verl_ispo.methods.dcpo import (
    METHOD,
    DCPOConfig,
    PromptHistory,
    dcpo_loss,
    joined,
    ratio_bounds,
    smoothed_advantage,
    updated_history,
)
from verl_ispo.methods.method import LossBatch, MethodBatch
from verl_ispo.signals.groups import RolloutGroups

CONFIG = DCPOConfig()
FOUR = torch.tensor([1.0, 0.0, 0.0, 0.0])


def advantage(score: torch.Tensor, past: dict[str, list[float]] | None = None, by_std: bool = True) -> list[float]:
    groups = RolloutGroups.from_labels(["g"] * len(score))
    return smoothed_advantage(score, groups, ["q"] * len(score), PromptHistory(past or {}), by_std).tolist()


def rollouts(score: list[float], labels: list[str], keys: list[str], state: PromptHistory) -> MethodBatch:
    return MethodBatch(
        rewards=torch.tensor(score).unsqueeze(-1),
        response_mask=torch.tensor([[int(key != "")] for key in keys]),
        groups=RolloutGroups.from_labels(labels),
        prompt_keys=tuple(keys),
        state=state,
    )


def test_the_first_epoch_is_grpo_without_its_epsilon() -> None:
    """Mean 1/4, unbiased std 1/2."""
    assert advantage(FOUR) == pytest.approx([1.5, -0.5, -0.5, -0.5])
    assert advantage(FOUR, by_std=False) == pytest.approx([0.75, -0.25, -0.25, -0.25])


def test_the_second_epoch_by_hand() -> None:
    """Before: mean 3/4, std 1/2. Now 1/4 and 1/2: M' = 1/2, S'^2 = (1/4 + 1/4 + 1/2 1/4) / 2 = 5/16.

    i = 2, so both mixtures are (n + o) / 2, with n = 1.5 or -0.5 and o = 1/2 / S' or -1/2 / S'.
    """
    half = 0.5 / math.sqrt(5 / 16)
    expected = [(1.5 + half) / 2] + [(-0.5 - half) / 2] * 3
    assert advantage(FOUR, {"q": [1, 0.75, 0.5]}) == pytest.approx(expected)


def test_the_third_epoch_takes_the_smaller_mixture() -> None:
    """i = 3, M = 3/4, S = 1/2, group 1, 0, 0, 0: M' = 7/12, S'^2 = (1/2 + 1/4 + 2/3 1/4) / 3 = 11/36.

    o = (1 - 7/12) / S' = 0.754 is smaller than n = 1.5, so the first rollout has n / 3 + 2 o / 3; the others have
    n = -0.5 and o = -1.055, so o / 3 + 2 n / 3.
    """
    std = math.sqrt(11 / 36)
    first, others = (1 - 7 / 12) / std, -7 / 12 / std
    expected = [1.5 / 3 + 2 * first / 3] + [others / 3 - 2 * 0.5 / 3] * 3
    assert advantage(FOUR, {"q": [2, 0.75, 0.5]}) == pytest.approx(expected)


def test_groups_of_equal_scores_learn_from_earlier_epochs_alone() -> None:
    right = torch.ones(4)
    assert advantage(right) == [0.0] * 4
    assert advantage(right, {"q": [5, 1.0, 0.0]}) == [0.0] * 4
    assert advantage(right, {"q": [1, 0.25, 0.5]})[0] > 0
    assert advantage(torch.zeros(4), {"q": [1, 0.25, 0.5]})[0] < 0
    assert advantage(torch.full((4,), 0.1), {"q": [2, 0.1, 0.0]}) == [0.0] * 4  # 0.1 is no sum of powers of two


def test_a_rollout_alone_in_its_group() -> None:
    """S'^2 = (0 + 0 + 1/2) / 2 = 1/4, M' = 1/2: o = 1, n = 0, and both mixtures are 1/2."""
    assert advantage(torch.ones(1)) == [0.0]
    assert advantage(torch.ones(1), {"q": [1, 0.0, 0.0]}) == pytest.approx([0.5])


def test_the_history_is_the_mean_and_std_over_epochs() -> None:
    """Means 1/4, 3/4, 1/2 with std 1/2: the variance between them (biased) is 1/24 and adds to 1/4."""
    past: tuple[float, ...] = (0, 0.0, 0.0)
    for mean in (0.25, 0.75, 0.5):
        past = joined(past, mean, 0.5)
    assert past == pytest.approx((3, 0.5, math.sqrt(0.25 + 1 / 24)))


def test_the_state_of_a_step_and_after_a_restart() -> None:
    batch = rollouts([1.0, 0.0, 1.0, 1.0, 0.0], ["a", "a", "b", "b", "p"], ["x", "x", "y", "y", ""], PromptHistory())
    assert METHOD.advantage(batch, CONFIG).tolist() == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5), 0.0, 0.0, 0.0])
    after = updated_history(PromptHistory(), batch, CONFIG)
    assert after.seen == {"x": [1, 0.5, pytest.approx(math.sqrt(0.5))], "y": [1, 1.0, 0.0]}
    again = PromptHistory(**json.loads(json.dumps(asdict(after))))
    assert again == after
    other = rollouts([0.0, 0.0], ["a", "a"], ["z", "z"], again)
    assert updated_history(again, other, CONFIG).seen.keys() == {"x", "y", "z"}


def test_a_prompt_twice_in_a_step_counts_twice() -> None:
    batch = rollouts([1.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"], ["x"] * 4, PromptHistory())
    assert METHOD.advantage(batch, CONFIG).tolist() == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5), 0.0, 0.0])
    assert updated_history(PromptHistory(), batch, CONFIG).seen["x"][:2] == [2, 0.75]


def test_the_bounds_by_hand() -> None:
    """p = 1: (1 + sqrt(0.2)) / 2 and (1 + sqrt(2.12)) / 2; p = 0.8: 1/2, where the root ends; p = 0: 1/2 and 10."""
    low, high = ratio_bounds(torch.tensor([[0.0, math.log(0.8), -1e4]]), 0.2, 0.28, 10.0)
    assert low[0].tolist() == pytest.approx([(1 + math.sqrt(0.2)) / 2, 0.5, 0.5], abs=1e-3)
    assert high[0].tolist() == pytest.approx([(1 + math.sqrt(2.12)) / 2, (1 + math.sqrt(2.4)) / 2, 10.0])


def loss(batch: LossBatch) -> torch.Tensor:
    return dcpo_loss(batch, CONFIG).loss


def test_the_loss_by_hand() -> None:
    """p = e^-1: at most (1 + sqrt(1 + 1.12 e)) / 2 = 1.506. Ratios 2 and 1.5; 0.4 under 1/2; 12 at the dual clip 10."""
    high = (1 + math.sqrt(1 + 1.12 * math.e)) / 2
    batch = made_loss_batch(
        [[math.log(2), math.log(1.5)], [math.log(0.4)], [math.log(12.0)]], advantages=[1.0, -1.0, -1.0], dual_clip=10.0
    )
    found = dcpo_loss(batch, CONFIG)
    assert found.loss[0].tolist() == pytest.approx([-high, -1.5])
    assert found.loss[1:, 0].tolist() == pytest.approx([0.5, 10.0])
    assert found.clipped.tolist() == [[True, False], [True, False], [False, False]]


def test_the_gradient_against_finite_differences() -> None:
    batch = made_loss_batch(
        [[0.3, 0.9, -0.9], [0.2, -0.8], [0.5, 3.0], []],
        old_log_prob=[[-0.1, -2.0, -0.3], [-1.5, -0.7], [-5.0, -0.2], []],
        advantages=[1.0, -0.5, -2.0, 1.0],
        dual_clip=10.0,
    )
    torch.testing.assert_close(gradient(loss, batch), slope(loss, batch), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("value", [1, math.inf, "10", None])
def test_a_bound_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"algorithm\.dcpo\.max_ratio must be a number in \(1, inf\)"):
        DCPOConfig.from_mapping({"max_ratio": value})
