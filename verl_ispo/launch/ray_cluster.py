"""What it takes to join a Ray cluster: its address, its token, and the environment that its processes need."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from verl_ispo.launch.hydra_overrides import quoted
from verl_ispo.launch.option_checks import given
from verl_ispo.user_error import UserError

PASSED_PREFIXES = ("VERL_", "NCCL_", "TQ_", "VLLM_", "SGLANG_")
PASSED_NAMES = ("HF_HOME", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "PYTHONPATH")
ORDINARY_PRIORITY = {"RAY_worker_niceness": "0"}
"""Ray's own 15 is meant for machines where a person works beside it; on a CPU workers starve beside any other work."""


def check_ray_address(address: str) -> None:
    """Refuse what is no ``host:port``; empty is none, and ``auto`` is Ray's word for the cluster of this node.

    Raises:
        UserError: it is a dashboard's or a client's address, or no address.
    """
    if "://" in address:
        raise UserError(
            f"{given('RAY_ADDRESS', address)} is a dashboard's or a client's address; give host:port of the head, as "
            "ray start prints it"
        )
    if address not in ("", "auto") and not re.fullmatch(r"[^/]+:\d+", address):
        raise UserError(
            f"{given('RAY_ADDRESS', address)} is not host:port; set it to the head's, as scripts/ray/start_head.sh "
            "prints it"
        )


def use_token(environment: MutableMapping[str, str]) -> None:
    """Bring Ray's token along where there is one: a head asks for it; other commands of Ray bring it only if told."""
    path = environment.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    if environment.get("RAY_AUTH_TOKEN") or Path(path).exists():
        environment.setdefault("RAY_AUTH_MODE", "token")


def ray_overrides(
    address: str, on_cpu: bool, environment: Mapping[str, str], more_names: Sequence[str] = ()
) -> list[str]:
    """How verl's ``ray.init`` is called.

    Args:
        address (`str`): of a running cluster; empty for a Ray of its own.
        on_cpu (`bool`): whether the CPU back end names logical sizes, which a running cluster does not take.
        environment (`Mapping[str, str]`): what the training would have here. Processes of a running cluster have the
            environment of their ``ray start`` instead, so what counts there is passed on.
        more_names (`Sequence[str]`, *optional*): variables to pass on beside the usual ones.
    """
    if not address:
        # or Ray would join one that somebody has started on this node, or that a killed training has left there
        return ["+ray_kwargs.ray_init.address=local"]
    sizes = ["ray_kwargs.ray_init.num_cpus=null", *(["ray_kwargs.ray_init.num_gpus=null"] if on_cpu else [])]
    passed = [
        name
        for name in sorted(environment)
        if name in more_names or name in PASSED_NAMES or name.startswith(PASSED_PREFIXES)
    ]
    return [
        f"+ray_kwargs.ray_init.address={quoted(address)}",
        *sizes,
        *(passed_variable(name, environment[name]) for name in passed),
    ]


def passed_variable(name: str, value: str) -> str:
    """The override that gives an environment variable to the processes of a running cluster."""
    return f"+ray_kwargs.ray_init.runtime_env.env_vars.{name}={quoted(value)}"
