"""Waits until a Ray cluster has as many nodes and GPUs as a training will request.

python scripts/ray/wait_for_nodes.py --address node1:6379 --nodes 4 --gpus 32

Exit status: 0 all have joined; 1 some are missing after --timeout-s, or Ray refuses this node (the message says why).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verl_ispo.launch.ray_cluster import use_token


def joined(nodes: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Nodes that are alive, and their GPUs."""
    alive = [node for node in nodes if node["Alive"]]
    return len(alive), int(sum(node["Resources"].get("GPU", 0) for node in alive))


def wait(
    look: Callable[[], Sequence[Mapping[str, Any]]],
    nodes: int,
    gpus: int,
    timeout_s: float,
    *,
    poll_s: float = 2.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str | None:
    """Look until all are there.

    Args:
        look (`Callable`): returns what `ray.nodes()` does.
        nodes (`int`): nodes to wait for.
        gpus (`int`): GPUs of all of them.
        timeout_s (`float`): how long.

    Returns:
        `str` or `None`: what is missing after ``timeout_s``, `None` if nothing is.
    """
    end = clock() + timeout_s
    seen: tuple[int, int] | None = None
    while True:
        found = joined(look())
        if found != seen:
            print(f"{found[0]} of {nodes} nodes, {found[1]} of {gpus} GPUs", flush=True)
            seen = found
        if found[0] >= nodes and found[1] >= gpus:
            return None
        if clock() >= end:
            return f"{found[0]} of {nodes} nodes and {found[1]} of {gpus} GPUs after {timeout_s:.0f} s"
        sleep(poll_s)


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", required=True, help="host:port of the head")
    parser.add_argument("--nodes", type=int, required=True, help="nodes to wait for, the head among them")
    parser.add_argument("--gpus", type=int, required=True, help="GPUs of all of them together")
    parser.add_argument("--timeout-s", type=float, default=600.0, help="how long to wait (default: %(default)s)")
    options = parser.parse_args()
    use_token(os.environ)
    import ray

    end = time.monotonic() + options.timeout_s
    while True:
        try:
            ray.init(address=options.address, log_to_driver=False, logging_level="ERROR")
            break
        except ConnectionError as error:
            if "InvalidAuthToken" in str(error.__cause__):
                print(
                    f"{options.address}: its Ray has another token than this node: copy the head's ~/.ray/auth_token, "
                    "or set RAY_AUTH_MODE=disabled before ray start on every node",
                    file=sys.stderr,
                )
                return 1
            if time.monotonic() >= end:
                print(f"{options.address}: no Ray there after {options.timeout_s:.0f} s ({error})", file=sys.stderr)
                return 1
            time.sleep(2.0)
    missing = wait(ray.nodes, options.nodes, options.gpus, end - time.monotonic())
    ray.shutdown()
    if missing is not None:
        print(f"{options.address}: {missing}; see the logs of ray start on the other nodes", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
