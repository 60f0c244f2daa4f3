"""The environment of the processes that have Megatron; nothing else ever gets it."""

from __future__ import annotations

import os
from pathlib import Path

ON_CPU = Path(__file__).with_name("on_cpu")
MISSING = "needs Megatron in a folder of its own: bash scripts/test.sh megatron"


def megatron_folder() -> Path | None:
    """The folder of scripts/setup_megatron_cpu.sh, if this run is to use one."""
    folder = os.environ.get("MEGATRON_CPU")
    return Path(folder) if folder and Path(folder, "megatron").is_dir() else None


def with_megatron(environment: dict[str, str]) -> dict[str, str]:
    """The same environment with Megatron and the hook that lets it run on a CPU on the path."""
    path = [str(ON_CPU), str(megatron_folder()), environment.get("PYTHONPATH", "")]
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, path)), "MEGATRON_ON_CPU": "1"}
