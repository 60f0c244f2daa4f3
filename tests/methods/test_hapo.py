"""HAPO: the advantage over tokens, the scale of entropies in both readings and the loss by hand, limits and settings.

Not exercised: the current policy's entropy in the trainer, and the effect on training.
"""

from __future__ import annotations

import math

import pytest
import torch

from verl_ispo.config.section import UnknownISPOKeyError
from verl_ispo.methods.clipped_loss import dual_clipped_loss
from verl_ispo.methods.hapo import HAPOConfig, entropy_scale, hapo_advantage, hapo_loss
from verl_ispo.methods.method import LossBatch
from verl_ispo.signals.groups import RolloutGroups, group_advantage


def advantage(labels: str, scores: list[float], lengths: list[int], **settings: object) -> list[float]:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(-1)
    groups = RolloutGroups.from_labels(labels)
    return hapo_advantage(torch.tensor(scores), mask, groups, **{"max_token_advantage": 5.0, **settings}).tolist()


def test_a_long_rollout_counts_more() -> None:
    """Three tokens of 1 and one of 0: mean 3/4, biased variance 3/16."""
    expected = [0.25 / math.sqrt(3 / 16), -0.75 / math.sqrt(3 / 16)]
    assert advantage("aa", [1.0, 0.0], [3, 1]) == pytest.approx(expected, rel=1e-5)
    assert advantage("aa", [1.0, 0.0], [3, 1], normalize_by_std=False) == pytest.approx([0.25, -0.75])


def test_where_it_grows_too_large_it_is_grpos() -> None:
    """One token against 36: -sqrt(36) = -6 over tokens, and -+1/sqrt(2) over two rollouts; b stands for itself."""
    found = advantage("aabb", [1.0, 0.0, 1.0, 0.0], [36, 1, 2, 2])
    half = math.sqrt(0.5)
    assert found == pytest.approx([half, -half, 1.0, -1.0], rel=1e-4)
    assert advantage("aa", [1.0, 0.0], [36, 1], max_token_advantage=7.0)[1] == pytest.approx(-6, rel=1e-4)


def test_equal_lengths_are_grpos_with_the_biased_std() -> None:
    scores = [1.0, 0.0, 0.0, 1.0]
    grpo = group_advantage(torch.tensor(scores), RolloutGroups.from_labels("aaaa"), True, 0.0)
    assert advantage("aaaa", scores, [2] * 4) == pytest.approx((grpo * math.sqrt(4 / 3)).tolist(), rel=1e-4)


def test_groups_of_one_outcome_or_one_rollout_get_nothing() -> None:
    assert advantage("aabbcd", [1.0, 1.0, 0.1, 0.1, 1.0, 0.0], [1, 7, 2, 3, 4, 5]) == [0.0] * 6
    assert advantage("aab", [1.0, 0.0, 0.0], [3, 1, 0])[2] == 0.0


def test_the_scale_of_entropies_by_hand() -> None:
    """Logs 0 to 5: the value nearest the 0.8 quantile is 4, so h is 1 above it and 1/4 to 1 below, or with a minus."""
    entropy = torch.arange(6.0).exp().unsqueeze(0)
    mask = torch.ones(1, 6, dtype=torch.bool)
    below = [1.0, 0.75, 0.5, 0.25, 0.0]
    assert entropy_scale(entropy, mask, 0.8, "code").tolist()[0] == pytest.approx([*below, 1.0])
    assert entropy_scale(entropy, mask, 0.8, "text").tolist()[0] == pytest.approx([-value for value in below] + [1.0])


@pytest.mark.parametrize("reading", ["code", "text"])
def test_equal_or_no_entropies_have_scale_zero(reading: str) -> None:
    mask = torch.tensor([[True, True, False]])
    for entropy in (torch.zeros(1, 3), torch.full((1, 3), 0.7)):
        assert not entropy_scale(entropy, mask, 0.8, reading).any()
    assert not entropy_scale(torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.bool), 0.8, reading).any()


def batch(log_ratio: torch.Tensor, advantage: float, entropy: torch.Tensor) -> LossBatch:
    return LossBatch(
        log_ratio=log_ratio,
        unclamped_log_ratio=log_ratio,
        advantages=torch.full_like(log_ratio, advantage),
        response_mask=torch.ones(log_ratio.shape, dtype=torch.bool),
        clip_low=0.2,
        clip_high=0.2,
        dual_clip=10.0,
        importance_weights=None,
        entropy=entropy,
    )


@pytest.mark.parametrize(
    ("reading", "ratio", "advantage", "losses"),
    [
        # h = 1, 0, 1: the outer two clip at 1.4 and double A outside of (0.9, 1.2); the middle one clips at 1.2
        ("code", 1.3, 1.0, [-2.6, -1.2, -2.6]),
        ("code", 1.5, 1.0, [-2.8, -1.2, -2.8]),
        ("code", 1.05, 1.0, [-1.05] * 3),
        ("code", 0.7, -1.0, [1.6, 0.8, 1.6]),
        # h = -1, 0, 1: the first has clip [0.6, 1.2] and no A inside of (0.8, 1.1)
        ("text", 1.05, 1.0, [0.0, -1.05, -1.05]),
        ("text", 1.3, 1.0, [-1.2, -1.2, -2.6]),
        ("text", 0.7, -1.0, [0.7, 0.8, 1.6]),
    ],
)
def test_the_loss_by_hand(reading: str, ratio: float, advantage: float, losses: list[float]) -> None:
    log_ratio = torch.full((1, 3), math.log(ratio), dtype=torch.float64)
    given = batch(log_ratio, advantage, torch.tensor([[0.1, 1.0, 10.0]]))
    found = hapo_loss(given, HAPOConfig(reading=reading, entropy_quantile=0.5)).loss
    assert found.tolist()[0] == pytest.approx(losses)


def test_without_weights_it_is_the_clipped_loss() -> None:
    log_ratio = torch.linspace(-3, 3, 12, dtype=torch.float64).reshape(2, 6)
    given = batch(log_ratio, -1.5, torch.rand(2, 6))
    found = hapo_loss(given, HAPOConfig(clip_weight=0.0, advantage_weight=0.0))
    expected, clipped = dual_clipped_loss(given)
    torch.testing.assert_close(found.loss, expected)
    assert torch.equal(found.clipped, clipped)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reading": "both"}, r"hapo\.reading must be one of"),
        ({"entropy_quantile": -0.1}, r"hapo\.entropy_quantile must be"),
        ({"clip_weight": -1.0}, r"hapo\.clip_weight must be"),
        ({"advantage_weight": 1.5}, r"hapo\.advantage_weight must be a number in \[0, 1\]"),
        ({"max_token_advantage": 0.0}, r"hapo\.max_token_advantage must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HAPOConfig.from_mapping(settings)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(UnknownISPOKeyError, match="reading"):
        HAPOConfig.from_mapping({"readings": "text"})
