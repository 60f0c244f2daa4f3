"""Every preset computes from one fixed batch what it has always computed: advantages, policy loss and its gradient.

    VERL_PLATFORM=cpu python -m tests.methods.test_preset_numbers > tests/methods/golden/preset_numbers.json

writes the golden file. The batch comes from numpy's PCG64 and holds mixed, all-wrong and all-right groups, a group of
one, missing answers, rollouts under the hinge, several lengths and a row without tokens. The numbers are bitwise
repeatable on one machine; the test allows for other instruction sets. Write the file again when a preset
is added or its rule is changed on purpose.

Not exercised: the trainer around the estimator and the loss, and whether the numbers are the papers' (the tests of each
method say that).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
from verl.utils.config import omega_conf_to_dataclass

import verl_ispo.plugin  # noqa: F401 - registers estimators and losses
from verl_ispo.config import ISPOConfig
from verl_ispo.method_presets import method_names
from verl_ispo.signals.composite import compute_ispo_reward
from verl_ispo.signals.groups import RolloutGroups, guarded_reward
from verl_ispo.signals.right_answer import RightAnswerScores
from verl_ispo.signals.running_ifd import RunningIFD
from verl_ispo.trainer.hand_over import KnownOfBatch, handed_over

GOLDEN = Path(__file__).parent / "golden/preset_numbers.json"
LENGTH, PROMPT_LENGTH, ANSWER_LENGTH = 12, 9, 5
# one row each: group and verdict
ROWS = [("mixed", True), ("mixed", False), ("mixed", True), ("mixed", False), ("mixed", False), ("mixed", True)]
ROWS += [("wrong", False)] * 5 + [("right", True)] * 5 + [("alone", True), ("none", False)]
RUNNING_IFD = RunningIFD(right=0.4, wrong=0.25)


@dataclass(frozen=True)
class FixedBatch:
    """One batch of rollouts; shapes as in `compute_ispo_reward`."""

    labels: list[str]
    score: torch.Tensor
    correct: torch.Tensor
    log_prob: torch.Tensor
    ref_log_prob: torch.Tensor
    new_log_prob: torch.Tensor
    entropy: torch.Tensor
    response_mask: torch.Tensor
    prompt_log_prob: torch.Tensor
    prompt_mask: torch.Tensor
    answer_log_prob: torch.Tensor
    ablated_answer_log_prob: torch.Tensor
    answer_mask: torch.Tensor
    outside_answer: torch.Tensor
    right_answer: RightAnswerScores | None


def fixed_batch() -> FixedBatch:
    generator = np.random.Generator(np.random.PCG64(20260608))
    rows = len(ROWS)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.from_numpy(generator.uniform(low, high, shape)).float()

    lengths = torch.from_numpy(generator.integers(3, LENGTH + 1, rows))
    lengths[-1] = 0
    response_mask = torch.arange(LENGTH) < lengths.unsqueeze(-1)
    answers = torch.from_numpy(generator.integers(0, ANSWER_LENGTH + 1, rows)).clamp(max=lengths)
    answer_mask = torch.arange(ANSWER_LENGTH) < answers.unsqueeze(-1)
    end = lengths.unsqueeze(-1)
    position = torch.arange(LENGTH)
    log_prob = uniform(-3, 0, rows, LENGTH)
    batch = FixedBatch(
        labels=[label for label, _ in ROWS],
        score=torch.tensor([float(correct) for _, correct in ROWS]),
        correct=torch.tensor([correct for _, correct in ROWS]),
        log_prob=log_prob,
        ref_log_prob=log_prob - uniform(-0.6, 1.2, rows, LENGTH),
        new_log_prob=log_prob + uniform(-0.5, 0.5, rows, LENGTH),
        entropy=uniform(0, 2, rows, LENGTH) * torch.tensor([1.0, 0.1]).repeat(rows // 2).unsqueeze(-1),
        response_mask=response_mask,
        prompt_log_prob=uniform(-4, 0, rows, PROMPT_LENGTH),
        prompt_mask=torch.arange(PROMPT_LENGTH) < torch.from_numpy(generator.integers(0, 10, rows)).unsqueeze(-1),
        answer_log_prob=uniform(-1, 0, rows, ANSWER_LENGTH),
        ablated_answer_log_prob=uniform(-3, 0, rows, ANSWER_LENGTH),
        answer_mask=answer_mask,
        outside_answer=~((position >= end - answers.unsqueeze(-1)) & (position < end)),
        right_answer=None,
    )
    # drawn last, so that what was drawn before stays as it was
    key_length = torch.from_numpy(generator.integers(0, 3, rows)) * answer_mask.any(dim=-1)
    right_answer = RightAnswerScores(
        given_trace=uniform(-4, 0, rows, 2),
        ablated=uniform(-4, 0, rows, 2),
        mask=torch.arange(2) < key_length.unsqueeze(-1),
        too_long=torch.zeros(rows, dtype=torch.bool),
    )
    return replace(batch, right_answer=right_answer)


def on_last_token(reward: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    rewards = torch.zeros(response_mask.shape)
    last = (response_mask.sum(dim=-1) - 1).clamp(min=0)
    return rewards.scatter(1, last.unsqueeze(-1), reward.unsqueeze(-1)) * response_mask


def training_reward(batch: FixedBatch, ispo: ISPOConfig) -> torch.Tensor:
    """The composite reward with its guards, `(batch,)`."""
    reward = compute_ispo_reward(
        score=batch.score,
        correct=batch.correct,
        log_prob=batch.log_prob,
        ref_log_prob=batch.ref_log_prob,
        entropy=batch.entropy,
        response_mask=batch.response_mask,
        answer_log_prob=batch.answer_log_prob,
        ablated_answer_log_prob=batch.ablated_answer_log_prob,
        answer_mask=batch.answer_mask,
        config=ispo,
        entropy_candidate_mask=batch.outside_answer,
        running_ifd=RUNNING_IFD,
    )
    groups = RolloutGroups.from_labels(batch.labels)
    return guarded_reward(reward, batch.correct, groups, ispo, batch.right_answer).total


def advantages_under(config: DictConfig, batch: FixedBatch) -> torch.Tensor:
    """What the registered estimator gives on the batch, as the trainer calls it."""
    name = config.algorithm.adv_estimator
    reward = batch.score
    if name == "ispo":
        reward = training_reward(batch, ISPOConfig.from_mapping(config.algorithm.ispo))
    known = KnownOfBatch(batch.correct, batch.log_prob, batch.entropy, batch.prompt_log_prob, batch.prompt_mask)
    with handed_over(known):
        advantages, _ = get_adv_estimator_fn(name)(
            token_level_rewards=on_last_token(reward, batch.response_mask),
            response_mask=batch.response_mask.long(),
            index=np.array(batch.labels, dtype=object),
            config=config.algorithm,
        )
    return advantages


def loss_under(config: DictConfig, batch: FixedBatch, advantages: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The registered policy loss on the batch, and its gradient with respect to the new log-probs."""
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    actor.global_batch_info.update(
        dp_size=1, batch_num_tokens=int(batch.response_mask.sum()), global_batch_size=len(batch.labels)
    )
    new_log_prob = batch.new_log_prob.clone().requires_grad_()
    loss, _ = get_policy_loss_fn(config.actor_rollout_ref.actor.policy_loss.loss_mode)(
        old_log_prob=batch.log_prob,
        log_prob=new_log_prob,
        advantages=advantages.float(),
        response_mask=batch.response_mask.long(),
        loss_agg_mode=actor.loss_agg_mode,
        config=actor,
    )
    loss.backward()
    return loss.detach(), new_log_prob.grad


def preset_numbers(method: str) -> dict[str, Any]:
    """Advantages, loss and gradient of one preset, as plain numbers."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        # the loss's class asks for a micro-batch size that only a training has
        micro = "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8"
        config = compose("ispo_trainer", overrides=[f"method={method}", "data.max_response_length=12", micro])
    batch = fixed_batch()
    advantages = advantages_under(config, batch)
    loss, gradient = loss_under(config, batch, advantages)
    # float32 and float64 values are exact in JSON's shortest repr
    return {"advantages": advantages.tolist(), "loss": loss.item(), "gradient": gradient.tolist()}


@cache
def golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())


def test_every_preset_of_the_golden_file_is_there() -> None:
    assert len(golden()) >= 33
    assert set(golden()) <= set(method_names())


@pytest.mark.parametrize("method", sorted(golden()))
def test_a_preset_gives_the_numbers_that_it_has_always_given(method: str) -> None:
    found, expected = preset_numbers(method), golden()[method]
    for part in ("advantages", "loss", "gradient"):
        torch.testing.assert_close(
            torch.tensor(found[part], dtype=torch.float64),
            torch.tensor(expected[part], dtype=torch.float64),
            rtol=1e-5,
            atol=1e-6,
        )


def main() -> None:
    """Print the numbers of all presets."""
    print(json.dumps({method: preset_numbers(method) for method in method_names()}))


if __name__ == "__main__":
    main()
