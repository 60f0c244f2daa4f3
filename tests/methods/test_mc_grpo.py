"""MC-GRPO: medians and their spread by hand, what 0/1 scores make of them, and which rollout leaves the loss.

Not exercised: the effect on training, and that the trainer takes the rollout out of the mask (tests/training).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from verl_ispo.methods.mc_grpo import METHOD, MCGRPOConfig, mc_grpo_advantage
from verl_ispo.methods.method import MethodBatch
from verl_ispo.signals.groups import RolloutGroups


def advantage(labels: str, rewards: list[float], **settings: Any) -> list[float]:
    return mc_grpo_advantage(
        torch.tensor(rewards), RolloutGroups.from_labels(labels), MCGRPOConfig(**settings)
    ).tolist()


def kept(labels: str, rewards: list[float], lengths: list[int]) -> list[bool]:
    mask = (torch.arange(9) < torch.tensor(lengths).unsqueeze(-1)).long()
    scores = torch.zeros(mask.shape)
    scores[:, 0] = torch.tensor(rewards)
    batch = MethodBatch(rewards=scores, response_mask=mask, groups=RolloutGroups.from_labels(labels))
    return METHOD.keeps(batch, MCGRPOConfig()).tolist()


def test_five_scores_by_hand() -> None:
    """Median 2 of 0, 1, 2, 3, 6; distances 2, 1, 0, 1, 4 have the median 1."""
    found = advantage("aaaaa", [0.0, 1.0, 2.0, 3.0, 6.0], mad_epsilon=1.0)
    assert found == [-1.0, -0.5, 0.0, 0.5, 2.0]


def test_an_even_number_has_its_lower_median() -> None:
    """1 of 0, 1, 3, 4; distances 1, 0, 2, 3, of which the lower median is 1."""
    assert advantage("aaaa", [4.0, 3.0, 1.0, 0.0], mad_epsilon=1.0) == [1.5, 1.0, 0.0, -0.5]


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([1, 0, 0], [1000.0, 0.0, 0.0]),
        ([1, 1, 0], [0.0, 0.0, -1000.0]),
        ([1, 1, 0, 0], [1000.0, 1000.0, 0.0, 0.0]),
        ([1, 0], [1000.0, 0.0]),
    ],
)
def test_of_two_outcomes_the_rarer_one_has_a_thousand(rewards: list[float], expected: list[float]) -> None:
    assert advantage("a" * len(rewards), rewards) == pytest.approx(expected)


@pytest.mark.parametrize("reward", [0.0, 1.0, -1.0])
def test_equal_scores_and_single_rollouts_get_nothing(reward: float) -> None:
    assert advantage("aaab", [reward] * 4, rescale_nonzero=True) == [0.0] * 4


def test_the_rescaling_is_of_each_group() -> None:
    """One of three is not 0: times 3. Two of three: times 3 / 2."""
    found = advantage("aaabbb", [1, 0, 0, 2, 1, 0], mad_epsilon=1.0, rescale_nonzero=True)
    assert found == pytest.approx([3.0, 0.0, 0.0, 0.75, 0.0, -0.75])


def test_one_rollout_of_a_group_leaves_the_loss() -> None:
    assert kept("aaab", [0.0, 1.0, 2.0, 1.0], [3, 3, 3, 3]) == [True, False, True, True]


def test_of_several_at_the_median_the_one_of_median_length_leaves() -> None:
    assert kept("aaaa", [0.0, 0.0, 0.0, 1.0], [9, 1, 4, 2]) == [True, True, False, True]
    assert kept("aaaa", [1.0, 0.0, 0.0, 0.0], [2, 4, 1, 9]) == [True, False, True, True]
    assert kept("aa", [0.0, 0.0], [9, 1]) == [True, False]


@pytest.mark.parametrize(
    ("key", "value"),
    [*[("mad_epsilon", bad) for bad in (0, -1.0, "1", None)], *[("rescale_nonzero", bad) for bad in (1, "yes", None)]],
)
def test_a_value_out_of_range_is_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"algorithm\.mc_grpo\.{key} .*{value!r}"):
        MCGRPOConfig.from_mapping({key: value})


def test_a_penalty_in_the_reward_is_refused() -> None:
    (found,) = METHOD.contradictions({"algorithm.use_kl_in_reward": True}.get)
    assert "medians" in found.why
    assert not list(METHOD.contradictions({}.get))
