"""RL-PLUS: the mean of own rollouts, the weight of a trace's tokens, its gradient, and what the settings refuse.

- A = R - mean of the own rollouts, by hand; own rollouts alone give Dr.GRPO, and a single one its score.
- The trace's weight by hand: 2 p / (p_old + (p_old + 1) / 2) sqrt(1 - p); 0 where the policy is certain.
- Own rollouts have the unclipped ratio, however large.
- The gradient of a trace's token takes sqrt(1 - p) as a constant: by finite differences of the rest.

Not exercised here: how traces become rollouts (tests/trainer, tests/training).
"""

from __future__ import annotations

import math

import pytest
import torch

from tests.composed import composed
from verl_ispo.methods.method import LossBatch, MethodBatch
from verl_ispo.methods.rl_plus import RLPlusConfig, rl_plus_advantage, rl_plus_loss
from verl_ispo.signals.groups import RolloutGroups
from verl_ispo.trainer.refusals import UnsupportedSettingError, refuse_unsupported_settings


def batch_of(rewards: list[float], expert: list[bool], labels: str | None = None) -> MethodBatch:
    return MethodBatch(
        rewards=torch.tensor(rewards).unsqueeze(-1),
        response_mask=torch.ones(len(rewards), 1),
        groups=RolloutGroups.from_labels(labels or "a" * len(rewards)),
        expert=torch.tensor(expert),
    )


def loss_of(log_prob: torch.Tensor, old: float, advantage: float, expert: bool) -> torch.Tensor:
    """Of one token."""
    old_log_prob = torch.full_like(log_prob, math.log(old))
    log_ratio = log_prob - old_log_prob
    batch = LossBatch(
        log_ratio=log_ratio.clamp(-20, 20),
        unclamped_log_ratio=log_ratio,
        advantages=torch.full_like(log_prob, advantage),
        response_mask=torch.ones_like(log_prob, dtype=torch.bool),
        clip_low=0.2,
        clip_high=0.28,
        dual_clip=3.0,
        importance_weights=None,
        old_log_prob=old_log_prob,
        columns={"expert": torch.full_like(log_prob, float(expert))},
    )
    return rl_plus_loss(batch, RLPlusConfig()).loss


def log_of(probability: float) -> torch.Tensor:
    return torch.tensor([[probability]], dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("rewards", "expert", "advantage"),
    [
        # the own mean is 1/4, to which the trace's 1 does not count
        ([1, 0, 0, 0, 1], [False] * 4 + [True], [0.75, -0.25, -0.25, -0.25, 0.75]),
        ([0, 0, 1], [False, False, True], [0, 0, 1]),
        ([1, 1, 1], [False, False, True], [0, 0, 0]),
        ([1, 1, 0], [False, False, True], [0, 0, -1]),
        # without a trace this is Dr.GRPO
        ([1, 0, 0, 1], [False] * 4, [0.5, -0.5, -0.5, 0.5]),
        # the mean of a single own rollout, and of none, counts as 0
        ([1, 1], [False, True], [1, 1]),
        ([1], [True], [1]),
    ],
)
def test_the_mean_is_that_of_the_own_rollouts(rewards: list[float], expert: list[bool], advantage: list[float]) -> None:
    torch.testing.assert_close(
        rl_plus_advantage(batch_of(rewards, expert)), torch.tensor(advantage, dtype=torch.float64)
    )


def test_groups_do_not_mix() -> None:
    found = rl_plus_advantage(batch_of([1, 0, 1, 0, 0, 1], [False, False, True, False, False, True], "aaabbb"))
    assert found.tolist() == [0.5, -0.5, 0.5, 0, 0, 1]


def test_a_traces_token() -> None:
    """p = p_old = 0.5: w = 0.75, 2 p / (p_old + w) = 1 / 1.25 = 0.8, sqrt(0.5); A = 2."""
    assert loss_of(log_of(0.5), 0.5, 2.0, True).item() == pytest.approx(-2 * 0.8 * math.sqrt(0.5))
    # p = 0.36, p_old = 0.2: 0.72 / (0.2 + 0.6) = 0.9, sqrt(0.64) = 0.8
    assert loss_of(log_of(0.36), 0.2, 1.0, True).item() == pytest.approx(-0.72)


def test_a_certain_token_of_a_trace_counts_nothing_and_an_unlikely_one_little() -> None:
    assert loss_of(log_of(1.0), 1.0, 1.0, True).item() == 0
    # p -> 0: 2 p / 0.5
    assert loss_of(log_of(1e-6), 1e-6, 1.0, True).item() == pytest.approx(-4e-6, rel=1e-5)


def test_own_rollouts_are_not_clipped() -> None:
    assert loss_of(log_of(0.9), 0.1, 1.0, False).item() == pytest.approx(-9)
    assert loss_of(log_of(0.1), 0.9, -1.0, False).item() == pytest.approx(1 / 9)


@pytest.mark.parametrize(("probability", "old"), [(0.3, 0.3), (0.36, 0.2), (0.05, 0.6)])
def test_the_gradient_takes_the_exploration_as_a_constant(probability: float, old: float) -> None:
    log_prob = log_of(probability).requires_grad_()
    loss_of(log_prob, old, 1.5, True).sum().backward()

    def rest(value: float) -> float:
        return -1.5 * math.sqrt(1 - probability) * 2 * math.exp(value) / (old + 0.5 * (old + 1))

    at, step = math.log(probability), 1e-6
    slope = (rest(at + step) - rest(at - step)) / (2 * step)
    assert log_prob.grad.item() == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize(
    ("key", "value"), [("prior_weight", 0), ("prior_weight", -1), ("exploration_power", -0.1), ("trace_column", "")]
)
def test_settings_out_of_range(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"algorithm\.rl_plus\.{key} must be"):
        RLPlusConfig(**{key: value})


def test_a_penalty_in_the_reward_contradicts() -> None:
    refuse_unsupported_settings(composed("method=rl_plus"))
    with pytest.raises(UnsupportedSettingError, match=r"use_kl_in_reward=True contradict"):
        refuse_unsupported_settings(composed("method=rl_plus", "algorithm.use_kl_in_reward=true"))
