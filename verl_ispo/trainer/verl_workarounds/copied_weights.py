"""The weights that verl's separate asynchronous mode puts aside are copies.

Between two syncs of the rollouts verl computes old log-probs with the weights of the last sync: it saves the present
weights, restores the old ones, and restores the present ones after the pass. Under FSDP2 it saves by ``Tensor.cpu()``,
which of weights in CPU memory (``param_offload``, ``offload_policy``, a training on a CPU) is no copy but the same
memory. The old log-probs are then those of the present weights, or restoring the old ones overwrites the present ones
and an update is lost, without an error (https://github.com/verl-project/verl-omni/issues/645).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from verl.experimental.separation.engine_workers import DetachActorWorker

SavedShards = tuple[Mapping[str, tuple[torch.Tensor, Any]], Any]
"""As verl's ``fsdp2_sharded_save_to_cpu`` returns it: shard and its specification by name, and one specification."""


def without_shared_memory(saved: SavedShards, module: torch.nn.Module) -> SavedShards:
    """The saved shards, copied where they are the module's own memory."""
    local = (param._local_tensor if isinstance(param, DTensor) else param for param in module.parameters())
    live = {tensor.untyped_storage().data_ptr() for tensor in local}
    shards, specification = saved
    return {
        name: (shard.clone() if shard.untyped_storage().data_ptr() in live else shard, of_shard)
        for name, (shard, of_shard) in shards.items()
    }, specification


class CopyingActorWorker(DetachActorWorker):
    """verl's worker of the separate asynchronous mode; what it saves shares no memory with the model."""

    @property
    def copy_handler(self) -> Callable[[torch.nn.Module], Any]:
        save = super().copy_handler
        if self.config.actor.strategy not in ("fsdp2", "veomni"):
            return save  # verl's copies
        return lambda module: without_shared_memory(save(module), module)
