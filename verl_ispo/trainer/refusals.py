"""Settings under which ISPO cannot be right, refused before anything starts."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf


class UnsupportedSettingError(ValueError):
    """A setting that contradicts ISPO; the message names the key and the remedy."""


def refuse_unsupported_settings(config: DictConfig) -> None:
    """Raise `UnsupportedSettingError` for what would train something else than ISPO without saying so."""

    def setting(key: str) -> object:
        return OmegaConf.select(config, key, default=None)

    if setting("algorithm.rollout_correction.bypass_mode"):
        raise UnsupportedSettingError(
            "algorithm.rollout_correction.bypass_mode=true takes old log-probs from the rollout engine and computes no "
            "entropy, which ISPO's entropy filter needs. Set algorithm.rollout_correction.bypass_mode=false."
        )
    strategy = setting("actor_rollout_ref.actor.strategy")
    # Megatron and VeOmni have router replay, under the same key of their own section.
    router_replay_key = f"actor_rollout_ref.actor.{strategy}.router_replay.mode"
    if setting(router_replay_key) not in (None, "disabled"):
        raise UnsupportedSettingError(
            f"{router_replay_key}={setting(router_replay_key)} records or replays expert routes row by row, and the "
            "trace-ablated rows have none. Set it to disabled."
        )
    if setting("actor_rollout_ref.ref") is None:
        raise UnsupportedSettingError(
            "actor_rollout_ref.ref is missing: ISPO's drift filter compares the policy with the frozen base model. "
            "Compose from ispo_trainer or ispo_megatron_trainer, which bring it."
        )
