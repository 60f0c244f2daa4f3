"""Joins the gloo process group; imported in the workers through ``actor_rollout_ref.model.external_lib``.

verl asks torch for the back end ``cpu:gloo,<device>:<backend>``, which on a CPU names one device twice and is refused.
It skips that where a group exists already, and it imports the external library just before. On the driver, which has
no rank, importing this does nothing.
"""

import os

import torch.distributed as dist


def join_gloo_group() -> None:
    """Initialize the default process group from the rank that verl put into the environment, once."""
    has_rank = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    if has_rank and os.environ.get("VERL_PLATFORM", "").lower() == "cpu" and not dist.is_initialized():
        dist.init_process_group("cpu:gloo", rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]))


join_gloo_group()
