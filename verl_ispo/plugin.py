"""Loaded by verl (entry-point group ``verl.plugins``) in every process that imports it; registers, and nothing else.

verl swallows an exception here at DEBUG level, so ``verl-ispo doctor`` checks the registrations on the driver and in a
Ray worker.
"""

import os

from verl.workers.rollout.base import _ROLLOUT_REGISTRY  # verl has no public way to add to this table
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry

import verl_ispo.cpu.platform
import verl_ispo.cpu.rollout_seed  # noqa: F401


def _load_cpu_replica() -> type[RolloutReplica]:
    from verl_ispo.cpu.rollout import CPURolloutReplica

    return CPURolloutReplica


RolloutReplicaRegistry.register("cpu", _load_cpu_replica)
_ROLLOUT_REGISTRY[("cpu", "async")] = "verl_ispo.cpu.rollout.CPURollout"

if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
    import verl_ispo.cpu.engine  # noqa: F401
