"""The environment of a CPU training's processes."""

from __future__ import annotations

from collections.abc import Mapping

ORDINARY_PRIORITY = {"RAY_worker_niceness": "0"}
"""Ray's default of 15 suits machines that people use; on a CPU it leaves workers almost no time beside other work."""
# several processes with a thread pool each wait for one another
DEFAULTS = {"OMP_NUM_THREADS": "1", "TQ_NUM_THREADS": "1", **ORDINARY_PRIORITY}


def cpu_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment with the CPU as verl's platform, one thread per process, and ordinary priority for workers."""
    own = {name: value for name, value in environment.items() if value or name not in DEFAULTS}
    return {**DEFAULTS, **own, "VERL_PLATFORM": "cpu"}
