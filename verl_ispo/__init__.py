"""ISPO (Intrinsic Signal Policy Optimization, arXiv 2606.08815) for verl.

The names exported here are the pure maths and need torch alone; verl is touched only by the modules that verl itself
loads through the entry point ``verl_ispo.plugin``. They are imported on first use, so that commands which compute
nothing, such as the launcher, answer at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verl_ispo.config.ispo_config import ISPOConfig
    from verl_ispo.signals.composite import ISPOReward, compute_ispo_reward

__version__ = "0.1.0"

__all__ = ["ISPOConfig", "ISPOReward", "compute_ispo_reward"]

_MODULE_OF = {
    "ISPOConfig": "verl_ispo.config.ispo_config",
    "ISPOReward": "verl_ispo.signals.composite",
    "compute_ispo_reward": "verl_ispo.signals.composite",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
