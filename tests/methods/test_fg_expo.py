"""FG-ExPO: the coefficient, the weights and the loss by hand, the columns it hands to the loss, limits and settings.

Not exercised: the reference forward in the trainer, and the effect on training.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from verl.trainer.ppo.core_algos import kl_penalty

from verl_ispo.config.section import UnknownISPOKeyError
from verl_ispo.methods.clipped_loss import dual_clipped_loss
from verl_ispo.methods.fg_expo import (
    METHOD,
    FGExPOConfig,
    fg_expo_loss,
    low_variance_kl,
    prompt_weights,
    scaled_coefficient,
)
from verl_ispo.methods.method import LossBatch, MethodBatch
from verl_ispo.signals.groups import RolloutGroups


def verdicts(text: str) -> torch.Tensor:
    return torch.tensor([character == "1" for character in text])


def weights(labels: str, correct: str, tokens: str | None = None, width: float = 0.25) -> list[float]:
    has_tokens = verdicts(tokens or "1" * len(labels))
    return prompt_weights(verdicts(correct), has_tokens, RolloutGroups.from_labels(labels), 0.5, width).tolist()


@pytest.mark.parametrize(("correct", "accuracy"), [("0000", 0.0), ("1111", 1.0), ("1000", 0.25)])
def test_the_coefficient_by_hand(correct: str, accuracy: float) -> None:
    expected = 0.02 * (math.tanh(accuracy) + 1) / 2
    assert scaled_coefficient(verdicts(correct), verdicts("1111"), 0.02) == pytest.approx(expected)
    assert scaled_coefficient(verdicts(correct + "0"), verdicts("11110"), 0.02) == pytest.approx(expected)


def test_the_weights_by_hand() -> None:
    """Accuracies 1/2, 1 and 0: 1, e^-2 and e^-2, divided by their mean; a row without tokens is no prompt."""
    mean = (1 + 2 * math.exp(-2)) / 3
    expected = [1 / mean] * 2 + [math.exp(-2) / mean] * 4
    assert weights("aabbcc", "101100") == pytest.approx(expected)
    assert weights("aabbccd", "1011000", "1111110") == pytest.approx([*expected, 0.0])


def test_one_prompt_or_equal_accuracies_weigh_one() -> None:
    assert weights("aaaa", "1000") == [1.0] * 4
    assert weights("aabb", "1001") == pytest.approx([1.0] * 4)
    assert weights("aa", "10", "00") == [0.0, 0.0]


def test_a_narrow_gaussian_stays_finite() -> None:
    """All is on the prompt with accuracy 3/4, and its weight is the number of prompts."""
    assert weights("aaaabb", "111000", width=1e-3) == pytest.approx([2.0] * 4 + [0.0] * 2)


def loss_batch(log_ratio: torch.Tensor, reference: float, kl_weight: float) -> LossBatch:
    columns = {
        "ref_log_prob": torch.full_like(log_ratio, reference),
        "kl_weight": torch.full_like(log_ratio, kl_weight),
    }
    return LossBatch(
        log_ratio=log_ratio,
        unclamped_log_ratio=log_ratio,
        advantages=torch.ones_like(log_ratio),
        response_mask=torch.ones(log_ratio.shape, dtype=torch.bool),
        clip_low=0.2,
        clip_high=0.28,
        dual_clip=3.0,
        importance_weights=None,
        old_log_prob=torch.full_like(log_ratio, -1.0),
        columns=columns,
    )


def test_the_loss_and_its_gradient_by_hand() -> None:
    """log p = -0.9 and log p_ref = -1.4: d = -0.5; the derivative of k3 in log p is 1 - e^d."""
    log_ratio = torch.tensor([[0.1]], dtype=torch.float64, requires_grad=True)
    loss = fg_expo_loss(loss_batch(log_ratio, -1.4, 0.3), FGExPOConfig()).loss
    loss.sum().backward()
    assert loss.item() == pytest.approx(-math.exp(0.1) + 0.3 * (math.exp(-0.5) + 0.5 - 1))
    assert log_ratio.grad.item() == pytest.approx(-math.exp(0.1) + 0.3 * (1 - math.exp(-0.5)))


def test_the_estimate_is_verls() -> None:
    log_prob, reference = -torch.rand(3, 9) * 30, -torch.rand(3, 9) * 30
    torch.testing.assert_close(low_variance_kl(log_prob, reference), kl_penalty(log_prob, reference, "low_var_kl"))


def test_without_a_coefficient_it_is_the_clipped_loss() -> None:
    given = loss_batch(torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3), -4.0, 0.0)
    torch.testing.assert_close(fg_expo_loss(given, FGExPOConfig()).loss, dual_clipped_loss(given)[0])


def test_what_the_loss_is_handed() -> None:
    """The reference's log-probs as they are, and b w per rollout; the advantage is GRPO's times w."""
    grpo = torch.tensor([[1.0], [-1.0], [0.0], [0.0]]).expand(4, 3)
    batch = MethodBatch(
        rewards=torch.zeros(4, 3),
        response_mask=torch.ones(4, 3),
        groups=RolloutGroups.from_labels("aabb"),
        correct=verdicts("1011"),
        grpo_advantage=grpo,
        ref_log_prob=-torch.rand(4, 3),
    )
    w = torch.tensor(weights("aabb", "1011"), dtype=torch.float64)
    torch.testing.assert_close(METHOD.advantage(batch, FGExPOConfig()), grpo * w.unsqueeze(-1))
    columns = METHOD.loss_columns(replace(batch, grpo_advantage=None), FGExPOConfig(), grpo)
    assert torch.equal(columns["ref_log_prob"], batch.ref_log_prob)
    torch.testing.assert_close(columns["kl_weight"], w * 0.02 * (math.tanh(0.75) + 1) / 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl_coefficient": -1.0}, r"fg_expo\.kl_coefficient must be"),
        ({"weight_center": 1.5}, r"fg_expo\.weight_center must be a number in \[0, 1\]"),
        ({"weight_width": 0.0}, r"fg_expo\.weight_width must be a number in \(0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FGExPOConfig.from_mapping(settings)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(UnknownISPOKeyError, match="weight_width"):
        FGExPOConfig.from_mapping({"width": 0.2})
