"""ISPO (Intrinsic Signal Policy Optimization, arXiv 2606.08815) for verl.

The names exported here are the pure maths and need torch alone; verl is touched only by the modules that verl itself
loads through the entry point ``verl_ispo.plugin``.
"""

from verl_ispo.config.ispo_config import ISPOConfig
from verl_ispo.signals.composite import ISPOReward, compute_ispo_reward

__version__ = "0.1.0"

__all__ = ["ISPOConfig", "ISPOReward", "compute_ispo_reward"]
