"""Settings with which ISPO cannot work are refused before anything starts, by key and remedy.

On real composed configs, since that is what the check reads. Refusals that need a running trainer (NaN, a scorer
without a verdict, several outputs per session) are in test_outcome and in the trainer tests; a stock trainer mode is in
test_advantage.

That Ulysses' sequence parallelism without flash attention gives wrong log-probs is shown in
test_engine_features; what verl's engines make of the adapters' keys was read, and run for FSDP alone.

Not exercised: Megatron, VeOmni, SGLang, a model with a vision tower (a stand-in for its processor is).
"""

from __future__ import annotations

import pytest
from omegaconf import open_dict

from tests.composed import composed
from verl_ispo.config import ISPOTrainerConfig
from verl_ispo.methods.registry import method_of
from verl_ispo.trainer.modes import ISPOTrainerSync
from verl_ispo.trainer.refusals import UnsupportedSettingError, refuse_unsupported_settings, unsupported_settings


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((), "ispo_trainer"),
        (("backend=cpu",), "ispo_trainer"),
        ((), "ispo_megatron_trainer"),
        (("algorithm.adv_estimator=grpo",), "ispo_trainer"),
        (("algorithm.use_kl_in_reward=true",), "ispo_trainer"),
        (("actor_rollout_ref.actor.use_kl_loss=true",), "ispo_trainer"),
        (("algorithm.rollout_correction.rollout_is=token",), "ispo_trainer"),
        (("actor_rollout_ref.model.lora_rank=8",), "ispo_trainer"),
        (("actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.lora_adapter_path=a"), "ispo_trainer"),
        (("actor_rollout_ref.model.lora.rank=8",), "ispo_megatron_trainer"),
        (("actor_rollout_ref.actor.ulysses_sequence_parallel_size=2",), "ispo_trainer"),
        (("actor_rollout_ref.rollout.enable_rollout_routing_replay=true",), "ispo_megatron_trainer"),
        (("distillation.enabled=true",), "ispo_trainer"),
    ],
)
def test_what_is_right_passes(overrides: tuple[str, ...], name: str) -> None:
    refuse_unsupported_settings(composed(*overrides, name=name))


def test_bypass_mode() -> None:
    with pytest.raises(UnsupportedSettingError, match=r"rollout_correction\.bypass_mode=false") as caught:
        refuse_unsupported_settings(composed("algorithm.rollout_correction.bypass_mode=true"))
    assert "entropy" in str(caught.value)


def test_bypass_mode_under_grpo_vps_without_signals() -> None:
    settings = ("method=grpo_vps", "trainer.v1.ispo.watch_signals=false")
    with pytest.raises(UnsupportedSettingError, match="computes no entropy, which adv_estimator=grpo_vps needs"):
        refuse_unsupported_settings(composed(*settings, "algorithm.rollout_correction.bypass_mode=true"))


@pytest.mark.parametrize("mode", ["R2", "R3"])
def test_router_replay(mode: str) -> None:
    config = composed(f"actor_rollout_ref.actor.megatron.router_replay.mode={mode}", name="ispo_megatron_trainer")
    with pytest.raises(UnsupportedSettingError, match=rf"router_replay\.mode={mode}.*disabled"):
        refuse_unsupported_settings(config)


@pytest.mark.parametrize(("method", "scored"), [("prepo", "prompts"), ("grpo_vps", "texts")])
def test_router_replay_under_methods_that_score_rows_of_their_own(method: str, scored: str) -> None:
    """Without ISPO's signals; these are rows without routes too."""
    settings = (f"method={method}", "trainer.v1.ispo.watch_signals=false")
    config = composed(*settings, "actor_rollout_ref.actor.megatron.router_replay.mode=R3", name="ispo_megatron_trainer")
    with pytest.raises(UnsupportedSettingError, match=f"the {scored} that {method} scores have none"):
        refuse_unsupported_settings(config)


MODEL = "actor_rollout_ref.model"


def test_megatron_on_a_cpu_without_an_engine_for_it() -> None:
    with pytest.raises(UnsupportedSettingError, match=r"strategy=megatron with trainer\.device=cpu: .*=ispo_trainer"):
        refuse_unsupported_settings(composed("backend=cpu", name="ispo_megatron_trainer"))
    refuse_unsupported_settings(
        composed("backend=cpu", f"{MODEL}.external_lib=an_engine", name="ispo_megatron_trainer")
    )


@pytest.mark.parametrize(
    ("overrides", "name", "key", "named"),
    [
        ((f"{MODEL}.lora.rank=8",), "ispo_trainer", f"{MODEL}.lora.rank", ("fsdp", f"{MODEL}.lora_rank")),
        ((f"{MODEL}.lora_adapter_path=a",), "ispo_trainer", f"{MODEL}.lora_adapter_path", (f"{MODEL}.lora_rank",)),
        ((f"{MODEL}.lora_rank=8",), "ispo_megatron_trainer", f"{MODEL}.lora_rank", (f"{MODEL}.lora.rank",)),
        (
            (f"{MODEL}.lora.rank=8", f"{MODEL}.lora_adapter_path=a"),
            "ispo_megatron_trainer",
            f"{MODEL}.lora_adapter_path",
            ("lora.adapter_path",),
        ),
        (
            (f"{MODEL}.lora_rank=8", "model_engine=torchtitan"),
            "ispo_trainer",
            f"{MODEL}.lora_rank",
            ("torchtitan", "actor.strategy", "fsdp2"),
        ),
        (
            (f"{MODEL}.lora_rank=8", "trainer.v1.trainer_mode=ispo_separate_async"),
            "ispo_trainer",
            f"{MODEL}.lora.merge",
            ("merge=false", "ispo_separate_async", "merge=true"),
        ),
    ],
)
def test_an_adapter_that_would_not_be_trained(
    overrides: tuple[str, ...], name: str, key: str, named: tuple[str, ...]
) -> None:
    """Any of these keys makes verl's trainer take the actor as reference; an engine builds an adapter for its own."""
    (refusal,) = unsupported_settings(composed(*overrides, name=name))
    assert refusal.key == key
    for part in named:
        assert part in refusal.sentence


@pytest.mark.parametrize("key", ["ulysses_sequence_parallel_size", "fsdp_config.ulysses_sequence_parallel_size"])
def test_sequence_parallelism_without_flash_attention(key: str) -> None:
    config = composed(f"actor_rollout_ref.actor.{key}=2", f"+{MODEL}.override_config.attn_implementation=sdpa")
    found = {refusal.key: refusal.sentence for refusal in unsupported_settings(config)}
    assert "attn_implementation=sdpa" in found[f"actor_rollout_ref.actor.{key}"]


@pytest.mark.parametrize("section", ["override_config", "override_config.model_config"])
def test_rope_settings_that_do_not_reach_the_model(section: str) -> None:
    (refusal,) = unsupported_settings(composed(f"+{MODEL}.{section}.rope_theta=40000"))
    assert refusal.key == f"{MODEL}.{section}.rope_theta"
    assert "config.json" in refusal.sentence


def test_distillation_that_leaves_the_reward_out() -> None:
    settings = ("distillation.enabled=true", "distillation.distillation_loss.use_task_rewards=false")
    with pytest.raises(UnsupportedSettingError, match=r"use_task_rewards=false.*not trained on"):
        refuse_unsupported_settings(composed(*settings))
    refuse_unsupported_settings(composed("method=grpo", *settings))


def test_a_model_whose_rows_are_more_than_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before data and workers are looked at; verl makes a processor for such a model."""

    def read(processor: object, *overrides: str) -> None:
        trainer = object.__new__(ISPOTrainerSync)
        trainer.config, trainer.prompt_choice = composed(*overrides), None
        trainer.method = method_of(trainer.config.algorithm.adv_estimator)
        monkeypatch.setattr(
            "verl.trainer.ppo.v1.trainer_base.PPOTrainer._init_tokenizer",
            lambda self: setattr(self, "processor", processor),
        )
        trainer._init_tokenizer()

    with pytest.raises(UnsupportedSettingError, match=r"model\.path=.*vision"):
        read(object())
    with pytest.raises(UnsupportedSettingError, match=r"model\.path=.*vision"):
        read(object(), "method=grpo_vps", "trainer.v1.ispo.watch_signals=false")
    read(None)
    read(object(), "method=grpo", "trainer.v1.ispo.watch_signals=false")


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(UnsupportedSettingError) as caught:
        refuse_unsupported_settings(
            composed("algorithm.rollout_correction.bypass_mode=true", "algorithm.filter_groups.enable=true")
        )
    assert {line.split("=")[0] for line in str(caught.value).splitlines()} == {
        "algorithm.rollout_correction.bypass_mode",
        "algorithm.filter_groups.enable",
    }


@pytest.mark.parametrize("how", ["absent", "null"])
def test_no_reference_policy(how: str) -> None:
    config = composed()
    with open_dict(config):
        if how == "absent":
            del config.actor_rollout_ref.ref
        else:
            config.actor_rollout_ref.ref = None
    with pytest.raises(UnsupportedSettingError, match=r"actor_rollout_ref\.ref is missing.*ispo_trainer"):
        refuse_unsupported_settings(config)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (("algorithm.adv_estimator=gpro",), ("algorithm.adv_estimator=gpro", "grpo", "rloo")),
        (("actor_rollout_ref.actor.policy_loss.loss_mode=gsop",), ("loss_mode=gsop", "gspo")),
        (("method=grpo_s", "actor_rollout_ref.actor.policy_loss.loss_mode=vanilla"), ("adv_estimator", "loss_mode")),
        (("method=grpo", "actor_rollout_ref.actor.policy_loss.loss_mode=grpo_s"), ("adv_estimator", "loss_mode")),
        (("method=gtpo", "algorithm.adv_estimator=grpo"), ("adv_estimator=grpo", "algorithm.gtpo", "method=gtpo")),
        (("method=prepo", "algorithm.filter_groups.enable=true"), ("adv_estimator=prepo", "filter_groups.enable")),
        (("method=prepo", "trainer.v1.trainer_mode=ispo_colocate_async"), ("trainer_mode", "ispo_sync")),
        (("algorithm.filter_groups.enable=true",), ("filter_groups.enable", "all_wrong_groups")),
        (
            ("method=ispo_off", "algorithm.filter_groups.enable=true"),
            ("filter_groups.enable", "algorithm.ispo.all_right_groups"),
        ),
        (("method=ispo_no_std", "algorithm.ispo.min_group_std=0.1"), ("norm_adv_by_std_in_grpo", "min_group_std")),
        (
            ("method=ispo_reference_std", "algorithm.norm_adv_by_std_in_grpo=false"),
            ("norm_adv_by_std_in_grpo", "same_outcome_std"),
        ),
        (("method=dapo", "data.max_response_length=512"), ("overlong_buffer_cfg.len=819", "max_response_length=512")),
    ],
)
def test_unknown_names_and_contradictions_name_the_keys(overrides: tuple[str, ...], named: tuple[str, ...]) -> None:
    with pytest.raises(UnsupportedSettingError) as caught:
        refuse_unsupported_settings(composed(*overrides))
    for part in named:
        assert part in str(caught.value)


def test_a_filter_that_agrees_with_ispo_passes() -> None:
    """Where ISPO is told to learn nothing from groups of one outcome, dropping them is no contradiction."""
    refuse_unsupported_settings(
        composed("method=ispo_off", "algorithm.ispo.all_right_groups=off", "algorithm.filter_groups.enable=true")
    )


def test_what_the_signals_need_is_no_concern_of_a_run_without_them() -> None:
    """GRPO without ISPO's signals may take old log-probs from the rollout engine; an estimator on entropy may not."""
    without = ("trainer.v1.ispo.watch_signals=false", "algorithm.rollout_correction.bypass_mode=true")
    refuse_unsupported_settings(composed("method=grpo", *without))
    for method in ("ispo", "gtpo"):
        with pytest.raises(UnsupportedSettingError, match="entropy"):
            refuse_unsupported_settings(composed(f"method={method}", *without))


def test_a_pass_that_does_not_exist_is_an_error_that_names_those_that_do() -> None:
    merged = composed("trainer.v1.ispo.ablated_pass=merged").trainer.v1.ispo
    assert ISPOTrainerConfig.from_mapping(merged).ablated_pass == "merged"
    with pytest.raises(UnsupportedSettingError, match=r"ablated_pass must be one of .*separate.*merged.*both"):
        refuse_unsupported_settings(composed("trainer.v1.ispo.ablated_pass=both"))
