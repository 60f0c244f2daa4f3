"""Settings under which ISPO cannot be right are refused before anything starts, by key and remedy.

On real composed configs, since that is what the check reads. Refusals that need a running trainer (NaN, a scorer
without a verdict, several outputs a session) are in test_outcome and in the trainer tests; a stock trainer mode is in
test_advantage.

Not exercised: a Megatron model with experts.
"""

from __future__ import annotations

from functools import cache

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, open_dict

from verl_ispo.config.signal_use import ablated_pass
from verl_ispo.trainer.refusals import UnsupportedSettingError, refuse_unsupported_settings


@cache
def composed(*overrides: str, name: str = "ispo_trainer") -> DictConfig:
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(name, overrides=list(overrides))


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
    ],
)
def test_what_is_right_passes(overrides: tuple[str, ...], name: str) -> None:
    refuse_unsupported_settings(composed(*overrides, name=name))


def test_bypass_mode() -> None:
    with pytest.raises(UnsupportedSettingError, match=r"rollout_correction\.bypass_mode=false") as caught:
        refuse_unsupported_settings(composed("algorithm.rollout_correction.bypass_mode=true"))
    assert "entropy" in str(caught.value)


@pytest.mark.parametrize("mode", ["R2", "R3"])
def test_router_replay(mode: str) -> None:
    config = composed(f"actor_rollout_ref.actor.megatron.router_replay.mode={mode}", name="ispo_megatron_trainer")
    with pytest.raises(UnsupportedSettingError, match=rf"router_replay\.mode={mode}.*disabled"):
        refuse_unsupported_settings(config)


@pytest.mark.parametrize("how", ["absent", "null"])
def test_no_reference_policy(how: str) -> None:
    config = composed().copy()
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
    assert ablated_pass(composed("method=ispo", "trainer.v1.ispo.ablated_pass=merged")) == "merged"
    with pytest.raises(ValueError, match=r"ablated_pass must be one of .*separate.*merged.*both"):
        ablated_pass(composed("method=ispo", "trainer.v1.ispo.ablated_pass=both"))
