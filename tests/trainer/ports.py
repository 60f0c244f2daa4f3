"""Where ranks of one process group find each other. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import random
import socket


def free_port() -> int:
    """A port of this machine that nobody listens at, below those that the system hands out to whoever asks."""
    for port in random.Random().sample(range(15_000, 32_000), 100):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port between 15000 and 32000")


ON_CPU = {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def rank_environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What verl's worker reads of one rank."""
    return {
        **ON_CPU,
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
