"""Whether a run computes ISPO's signals: to train on them, or to log them under another method."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.config.ispo_trainer_config import SECTION


def trains_on_signals(config: DictConfig) -> bool:
    """Whether the composite reward is trained on."""
    return OmegaConf.select(config, "algorithm.adv_estimator") == "ispo"


def observes_signals(config: DictConfig) -> bool:
    """Whether an ISPO trainer mode computes the signals at all (``trainer.v1.ispo.watch_signals``)."""
    return trains_on_signals(config) or bool(OmegaConf.select(config, f"{SECTION}.watch_signals", default=True))


def reads_reference(config: DictConfig) -> bool:
    """Whether ISPO reads the reference policy's log-probs.

    They make the drift filter. Nothing reads that where the token term has no weight and nobody watches: neither
    ``trainer.v1.ispo.watch_signals`` nor a rollout dump.
    """
    if not observes_signals(config):
        return False
    watched = OmegaConf.select(config, f"{SECTION}.watch_signals", default=True)
    dumped = OmegaConf.select(config, f"{SECTION}.dump_dir") is not None
    token_weight = ISPOConfig.from_mapping(OmegaConf.select(config, "algorithm.ispo")).token_weight
    return bool(watched or dumped or token_weight != 0)
