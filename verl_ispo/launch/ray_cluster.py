"""What is needed to join a Ray cluster: its address, its token, and the environment of its processes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping, Sequence

from verl_ispo.launch.option_checks import given
from verl_ispo.preflight.hydra_overrides import quoted
from verl_ispo.secret_values import RUNTIME_VARIABLES, is_secret, secrets_of
from verl_ispo.user_error import UserError

LOGGER_PREFIXES = ("WANDB_", "SWANLAB_", "MLFLOW_", "TRACKIO_", "CLEARML_")
PASSED_PREFIXES = ("VERL_", "NCCL_", "TQ_", "VLLM_", "SGLANG_", *LOGGER_PREFIXES)
PASSED_NAMES = ("HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN", "OMP_NUM_THREADS", "PYTHONPATH", "TENSORBOARD_DIR")


def check_ray_address(address: str) -> None:
    """Refuse an address that is not ``host:port``, empty (no cluster) or ``auto`` (Ray's word for this node's cluster).

    Raises:
        UserError: it is the address of a dashboard or a client, or not an address.
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
    """Use Ray's token if there is one: a head requires it, and Ray's other commands send it only in token mode."""
    if has_token(environment):
        environment.setdefault("RAY_AUTH_MODE", "token")


def has_token(environment: Mapping[str, str]) -> bool:
    """Whether this user has a token of Ray."""
    # os.path: a user without a home folder, or one who may not look into it, has no token there
    return bool(environment.get("RAY_AUTH_TOKEN")) or os.path.exists(token_path(environment))


def token_path(environment: Mapping[str, str]) -> str:
    """Where Ray keeps it; relative where there is no home folder."""
    return environment.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")


def ray_overrides(
    address: str, on_cpu: bool, environment: Mapping[str, str], more_names: Sequence[str] = ()
) -> list[str]:
    """Overrides for verl's call of ``ray.init``.

    Args:
        address (`str`): of a running cluster; empty to start a Ray on this node.
        on_cpu (`bool`): whether the CPU back end is used; it sets logical sizes, which a running cluster refuses.
        environment (`Mapping[str, str]`): the training's environment on this node. Processes of a running cluster have
            the environment of their ``ray start`` instead, so the relevant variables are passed on, secrets apart
            (`passed_secrets`).
        more_names (`Sequence[str]`, *optional*): variables to pass on beside the usual ones.
    """
    if not address:
        # otherwise Ray would join a cluster that another user or a killed training left running on this node
        return ["+ray_kwargs.ray_init.address=local"]
    sizes = ["ray_kwargs.ray_init.num_cpus=null", *(["ray_kwargs.ray_init.num_gpus=null"] if on_cpu else [])]
    passed = [name for name in passed_names(environment, more_names) if not is_secret(name)]
    return [
        f"+ray_kwargs.ray_init.address={quoted(address)}",
        *sizes,
        *(passed_variable(name, environment[name]) for name in passed),
    ]


def passed_names(environment: Mapping[str, str], more_names: Sequence[str] = ()) -> list[str]:
    """Variables of an environment that the processes of a running cluster get, secrets among them."""
    return [
        name
        for name in sorted(environment)
        if name in more_names or name in PASSED_NAMES or name.startswith(PASSED_PREFIXES)
    ]


def passed_secrets(environment: Mapping[str, str], more_names: Sequence[str] = ()) -> dict[str, str]:
    """Those of them that are secrets, which no override may hold."""
    found = secrets_of(environment)
    return {name: found[name] for name in passed_names(environment, more_names) if name in found}


def passed_variable(name: str, value: str) -> str:
    """The override that gives an environment variable to the processes of a running cluster."""
    return f"+{RUNTIME_VARIABLES}.{name}={quoted(value)}"
