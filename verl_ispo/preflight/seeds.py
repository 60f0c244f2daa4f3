"""Seeds: numbers that every random generator of a training takes, which verl checks only where each one is used."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from verl_ispo.preflight.composition import setting
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding

LARGEST = 2**31 - 1
"""numpy takes 32 bits, and vLLM and verl's workers add the number of a replica or a rank to theirs."""
ACTOR = "actor_rollout_ref.actor"
KEYS = (
    "data.seed",
    "actor_rollout_ref.rollout.seed",
    f"{ACTOR}.data_loader_seed",
    f"{ACTOR}.fsdp_config.seed",
    f"{ACTOR}.megatron.seed",
)


def seed_fault(value: object) -> str | None:
    """Why a seed is not valid, `None` if it is."""
    if isinstance(value, bool) or not isinstance(value, int):
        return "is not a whole number"
    return None if 0 <= value <= LARGEST else f"is not from 0 to {LARGEST}"


def check_seeds(config: DictConfig) -> Iterator[Finding]:
    """Data order, rollouts and mini-batches."""
    faulty = False
    for key in KEYS:
        value = setting(config, key)
        fault = None if value is None else seed_fault(value)
        if fault:
            faulty = True
            yield Finding(
                PROBLEM,
                key,
                f"is {value}, which {fault}, as numpy, torch and the rollout engines need; set {key}=1, for example",
            )
    order = setting(config, KEYS[0])
    if order is None and setting(config, "data.shuffle", False):
        yield Finding(NOTE, KEYS[0], f"is null: the order of the data differs between runs; set {KEYS[0]}=1 to repeat")
    elif not faulty:
        yield Finding(OK, "seeds", f"data {order}, rollouts {setting(config, KEYS[1])}")
