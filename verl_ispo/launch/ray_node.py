"""One node of a Ray cluster, as scripts/ray/ and scripts/slurm/ start it: ``python -m verl_ispo.launch.ray_node head``.

Turns its options into those of ``ray start`` and replaces itself by that command. With ``VERL_PLATFORM=cpu`` sizes are
logical, and workers get ordinary priority.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from verl_ispo.cpu.environment import ORDINARY_PRIORITY
from verl_ispo.launch.launch_arguments import reported
from verl_ispo.launch.option_checks import check_from_one, given, whole_number
from verl_ispo.launch.ray_cluster import check_ray_address, use_token
from verl_ispo.user_error import UserError

LOGICAL_GPUS, LOGICAL_CPUS = 1, 32
WAIT_S = 10.0


class NoHeadError(UserError):
    """The head of the cluster does not answer."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m verl_ispo.launch.ray_node", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    head = kinds.add_parser("head", help="the first node")
    head.add_argument("--port", type=whole_number("PORT"), default=6379, help="of the head (default: %(default)s)")
    head.add_argument("--temp-dir", metavar="FOLDER", help="Ray's logs and sockets; short (default: Ray's, /tmp/ray)")
    worker = kinds.add_parser("worker", help="each other node")
    worker.add_argument("--ray-address", default="", metavar="HOST:PORT", help="of the head")
    worker.add_argument(
        "--tries",
        type=whole_number("TRIES"),
        default=30,
        help="number of attempts, ten seconds apart, while the head does not answer (default: %(default)s)",
    )
    for kind in (head, worker):
        kind.add_argument(
            "--node-ip", metavar="ADDRESS", help="by which the other nodes reach this one (default: Ray's choice)"
        )
        kind.add_argument("--num-gpus", type=whole_number("NUM_GPUS"), metavar="N", help=(
            "GPUs to offer (default: all that Ray sees; with VERL_PLATFORM=cpu 1 logical GPU)"
        ))  # fmt: skip
        kind.add_argument("--num-cpus", type=whole_number("NUM_CPUS"), metavar="N", help=(
            "cores to offer (default: all; with VERL_PLATFORM=cpu 32 logical ones)"
        ))  # fmt: skip
        kind.add_argument("--block", action="store_true", help="stay in the foreground until Ray ends")
    return parser


def ray_start_arguments(options: argparse.Namespace, on_cpu: bool) -> list[str]:
    """Arguments of ``ray``.

    Args:
        options (`argparse.Namespace`): of `build_parser`.
        on_cpu (`bool`): whether the CPU back end is used.

    Raises:
        UserError: an invalid address or number.
    """
    if options.kind == "head":
        check_from_one("PORT", options.port)
        joining = ["--head", f"--port={options.port}"]
    else:
        check_from_one("TRIES", options.tries)
        if options.ray_address in ("", "auto"):
            raise UserError(
                f"RAY_ADDRESS={options.ray_address} (--ray-address): set it to host:port of the head, as "
                "scripts/ray/start_head.sh prints it"
            )
        check_ray_address(options.ray_address)
        _check_node_address(options.node_ip, options.ray_address)
        joining = [f"--address={options.ray_address}"]
    sizes = {
        "node-ip-address": options.node_ip,
        "num-gpus": LOGICAL_GPUS if on_cpu and options.num_gpus is None else options.num_gpus,
        "num-cpus": LOGICAL_CPUS if on_cpu and options.num_cpus is None else options.num_cpus,
        "temp-dir": getattr(options, "temp_dir", None),
    }
    asked = [f"--{name}={value}" for name, value in sizes.items() if value is not None]
    return ["start", *joining, "--disable-usage-stats", *asked, *(["--block"] if options.block else [])]


def _check_node_address(node_ip: str | None, head: str) -> None:
    """Refuse an address of this machine itself for a node whose head is elsewhere: the head would never reach it.

    Raises:
        UserError: such an address.
    """
    if node_ip is not None and is_loopback(node_ip) and not is_loopback(head.rsplit(":", 1)[0]):
        raise UserError(
            f"{given('NODE_IP', node_ip)} is an address by which the head at {head} does not reach this node; set it "
            "to the node's address on the interface between the nodes (ip -4 addr), in a Slurm job with RAY_INTERFACE"
        )


def is_loopback(host: str) -> bool:
    """Whether a host, as it is written, is the machine itself."""
    return host == "localhost" or host.startswith("127.")


def node_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the node's processes, with Ray's token if there is one, without another cluster's address."""
    own = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
    use_token(own)
    return {**ORDINARY_PRIORITY, **own} if own.get("VERL_PLATFORM") == "cpu" else own


def wait_for_head(address: str, tries: int, sleep: Callable[[float], None] = time.sleep) -> None:
    """Return as soon as the head's port answers.

    Raises:
        NoHeadError: it does not answer after `tries` attempts.
    """
    host, port = address.rsplit(":", 1)
    for tried in range(tries):
        if tried:
            sleep(WAIT_S)
        try:
            socket.create_connection((host, int(port)), timeout=WAIT_S).close()
            return
        except OSError:
            continue
    raise NoHeadError(
        f"no answer from {address} after {tries} tries; is the head started, and the port open between the nodes?"
    )


def start_node(options: argparse.Namespace) -> int:
    """Replace this process by ``ray start``."""
    environment = node_environment(os.environ)
    arguments = ray_start_arguments(options, environment.get("VERL_PLATFORM") == "cpu")
    if options.kind == "worker":
        try:
            wait_for_head(options.ray_address, options.tries)
        except NoHeadError as error:
            print(error, file=sys.stderr)
            return 1
    os.execve(sys.executable, [sys.executable, "-m", "ray.scripts.scripts", *arguments], environment)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 2 for a fault in the options, 1 if there is no head."""
    options = build_parser().parse_args(arguments)
    return reported("ray_node", lambda: start_node(options))


if __name__ == "__main__":
    sys.exit(main())
