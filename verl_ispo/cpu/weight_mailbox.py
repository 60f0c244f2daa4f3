"""Weight transfer between separate trainer and rollout processes on a CPU, through Ray's object store.

verl's ``separate_async`` mode refuses its in-process transfer, and its other ones (NCCL and the like) need devices.
Choose this one with ``actor_rollout_ref.rollout.checkpoint_engine.backend=ray_mailbox``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import Any

import ray
import torch
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry

BACKEND = "ray_mailbox"


class Mailbox:
    """One transfer: the sender puts buckets of tensors, every receiver reads them all."""

    def __init__(self) -> None:
        self._buckets: list[dict[str, torch.Tensor]] = []
        self._complete = False
        self._changed = asyncio.Condition()

    async def put(self, bucket: dict[str, torch.Tensor], is_last: bool) -> None:
        """Add a bucket."""
        async with self._changed:
            self._buckets.append(bucket)
            self._complete = is_last
            self._changed.notify_all()

    async def get(self, number: int) -> dict[str, torch.Tensor] | None:
        """Bucket ``number``, as soon as it is there; `None` after the last."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._buckets) > number or self._complete)
            return self._buckets[number] if len(self._buckets) > number else None


@CheckpointEngineRegistry.register(BACKEND)
class RayMailboxCheckpointEngine(CheckpointEngine):
    """verl's checkpoint-engine interface over a `Mailbox` actor that lives for one transfer.

    Args:
        bucket_size (`int`): a bucket is sent once it has this many bytes.
        is_master (`bool`, *optional*, defaults to `False`): the trainer rank that sends.
    """

    def __init__(self, bucket_size: int, is_master: bool = False) -> None:
        self.bucket_size = bucket_size
        self.is_master = is_master
        self.mailbox: ray.actor.ActorHandle | None = None

    def prepare(self) -> dict[str, Any]:
        return {"mailbox": ray.remote(Mailbox).options(num_cpus=0).remote()} if self.is_master else {}

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[dict[str, Any]]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        mailbox = next(entry["mailbox"] for entry in metadata if "mailbox" in entry)
        return {"mailbox": [mailbox] * actor_wg_world_size}, {"mailbox": [mailbox] * rollout_world_size}

    def init_process_group(self, mailbox: ray.actor.ActorHandle) -> None:
        self.mailbox = mailbox

    def finalize(self) -> None:
        self.mailbox = None

    async def send_weights(
        self, weights: Generator[tuple[str, torch.Tensor], None, None], global_steps: int | None = None
    ) -> None:
        bucket: dict[str, torch.Tensor] = {}
        filled = 0
        # Every rank runs the generator, which gathers each tensor across ranks; the master alone sends.
        for name, tensor in weights:
            if not self.is_master:
                continue
            bucket[name] = tensor.detach().cpu().clone()
            filled += tensor.numel() * tensor.element_size()
            if filled >= self.bucket_size:
                await self.mailbox.put.remote(bucket, False)
                bucket, filled = {}, 0
        if self.is_master:
            await self.mailbox.put.remote(bucket, True)

    async def receive_weights(self, global_steps: int | None = None) -> AsyncGenerator[tuple[str, torch.Tensor], None]:
        number = 0
        while (bucket := await self.mailbox.get.remote(number)) is not None:
            for item in bucket.items():
                yield item
            number += 1
