"""Settings under which ISPO cannot be right, refused before anything starts."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY

from verl_ispo.config.signal_use import observes_signals

# Estimators that take more than rewards (`BatchSignals`); their settings lie under algorithm.<name>.
SIGNAL_ESTIMATORS = ("gtpo", "grpo_s", "prepo", "progrpo")


class UnsupportedSettingError(ValueError):
    """A setting that contradicts ISPO; the message names the key and the remedy."""


def refuse_unsupported_settings(config: DictConfig) -> None:
    """Raise `UnsupportedSettingError` for what would train something else than is asked for without saying so."""

    def setting(key: str) -> object:
        return OmegaConf.select(config, key, default=None)

    needs_signals = observes_signals(config)
    needs_entropy = needs_signals or setting("algorithm.adv_estimator") in SIGNAL_ESTIMATORS
    if needs_entropy and setting("algorithm.rollout_correction.bypass_mode"):
        raise UnsupportedSettingError(
            "algorithm.rollout_correction.bypass_mode=true takes old log-probs from the rollout engine and computes no "
            "entropy, which ISPO's entropy filter needs. Set algorithm.rollout_correction.bypass_mode=false."
        )
    strategy = setting("actor_rollout_ref.actor.strategy")
    # Megatron and VeOmni have router replay, under the same key of their own section.
    router_replay_key = f"actor_rollout_ref.actor.{strategy}.router_replay.mode"
    if needs_signals and setting(router_replay_key) not in (None, "disabled"):
        raise UnsupportedSettingError(
            f"{router_replay_key}={setting(router_replay_key)} records or replays expert routes row by row, and the "
            "trace-ablated rows have none. Set it to disabled."
        )
    if needs_signals and setting("actor_rollout_ref.ref") is None:
        raise UnsupportedSettingError(
            "actor_rollout_ref.ref is missing: ISPO's drift filter compares the policy with the frozen base model. "
            "Compose from ispo_trainer or ispo_megatron_trainer, which bring it."
        )
    _refuse_unknown_names(str(setting("algorithm.adv_estimator")), str(_loss_mode(config)))
    _refuse_contradictions(config)


def _loss_mode(config: DictConfig) -> object:
    return OmegaConf.select(config, "actor_rollout_ref.actor.policy_loss.loss_mode", default=None)


def _refuse_unknown_names(estimator: str, loss_mode: str) -> None:
    """verl looks both up at the first update, after the first rollouts."""
    for key, name, registry in (
        ("algorithm.adv_estimator", estimator, ADV_ESTIMATOR_REGISTRY),
        ("actor_rollout_ref.actor.policy_loss.loss_mode", loss_mode, POLICY_LOSS_REGISTRY),
    ):
        if name not in registry:
            known = ", ".join(sorted(str(getattr(one, "value", one)) for one in registry))
            raise UnsupportedSettingError(
                f"{key}={name} is not known. Known: {known}. The presets that set it are listed by: verl-ispo methods"
            )


def _refuse_contradictions(config: DictConfig) -> None:
    """Pairs of settings of which one makes the other void, or its opposite."""

    def setting(key: str) -> object:
        return OmegaConf.select(config, key, default=None)

    def contradict(first: str, second: str, why: str, remedy: str) -> None:
        raise UnsupportedSettingError(
            f"{first}={setting(first)} and {second}={setting(second)} contradict each other: {why}. {remedy}"
        )

    estimator, loss_mode = setting("algorithm.adv_estimator"), _loss_mode(config)
    estimator_key, loss_key = "algorithm.adv_estimator", "actor_rollout_ref.actor.policy_loss.loss_mode"
    if (estimator == "grpo_s") != (loss_mode == "grpo_s"):
        contradict(
            estimator_key,
            loss_key,
            "GRPO-S is the advantage and the ratio of the whole sequence together",
            "Set both, as method=grpo_s does, or neither.",
        )
    for name in SIGNAL_ESTIMATORS:
        if setting(f"algorithm.{name}") is not None and estimator != name:
            contradict(
                estimator_key,
                f"algorithm.{name}",
                f"only adv_estimator={name} reads that section",
                f"Set method={name}, or leave the section out.",
            )

    filter_key = "algorithm.filter_groups.enable"
    if estimator == "prepo" and setting(filter_key):
        contradict(
            estimator_key,
            filter_key,
            "PREPO chooses a step's prompts beforehand, and refilled ones would not be chosen",
            f"Set {filter_key}=false.",
        )
    mode_key = "trainer.v1.trainer_mode"
    if estimator == "prepo" and setting(mode_key) not in ("ispo_sync", None):
        contradict(
            estimator_key,
            mode_key,
            "PREPO scores a step's candidates with the policy that answers them, which asynchronous modes do not have",
            f"Set {mode_key}=ispo_sync.",
        )
    if estimator == "ispo":
        for group_key in ("algorithm.ispo.all_wrong_groups", "algorithm.ispo.all_right_groups"):
            if setting(filter_key) and setting(group_key) != "off":
                contradict(
                    filter_key,
                    group_key,
                    "the filter throws away the groups of equal outcome that ISPO is to learn from",
                    f"Set {filter_key}=false, or both algorithm.ispo.all_wrong_groups and all_right_groups to off.",
                )
        std_key = "algorithm.norm_adv_by_std_in_grpo"
        if setting(std_key) is False:
            for scale_key, off in (("algorithm.ispo.min_group_std", 0), ("algorithm.ispo.same_outcome_std", "own")):
                if setting(scale_key) not in (off, None):
                    contradict(
                        std_key,
                        scale_key,
                        "without the division there is no std to change",
                        f"Set {std_key}=true or {scale_key}={off}.",
                    )

    buffer_key, length_key = "reward.reward_kwargs.overlong_buffer_cfg.len", "data.max_response_length"
    if setting("reward.reward_kwargs.overlong_buffer_cfg.enable"):
        buffer_length, response_length = setting(buffer_key), setting(length_key)
        if not 0 < buffer_length <= response_length:
            contradict(
                buffer_key,
                length_key,
                "DAPO's length penalty begins that many tokens before the end of the response",
                f"Set {buffer_key} to a fifth of it ({max(1, response_length // 5)}).",
            )
