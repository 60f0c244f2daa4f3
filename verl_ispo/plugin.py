"""Loaded by verl (entry-point group ``verl.plugins``) in every process that imports it.

Takes over the launcher's secrets where this process has another environment, then registers, and nothing else.

verl swallows an exception here at DEBUG level, so ``verl-ispo doctor`` checks the registrations on the driver and in a
Ray worker.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from verl_ispo.secret_values import load_secrets

if TYPE_CHECKING:
    from verl.workers.rollout.replica import RolloutReplica

# Importing these registers what they define, through verl's decorators. The platform comes first: verl looks it up
# while the modules of the others are being imported.
REGISTERING_MODULES = [
    "verl_ispo.cpu.platform",  # platform "cpu", which only VERL_PLATFORM=cpu chooses
    "verl_ispo.trainer.method_adapter",  # advantage estimators and policy losses of verl_ispo.methods
    "verl_ispo.trainer.modes",  # trainer modes "ispo_sync", "ispo_colocate_async", "ispo_separate_async"
    "verl_ispo.cpu.rollout_seed",  # agent loop "ispo_seeded_single_turn"
]
if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
    REGISTERING_MODULES.append("verl_ispo.cpu.engine")  # FSDP2 on the CPU


def _register_cpu_rollout() -> None:
    from verl.workers.rollout.base import _ROLLOUT_REGISTRY  # verl has no public way to add to this table
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    RolloutReplicaRegistry.register("cpu", _load_cpu_replica)
    _ROLLOUT_REGISTRY[("cpu", "async")] = "verl_ispo.cpu.rollout.CPURollout"


def _load_cpu_replica() -> type[RolloutReplica]:
    from verl_ispo.cpu.rollout import CPURolloutReplica

    return CPURolloutReplica


load_secrets(os.environ)
for _module in REGISTERING_MODULES:
    importlib.import_module(_module)
_register_cpu_rollout()
