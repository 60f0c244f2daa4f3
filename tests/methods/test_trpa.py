"""TRPA: levels, pairs and the KL term by hand, and steps without a pair.

Not exercised: that the trainer keeps a prompt's rollouts in one micro-batch, and the reference's log-probs that it
hands over (tests/trainer).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.methods.made_loss import gradient, made_loss_batch, slope
from verl_ispo.methods.method import LossBatch, MethodBatch
from verl_ispo.methods.trpa import METHOD, TRPAConfig, preference_levels, trpa_loss
from verl_ispo.signals.groups import RolloutGroups

WITHOUT_KL = TRPAConfig(kl_weight=0.0)


def loss(batch: LossBatch, config: TRPAConfig = WITHOUT_KL) -> torch.Tensor:
    return trpa_loss(batch, config).loss


def with_kl(batch: LossBatch) -> torch.Tensor:
    return loss(batch, TRPAConfig(kl_weight=0.5))


def batch_of(
    log_ratio: list[list[float]], groups: list[int], level: list[int], pair_scale: float, drift: float = 0.0
) -> LossBatch:
    """The rollout policy is e^drift times as likely as the reference at every token; 1 rollout per token."""
    rows = len(log_ratio)
    columns = {"level": level, "pair_scale": [pair_scale] * rows, "token_scale": [1.0] * rows}
    batch = made_loss_batch(log_ratio, groups=groups, columns=columns)
    return replace(batch, columns=batch.columns | {"ref_log_prob": batch.old_log_prob - drift})


def negative_log_sigmoid(x: float) -> float:
    return math.log(1 + math.exp(-x))


def test_levels_are_the_verdict_and_then_the_score() -> None:
    groups = RolloutGroups.from_labels(["a"] * 5 + ["b"])
    score = torch.tensor([0.9, 1.0, -0.5, 0.2, -0.5, 0.0])
    correct = torch.tensor([True, True, False, False, False, False])
    assert preference_levels(score, correct, groups).tolist() == [1, 1, 3, 2, 3, 2]


def test_a_group_by_hand() -> None:
    """g = 0.5 + 0.3, 0.5 - 0.1, 0.5 + 0.2 for levels 1, 2, 3; b = 0.1.

    Pairs: (1, 2) 0.25 x 0.4, (1, 3) 0.25 x 0.1, (2, 3) 0.1 x -0.3; three rollouts for three pairs.
    """
    batch = batch_of([[0.4, 0.2], [-0.1], [0.2]], [0, 0, 0], [1, 2, 3], pair_scale=1.0, drift=0.5)
    first = negative_log_sigmoid(0.1) + negative_log_sigmoid(0.025)
    expected = [first, negative_log_sigmoid(-0.03), 0.0]
    assert loss(batch).sum(dim=-1).tolist() == pytest.approx(expected)
    assert loss(batch)[0].tolist() == pytest.approx([first / 2] * 2)


def test_the_kl_term_by_hand() -> None:
    """0.5 (e^-x + x - 1) on every token; at most 0.5 10; a group of one level has nothing else."""
    batch = batch_of([[0.3, -15.0], [0.0]], [0, 1], [2, 2], pair_scale=1.0)
    expected = [0.5 * (math.exp(-0.3) + 0.3 - 1), 5.0]
    assert with_kl(batch)[0].tolist() == pytest.approx(expected)
    assert with_kl(batch)[1].tolist() == pytest.approx([0.0, 0.0])


def test_a_step_without_a_pair() -> None:
    """-log sigmoid(g) for correct, -log sigmoid(-g) for incorrect rollouts."""
    batch = batch_of([[0.4], [0.4], []], [0, 1, 2], [1, 2, 2], pair_scale=0.0)
    expected = [negative_log_sigmoid(0.4), negative_log_sigmoid(-0.4), 0.0]
    assert loss(batch).flatten().tolist() == pytest.approx(expected)


def test_the_gradient_against_finite_differences() -> None:
    for scale in (0.7, 0.0):
        batch = batch_of([[0.4, 0.2], [-0.1], [0.2], [0.3], [-0.6, 1.0]], [0, 0, 0, 1, 1], [1, 2, 3, 2, 1], scale)
        torch.testing.assert_close(gradient(with_kl, batch), slope(with_kl, batch), rtol=1e-6, atol=1e-8)


def test_single_rollouts_and_far_drifts() -> None:
    batch = batch_of([[0.5], [1e4], [-1e4], []], [0, 1, 1, 0], [1, 2, 1, 2], pair_scale=1.0)
    assert loss(batch)[:, 0].tolist() == pytest.approx([0.0, 0.0, 0.25 * 2e4, 0.0])
    assert torch.isfinite(gradient(with_kl, batch)).all()
    alone = batch_of([[0.5]], [0], [1], pair_scale=1.0)
    assert gradient(loss, alone).tolist() == [[0.0]]


def rollouts_of(correct: list[bool], labels: list[str], log_prob: list[float]) -> MethodBatch:
    rows = len(correct)
    return MethodBatch(
        rewards=torch.tensor(correct).float().unsqueeze(-1),
        response_mask=torch.tensor([[0 if label == "padding" else 1] for label in labels]),
        groups=RolloutGroups.from_labels(labels),
        correct=torch.tensor(correct),
        log_prob=torch.tensor(log_prob).unsqueeze(-1),
        ref_log_prob=torch.full((rows, 1), -1.0),
    )


def test_what_is_logged_is_the_first_update_and_columns_are_means_of_the_step() -> None:
    """Two pairs among four rollouts: the scale is 2, and a pair weighs 2 x 0.25 sigmoid(-0.25 (g_i - g_j))."""
    batch = rollouts_of(
        [True, False, False, True, False], ["a", "a", "a", "b", "padding"], [-0.8, -0.6, -1.0, -1.0, 0.0]
    )
    columns = METHOD.loss_columns(batch, WITHOUT_KL, torch.zeros(5, 1))
    assert columns["pair_scale"].tolist() == [2.0] * 5
    assert columns["token_scale"].tolist() == [1.0] * 5
    weights = [0.5 / (1 + math.exp(0.25 * margin)) for margin in (-0.2, 0.2)]
    expected = [sum(weights), -weights[0], -weights[1], 0.0, 0.0]
    assert METHOD.advantage(batch, WITHOUT_KL).tolist() == pytest.approx(expected)
    first = made_loss_batch(
        [[0.0]] * 4 + [[]], groups=[0, 0, 0, 1, 2], old_log_prob=[[-0.8], [-0.6], [-1.0], [-1.0], []]
    )
    first = replace(first, columns=first.columns | {name: _on_tokens(value) for name, value in columns.items()})
    assert gradient(loss, first).flatten().tolist() == pytest.approx([-value for value in expected])


def _on_tokens(values: torch.Tensor) -> torch.Tensor:
    return values.double() if values.dim() == 2 else values.double().unsqueeze(-1)


def test_what_is_logged_without_a_pair() -> None:
    batch = rollouts_of([True, False, False], ["a", "b", "padding"], [-1.0, -1.0, 0.0])
    assert METHOD.advantage(batch, WITHOUT_KL).tolist() == pytest.approx([0.5, -0.5, 0.0])


@pytest.mark.parametrize(("key", "value"), [("beta", 0), ("top_level_factor", math.nan), ("kl_weight", -0.1)])
def test_settings_out_of_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"algorithm\.trpa\.{key} must be a number in"):
        TRPAConfig.from_mapping({key: value})
