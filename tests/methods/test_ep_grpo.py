"""EP-GRPO: the gate by entropy, the signed drift off the reference, and its buckets of progress.

Not exercised: the reference policy's pass (tests/trainer/test_reference_pass.py).
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.methods.references import ep_grpo as reference
from verl_ispo.methods.ep_grpo import METHOD, EPGRPOConfig, entropy_gate, polarity, progress_bucket
from verl_ispo.methods.method import MethodBatch
from verl_ispo.signals.groups import RolloutGroups


def batch(rewards: list[float], labels: list[str], entropy: list[list[float]], drift: list[list[float]]) -> MethodBatch:
    """Dr.GRPO's advantages, so that numbers stay round; drift is log p - log p_ref."""
    reward, groups = torch.tensor(rewards), RolloutGroups.from_labels(labels)
    entropies, drifts = torch.tensor(entropy), torch.tensor(drift)
    mask = torch.ones(entropies.shape)
    alone = (groups.size == 1)[groups.ids]
    centred = torch.where(alone, reward, reward - groups.reduce(reward, "mean")[groups.ids])
    return MethodBatch(
        rewards=torch.nn.functional.pad(reward.unsqueeze(-1), (entropies.shape[1] - 1, 0)),
        response_mask=mask,
        groups=groups,
        grpo_advantage=centred.unsqueeze(-1) * mask,
        entropy=entropies,
        log_prob=drifts - 4.0,
        ref_log_prob=torch.full(entropies.shape, -4.0),
    )


def advantages(of: MethodBatch, config: EPGRPOConfig) -> torch.Tensor:
    found = METHOD.advantage(of, config)
    expected = torch.tensor(reference.advantage(of, config), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    return found


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_the_gate_by_hand() -> None:
    """Of 1, 2 and 3 the mean is 2 and the unbiased std 1; the masked 50 plays no part."""
    mask = torch.tensor([[True, True], [True, False]])
    gate = entropy_gate(torch.tensor([[1.0, 2.0], [3.0, 50.0]], dtype=torch.float64), mask, slope=2.0)
    assert gate.flatten().tolist() == pytest.approx([sigmoid(-2), 0.5, sigmoid(2), 0], abs=1e-5)


def test_equal_entropies_and_no_slope_halve_every_advantage() -> None:
    entropy, mask = torch.tensor([[0.3, 0.3]], dtype=torch.float64), torch.ones(1, 2, dtype=torch.bool)
    assert entropy_gate(entropy, mask, 1.0).tolist() == [[0.5, 0.5]]
    assert entropy_gate(torch.tensor([[0.3, 2.0]], dtype=torch.float64), mask, 0.0).tolist() == [[0.5, 0.5]]


def test_the_sign_is_the_outcomes_or_that_of_a_good_reward() -> None:
    groups = RolloutGroups.from_labels(["mixed", "mixed", "wrong", "wrong", "alone"])
    reward = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0])
    assert polarity(reward - 0.5, reward, groups, 0.5).tolist() == [1, -1, -1, -1, 1]
    assert polarity(reward - 0.5, reward, groups, 0.0).tolist() == [1, -1, 0, 0, 1]


def test_buckets_follow_the_entropy_that_is_spent() -> None:
    """Of 4 nats, 1 is spent after the first token, 1 after the second, then 2 and 4; a masked one spends none."""
    entropy = torch.tensor([[1.0, 0.0, 9.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True, True], [True] * 5])
    assert progress_bucket(entropy, mask, 4)[0, [0, 1, 3, 4]].tolist() == [1, 1, 2, 3]
    assert progress_bucket(entropy, mask, 1)[0].tolist() == [0] * 5
    assert progress_bucket(entropy, mask, 4)[1].tolist() == [0] * 5


ENTROPY = [[1.0, 1.0], [1.0, 1.0]]


def test_a_mixed_group_by_hand() -> None:
    """First tokens share a bucket, and so do second ones. Signed, the first are 1 and -3, the second 2 and 2.

    The first ones' mean is -1 and their std sqrt(8): 1 / sqrt(2) and -1 / sqrt(2). The gate is one half everywhere.
    """
    of = batch([1.0, 0.0], ["q", "q"], ENTROPY, [[1.0, 2.0], [3.0, -2.0]])
    found = advantages(of, EPGRPOConfig(buckets=4))
    half = 1 / math.sqrt(2)
    assert found.tolist() == [
        pytest.approx([0.25 + half, 0.25], abs=1e-5),
        pytest.approx([-0.25 - half, -0.25], abs=1e-5),
    ]


def test_a_group_of_one_outcome_has_the_drift_alone_and_its_sign_turns_with_the_outcome() -> None:
    drift = [[1.0, 2.0], [3.0, -2.0]]
    right = advantages(batch([1.0, 1.0], ["q", "q"], ENTROPY, drift), EPGRPOConfig())
    wrong = advantages(batch([0.0, 0.0], ["q", "q"], ENTROPY, drift), EPGRPOConfig())
    assert right.abs().min() > 0.1
    torch.testing.assert_close(wrong, -right)


def test_before_the_policy_has_left_the_reference_it_is_gated_grpo() -> None:
    of = batch([1.0, 0.0], ["q", "q"], [[0.5, 2.0], [1.0, 1.0]], [[0.0, 0.0]] * 2)
    found = advantages(of, EPGRPOConfig())
    gate = entropy_gate(of.entropy.double(), of.response_mask.bool(), 1.0)
    torch.testing.assert_close(found, of.grpo_advantage.double() * gate)


def test_without_slope_and_progress_it_is_half_of_grpo() -> None:
    of = batch([1.0, 0.0, 1.0], ["q", "q", "alone"], [[0.5, 2.0]] * 3, [[1.0, 3.0]] * 3)
    found = advantages(of, EPGRPOConfig(gate_slope=0, progress_weight=0))
    torch.testing.assert_close(found, of.grpo_advantage.double() / 2)


def test_a_token_alone_in_its_bucket_has_no_process_term() -> None:
    of = batch([1.0], ["alone"], [[1.0, 1.0]], [[1.0, 3.0]])
    assert advantages(of, EPGRPOConfig())[0].tolist() == pytest.approx([0.5, 0.5])


def test_the_scale_of_the_drift_has_next_to_no_effect() -> None:
    of = batch([1.0, 0.0], ["q", "q"], ENTROPY, [[1.0, 2.0], [3.0, -2.0]])
    once, twice = (advantages(of, EPGRPOConfig(drift_scale=scale)) for scale in (1.0, 2.0))
    torch.testing.assert_close(once, twice, rtol=1e-5, atol=1e-5)


def test_a_batch_without_tokens_is_zero() -> None:
    of = batch([1.0, 0.0], ["q", "q"], ENTROPY, ENTROPY)
    of.response_mask.zero_()
    assert not METHOD.advantage(of, EPGRPOConfig()).any()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gate_slope", -1),
        ("drift_scale", 0),
        ("reward_threshold", math.nan),
        ("buckets", 0),
        ("buckets", 2.0),
        ("progress_weight", -0.1),
        ("lam", 1),
    ],
)
def test_values_out_of_range_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"{key}"):
        EPGRPOConfig.from_mapping({key: value})
