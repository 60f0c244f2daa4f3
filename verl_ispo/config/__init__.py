"""ISPO's settings: the frozen dataclasses that are read, and the Hydra files that users write."""

from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.config.rollout_dump_config import RolloutDumpConfig, split_ispo_settings
from verl_ispo.config.section import UnknownISPOKeyError

__all__ = ["ISPOConfig", "RolloutDumpConfig", "UnknownISPOKeyError", "split_ispo_settings"]
