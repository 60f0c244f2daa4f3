"""What verl's trainer reads from its queue and writes to it, seen on the way (ours).

verl's own hooks move nearly all fields that ISPO needs through the driver: entropies and old log-probs when it cuts
them to the responses, and the rest when it computes the advantage. To fetch them again, and to store rewards that verl
then fetches, took longer than everything that is computed from them: the queue takes some 40 microseconds per rollout
and field. So ISPO looks at verl's own traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transfer_queue
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import trainer_base

from verl_ispo.trainer.forward_rows import nested_rows

OnRead = Callable[[Sequence[str], TensorDict], None]
OnWrite = Callable[[Sequence[str], TensorDict], None]


@dataclass(frozen=True)
class _TappedQueue:
    """verl's queue with two functions that see what is read and what is written, with the keys of the rows."""

    on_read: OnRead | None
    on_write: OnWrite | None

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str] | None = None) -> TensorDict:
        data = transfer_queue.kv_batch_get(keys=keys, partition_id=partition_id, select_fields=select_fields)
        if self.on_read is not None:
            self.on_read(keys, data)
        return data

    def kv_batch_put(self, keys: list[str], partition_id: str, **given: Any) -> KVBatchMeta:
        if self.on_write is not None and given.get("fields") is not None:
            self.on_write(keys, given["fields"])
        return transfer_queue.kv_batch_put(keys=keys, partition_id=partition_id, **given)

    def __getattr__(self, name: str) -> Any:
        return getattr(transfer_queue, name)


@contextmanager
def tapped_queue(on_read: OnRead | None = None, on_write: OnWrite | None = None) -> Iterator[None]:
    """Inside the block, verl's trainer reads and writes through these functions.

    Args:
        on_read (`Callable`, *optional*): gets the keys and what was read of them; may change fields.
        on_write (`Callable`, *optional*): gets the keys and what is about to be written for them.
    """
    before = trainer_base.tq
    trainer_base.tq = _TappedQueue(on_read, on_write)
    try:
        yield
    finally:
        trainer_base.tq = before


class KeptFields:
    """Fields that were written, kept for a reader in the same step.

    Args:
        names (`Sequence[str]`): nested fields to keep.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._kept: dict[str, tuple[Sequence[str], torch.Tensor]] = {}

    def keep(self, keys: Sequence[str], fields: TensorDict) -> None:
        """Keep what is written of the names; for `tapped_queue`."""
        for name in self._names:
            if name in fields.keys():  # noqa: SIM118 - a TensorDict iterates over rows
                self._kept[name] = (list(keys), fields[name])

    def of(self, keys: Sequence[str], name: str) -> torch.Tensor | None:
        """A field of some of the rows that were written together, in the order of `keys`; `None` if it was not."""
        if name not in self._kept:
            return None
        written, field = self._kept[name]
        if written == list(keys):
            return field
        row_of, rows = {key: row for row, key in enumerate(written)}, field.unbind()
        chosen = [rows[row_of[key]] for key in keys]
        return nested_rows(torch.cat(chosen), torch.tensor([len(row) for row in chosen]))
