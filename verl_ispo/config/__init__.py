"""ISPO's settings: the frozen dataclass that the maths reads, and the Hydra files that users write."""

from verl_ispo.config.ispo_config import ISPOConfig, UnknownISPOKeyError

__all__ = ["ISPOConfig", "UnknownISPOKeyError"]
