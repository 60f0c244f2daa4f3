"""COPO: the answers' entropy, the advantage of a prompt, the weight under every mode, and the blend of two losses.

Also: a blended advantage in one clipped loss would be another rule, and the mode without a global side is verl's loss.

Not exercised: how the columns reach the workers (tests/trainer), and which mode the paper's rows come from.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.methods.references import copo as reference
from verl_ispo.methods.copo import (
    METHOD,
    MODES,
    COPOConfig,
    answer_entropy,
    clipped_loss,
    copo_columns,
    copo_loss,
    global_advantage,
    local_weight,
)
from verl_ispo.methods.method import LossBatch, MethodBatch
from verl_ispo.signals.groups import RolloutGroups, group_advantage


def batch(labels: str, verdicts: str, answers: str, empty_rows: int = 0) -> MethodBatch:
    """Rows of two tokens; an answer `-` is none; ``empty_rows`` more pad the batch."""
    rows = len(labels)
    mask = torch.tensor([[1, 1]] * rows + [[0, 0]] * empty_rows)
    correct = torch.tensor([verdict == "1" for verdict in verdicts] + [False] * empty_rows)
    groups = RolloutGroups.from_labels([*labels, *range(empty_rows)])
    grpo = group_advantage(correct.double(), groups, True, 0.0)
    return MethodBatch(
        rewards=correct.float().unsqueeze(-1) * mask,
        response_mask=mask,
        groups=groups,
        correct=correct,
        answer_texts=tuple(None if text == "-" else text for text in answers) + (None,) * empty_rows,
        grpo_advantage=grpo.unsqueeze(-1) * mask,
    )


def test_entropy_by_hand() -> None:
    """Four of four: 0 bits; halves: 1 bit; four different: 2 bits; a quarter and three quarters: 0.8113 bits."""
    texts = [*"xxxx", *"xxyy", *"wxyz", *"xyyy"]
    found = answer_entropy(texts, RolloutGroups.from_labels("a" * 4 + "b" * 4 + "c" * 4 + "d" * 4))
    assert found.tolist() == pytest.approx([0.0, 1.0, 2.0, 0.25 * 2 + 0.75 * math.log2(4 / 3)])


def test_rollouts_without_an_answer_share_one_string() -> None:
    assert answer_entropy([None, None, "", "x"], RolloutGroups.from_labels("aabb")).tolist() == [0.0, 1.0]


def test_the_advantage_of_a_prompt_by_hand() -> None:
    """Accuracies 1, 1/2 and 0: mean 1/2, std 1/2, so 1, 0 and -1; the padding row is no prompt."""
    given = batch("aabbcc", "111000", "xxxyyy", empty_rows=1)
    found = global_advantage(given.correct, torch.zeros(4), given.response_mask, given.groups, COPOConfig())
    assert found.tolist() == pytest.approx([1.0, 0.0, -1.0, 0.0], abs=1e-5)


def test_a_reward_lowered_by_entropy_by_hand() -> None:
    """G = 4, so 1 - H 3/8: with H = 0 and 1 the rewards are 1/2 and 5/16, their differences +-3/32 without the std."""
    given = batch("aaaabbbb", "11001100", "x" * 8)
    config = COPOConfig(reward_by_entropy=True)
    entropy = torch.tensor([0.0, 1.0], dtype=torch.float64)
    found = global_advantage(given.correct, entropy, given.response_mask, given.groups, config, False)
    assert found.tolist() == pytest.approx([3 / 32, -3 / 32])


def test_a_single_prompt_and_single_rollouts() -> None:
    """One prompt has none to be compared with. Groups of one are compared, also where entropy lowers rewards."""
    assert not copo_columns(batch("aa", "10", "xy"), COPOConfig(), torch.zeros(2, 2))["global_advantage"].any()
    found = copo_columns(batch("ab", "10", "xy"), COPOConfig(reward_by_entropy=True), torch.zeros(2, 2))
    assert found["global_advantage"].tolist() == pytest.approx([0.7071, -0.7071], abs=1e-4)


def test_the_weight_by_hand() -> None:
    """b = 0.5 gives 1/2, one bit 1 / (1 + e^-10), no entropy 1 / (1 + e^10)."""
    entropy = torch.tensor([0.5, 1.0, 0.0])
    yes = torch.ones(3, dtype=torch.bool)
    found = local_weight(entropy, ~yes, yes, COPOConfig())
    assert found.tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-10)), 1 / (1 + math.exp(10))])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("by_entropy", [False, True])
def test_columns_against_loops(mode: str, by_entropy: bool) -> None:
    given = batch("aaaabbbbccccd", "1000111100001", "xyyzxxxxxy--x", empty_rows=2)
    config = COPOConfig(mode=mode, reward_by_entropy=by_entropy)
    found, expected = copo_columns(given, config, given.grpo_advantage), reference.loss_columns(given, config)
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].tolist() == pytest.approx(values, rel=1e-9, abs=1e-12), name


def loss_batch(advantages: torch.Tensor, whole: torch.Tensor, weight: torch.Tensor) -> LossBatch:
    torch.manual_seed(3)
    log_ratio = torch.empty(advantages.shape, dtype=torch.float64).uniform_(-1.5, 1.5)
    return LossBatch(
        log_ratio=log_ratio,
        unclamped_log_ratio=log_ratio,
        advantages=advantages,
        response_mask=torch.ones(advantages.shape, dtype=torch.bool),
        clip_low=0.2,
        clip_high=0.28,
        dual_clip=3.0,
        importance_weights=None,
        columns={"global_advantage": whole, "local_weight": weight},
    )


def random_loss_batch() -> LossBatch:
    torch.manual_seed(4)
    shape = (6, 20)
    return loss_batch(*(torch.randn(shape).double() for _ in range(2)), torch.rand(shape).double())


def test_the_loss_against_loops() -> None:
    given = random_loss_batch()
    expected = torch.tensor(reference.token_loss(given, COPOConfig()), dtype=torch.float64)
    torch.testing.assert_close(copo_loss(given, COPOConfig()).loss, expected)


def test_it_is_no_clipped_loss_of_a_blended_advantage() -> None:
    """Ratio 2, A = 1 and A_g = -1 at w = 1/2: 1/2 (-1.28) + 1/2 2 = 0.36, where the blended advantage of 0 has 0."""
    one = torch.ones(1, 1, dtype=torch.float64)
    given = replace(loss_batch(one, -one, one / 2), log_ratio=one * math.log(2))
    assert copo_loss(given, COPOConfig()).loss.item() == pytest.approx(0.36)
    assert clipped_loss(given, one * 0).loss.item() == 0


def test_a_weight_of_1_is_the_local_loss_and_of_0_the_global_one() -> None:
    given = random_loss_batch()
    for weight, advantages in ((1.0, given.advantages), (0.0, given.columns["global_advantage"])):
        columns = {**given.columns, "local_weight": torch.full_like(given.advantages, weight)}
        found, expected = copo_loss(replace(given, columns=columns), COPOConfig()), clipped_loss(given, advantages)
        assert torch.equal(found.loss, expected.loss)
        assert torch.equal(found.clipped, expected.clipped)


def test_the_local_loss_is_verls() -> None:
    from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla
    from verl.workers.config import ActorConfig

    given = random_loss_batch()
    config = ActorConfig(
        strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, clip_ratio_low=0.2, clip_ratio_high=0.28
    )
    expected, _ = compute_policy_loss_vanilla(
        old_log_prob=torch.zeros_like(given.log_ratio),
        log_prob=given.log_ratio,
        advantages=given.advantages,
        response_mask=given.response_mask,
        loss_agg_mode="token-mean",
        config=config,
    )
    assert clipped_loss(given, given.advantages).loss.mean().item() == pytest.approx(expected.item())


def test_the_gradient_by_finite_differences() -> None:
    """Of a random point, which no kink of the clip is near."""
    given = random_loss_batch()

    def loss(log_ratio: torch.Tensor) -> torch.Tensor:
        return copo_loss(replace(given, log_ratio=log_ratio), COPOConfig()).loss

    assert torch.autograd.gradcheck(loss, given.log_ratio.clone().requires_grad_(), eps=1e-7, atol=1e-5)


def test_the_advantage_is_grpos() -> None:
    given = batch("aabb", "1011", "xyxx")
    assert METHOD.advantage(given, COPOConfig()) is given.grpo_advantage


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "only-soft-with-coef"}, r"algorithm\.copo\.mode must be one of .*got 'only-soft-with-coef'"),
        ({"sharpness": -1}, r"algorithm\.copo\.sharpness must be a number in \[0, inf\), got -1"),
        ({"middle_entropy": math.nan}, r"algorithm\.copo\.middle_entropy .* got nan"),
        ({"reward_by_entropy": "no"}, r"algorithm\.copo\.reward_by_entropy must be one of"),
        ({"k": 20}, r"'k' \(under algorithm\.copo\)"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        COPOConfig.from_mapping(settings)
