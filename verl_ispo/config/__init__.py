"""ISPO's settings: the frozen dataclasses that are read, and the Hydra files that users write."""

from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.config.ispo_trainer_config import ISPOTrainerConfig
from verl_ispo.config.section import UnknownISPOKeyError

__all__ = ["ISPOConfig", "ISPOTrainerConfig", "UnknownISPOKeyError"]
