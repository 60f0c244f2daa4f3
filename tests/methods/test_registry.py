"""One list of methods: a module with a ``METHOD`` is a method, and everything that knows methods reads it there.

- Every method is registered with verl under its name, its loss too, and has a preset that chooses it.
- What a method declares as a need it gets, and nothing else; what it does not declare it cannot read.
- The doctor's list, the refusals and ``verl-ispo methods`` follow the registry: shown by putting a method into it.

Not exercised: the rules (one test file each), and the trainer that reads the fields (tests/trainer, tests/training).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY

from tests.composed import composed as compose_cached
from verl_ispo import doctor
from verl_ispo.config.section import from_section
from verl_ispo.method_presets import method_names, read_preset
from verl_ispo.methods import registry
from verl_ispo.methods.method import LossBatch, Method, MethodBatch, Need, TokenLoss
from verl_ispo.methods.registry import method_of, methods
from verl_ispo.trainer.hand_over import KnownOfBatch, handed_over
from verl_ispo.trainer.method_adapter import advantage_estimator
from verl_ispo.trainer.refusals import unsupported_settings


def composed(*overrides: str) -> DictConfig:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ispo_trainer", overrides=list(overrides))


@pytest.fixture
def made_up() -> Iterator[Method]:
    """A method that is in the registry for the length of a test."""

    def loss(batch: LossBatch) -> TokenLoss:
        return TokenLoss(-batch.advantages * batch.log_ratio.exp(), torch.zeros_like(batch.response_mask))

    method = Method(
        name="made_up",
        advantage=lambda batch, settings: batch.entropy,
        needs=frozenset({Need.ENTROPY}),
        settings=lambda section: from_section(dict, "algorithm.made_up", section),
        token_loss=loss,
    )
    methods()["made_up"] = method
    yield method
    registry.methods.cache_clear()


@pytest.mark.parametrize("name", sorted(methods()))
def test_every_method_is_registered_and_has_a_preset(name: str) -> None:
    method = methods()[name]
    assert method.name == name
    assert name in ADV_ESTIMATOR_REGISTRY
    assert (name in POLICY_LOSS_REGISTRY) == method.brings_a_loss
    preset = read_preset(name)
    assert preset.changes["algorithm.adv_estimator"] == name
    assert list(preset.needs) == sorted(need.value for need in method.needs)
    if method.settings is not None and name != "ispo":
        # composed, since a preset may refer to another key of the run
        assert method.read_settings(compose_cached(f"method={name}").algorithm[name]) is not None


def test_every_preset_is_a_method_of_the_registry_or_verls() -> None:
    verls = ("grpo", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline")
    for name in method_names():
        estimator = read_preset(name).changes.get("algorithm.adv_estimator", "grpo")
        assert (method_of(estimator) is not None) == (estimator not in verls), f"{name}: {estimator}"


def test_a_new_method_is_known_everywhere(made_up: Method) -> None:
    assert {"advantage estimator made_up", "policy loss made_up"} <= set(doctor.missing_registrations())
    half = composed("actor_rollout_ref.actor.policy_loss.loss_mode=made_up", "method=grpo")
    assert any(
        "made_up is an advantage and a policy loss together" in one.sentence for one in unsupported_settings(half)
    )
    section = composed("+algorithm.made_up.a=1")
    assert any("only adv_estimator=made_up reads" in one.sentence for one in unsupported_settings(section))
    bypass = composed(
        "algorithm.adv_estimator=made_up",
        "trainer.v1.ispo.watch_signals=false",
        "algorithm.rollout_correction.bypass_mode=true",
    )
    assert any("computes no entropy" in one.sentence for one in unsupported_settings(bypass))


def test_a_rule_gets_what_verl_and_the_trainer_know() -> None:
    seen: list[MethodBatch] = []

    def rule(batch: MethodBatch, settings: None) -> torch.Tensor:
        seen.append(batch)
        return torch.tensor([1.0, 2.0], dtype=torch.float64)

    needs = frozenset({Need.ANSWER_TEXT, Need.GRPO_ADVANTAGE})
    estimator = advantage_estimator(Method(name="looks", advantage=rule, needs=needs))
    rewards = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    with handed_over(KnownOfBatch(answer_texts=("4", None), state="before")):
        advantages, _ = estimator(rewards, torch.ones(2, 2), np.array(["q", "q"]))
    assert advantages.tolist() == [[1.0, 1.0], [2.0, 2.0]]
    assert advantages.dtype == torch.float32
    (batch,) = seen
    assert batch.answer_texts == ("4", None)
    assert batch.state == "before"
    torch.testing.assert_close(batch.grpo_advantage, torch.tensor([[0.5**0.5] * 2, [-(0.5**0.5)] * 2]))
    assert batch.entropy is batch.log_prob is batch.correct is None
    assert batch.groups.count == 1
