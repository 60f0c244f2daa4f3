"""What a user gets from ``--config-name=ispo_trainer`` on verl's stock main, without a config of his own.

The configs are composed by Hydra from verl's config module, so they are found only if the search-path plugin works.
Paper values are repeated by hand.

Not exercised: that a run starts with them (the trainer tests), and Megatron itself.
"""

from __future__ import annotations

import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from tests.composed import composed
from verl_ispo import ISPOConfig
from verl_ispo.config import ISPOTrainerConfig


@pytest.mark.parametrize(("name", "strategy"), [("ispo_trainer", "fsdp"), ("ispo_megatron_trainer", "megatron")])
def test_paper_values(name: str, strategy: str) -> None:
    config = composed(name=name)
    assert ISPOConfig.from_mapping(config.algorithm.ispo) == ISPOConfig()
    assert ISPOTrainerConfig.from_mapping(config.trainer.v1.ispo) == ISPOTrainerConfig()
    assert config.algorithm.adv_estimator == "ispo"
    assert config.algorithm.norm_adv_by_std_in_grpo is True
    assert config.algorithm.use_kl_in_reward is False
    assert config.trainer.v1.trainer_mode == "ispo_sync"
    assert config.trainer.use_v1 is True
    assert config.data.train_batch_size == 512
    assert config.data.max_response_length == 4096
    actor = config.actor_rollout_ref.actor
    assert actor.strategy == strategy
    assert actor.policy_loss.loss_mode == "ispo"
    assert (actor.clip_ratio_low, actor.clip_ratio_high) == (0.2, 0.28)
    assert actor.use_kl_loss is False
    assert actor.optim.lr == 1e-6
    assert (config.actor_rollout_ref.rollout.n, config.actor_rollout_ref.rollout.temperature) == (8, 1.0)


@pytest.mark.parametrize("name", ["ispo_trainer", "ispo_megatron_trainer"])
def test_every_setting_can_be_overridden_without_a_plus(name: str) -> None:
    wanted = {key: other(value) for key, value in ISPOConfig().to_dict().items()}
    wanted |= {"critical_selection": "union", "answer_format": "boxed", "missing_answer": "group_min"}
    wanted |= {"answer_span": "marked", "trace_end": "first_statement"}
    wanted |= {"all_wrong_groups": "informative", "all_right_groups": "off"}
    wanted |= {"ifd_reference": "running_mean", "same_outcome_std": "one_success"}
    config = composed(*(f"algorithm.ispo.{key}={value}" for key, value in wanted.items()), name=name)
    assert ISPOConfig.from_mapping(config.algorithm.ispo).to_dict() == wanted


@pytest.mark.parametrize("name", ["ispo_trainer", "ispo_megatron_trainer"])
def test_data_and_model_are_all_that_a_user_has_to_give(name: str) -> None:
    """verl's own validation, as its main runs it first, with nothing else set on the command line."""
    config = composed("data.train_files=train.parquet", "actor_rollout_ref.model.path=some/model", name=name)
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    assert OmegaConf.missing_keys(config) == {"reward.reward_model.rollout.name"}  # of a reward model, which is off


def test_a_typo_fails_to_compose() -> None:
    with pytest.raises(ConfigCompositionException, match="ifd_weigth"):
        composed("algorithm.ispo.ifd_weigth=0.1")


def test_the_cpu_back_end_changes_nothing_of_the_method() -> None:
    gpu, cpu = composed(), composed("backend=cpu")
    assert cpu.trainer.device == "cpu"
    assert cpu.actor_rollout_ref.rollout.name == "cpu"
    assert gpu.actor_rollout_ref.rollout.name == "vllm"
    for key in ("algorithm", "actor_rollout_ref.actor.policy_loss", "actor_rollout_ref.actor.optim"):
        assert OmegaConf.select(gpu, key) == OmegaConf.select(cpu, key)
    for key in ("clip_ratio_low", "clip_ratio_high", "use_kl_loss", "ppo_epochs", "loss_agg_mode"):
        assert gpu.actor_rollout_ref.actor[key] == cpu.actor_rollout_ref.actor[key]


@pytest.mark.parametrize("backend", ["cpu", "torch_only_gpu"])
def test_a_back_end_leaves_megatron_the_engine(backend: str) -> None:
    """What a back end sets of FSDP is FSDP's alone; under Megatron it would turn the engine into another."""
    fsdp, megatron = (composed(f"backend={backend}", name=name) for name in ("ispo_trainer", "ispo_megatron_trainer"))
    actor = megatron.actor_rollout_ref.actor
    assert (actor.strategy, "fsdp_config" in actor) == ("megatron", False)
    assert megatron.trainer.device == fsdp.trainer.device
    of_fsdp, of_megatron = (dict(flat(config.actor_rollout_ref.rollout)) for config in (fsdp, megatron))
    assert {key for key in of_fsdp if of_fsdp[key] != of_megatron[key]} <= {"qat.activation_observer", "qat"}


@pytest.mark.parametrize(
    ("name", "stock"), [("ispo_trainer", "ppo_trainer"), ("ispo_megatron_trainer", "ppo_megatron_trainer")]
)
def test_verls_own_config_is_changed_where_the_method_says_and_nowhere_else(name: str, stock: str) -> None:
    ours, verls = (flat(composed(name=which)) for which in (name, stock))
    changed = {key for key in ours if key in verls and ours[key] != verls[key]}
    assert set(verls) <= set(ours)
    assert changed == {
        "algorithm.adv_estimator",
        "trainer.v1.trainer_mode",
        "data.train_batch_size",
        "data.max_response_length",
        "actor_rollout_ref.actor.policy_loss.loss_mode",
        "actor_rollout_ref.actor.clip_ratio_high",
        "actor_rollout_ref.actor.use_dynamic_bsz",
        "actor_rollout_ref.rollout.name",
        "actor_rollout_ref.rollout.n",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu",
    }
    added = set(ours) - set(verls)
    assert {key.rsplit(".", 1)[0] for key in added} == {"algorithm.ispo", "trainer.v1.ispo"}


def other(value: object) -> object:
    """A value that is not the default, for switches and numbers."""
    return (not value) if isinstance(value, bool) else 0.75


def flat(config: DictConfig) -> dict[str, object]:
    """Dotted key -> value, interpolations left as they are written."""
    found: dict[str, object] = {}

    def visit(prefix: str, node: object) -> None:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                visit(f"{prefix}.{key}" if prefix else str(key), value)
        else:
            found[prefix] = node

    visit("", OmegaConf.to_container(config, resolve=False))
    return found
