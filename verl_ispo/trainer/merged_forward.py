"""The rows that score answers anew in the same forward as the rollouts, so that sharded weights are gathered once.

In the batch they are like verl's own padding rows: their response mask is zero, which keeps them out of every metric of
the pass. Ours, as is the choice of one pass or two (``trainer.v1.ispo.ablated_pass``).
"""

from __future__ import annotations

from uuid import uuid4

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta


def put_ablated_rows(batch: KVBatchMeta, rows: TensorDict, data_parallel_size: int) -> tuple[KVBatchMeta, list[str]]:
    """Store the ablated rows beside their rollouts.

    verl cuts a batch into equal contiguous shares, one per data-parallel rank. In each share the ablated rows follow
    the rollouts, so that a micro-batch made by rows holds rows of one kind, and is not padded to the longer one.

    Args:
        batch (`KVBatchMeta`): the rollouts, as balanced between ranks.
        rows (`TensorDict`): of `answer_rows`, one or two for each rollout, each share's together.
        data_parallel_size (`int`): number of shares; divides the batch.

    Returns:
        `tuple[KVBatchMeta, list[str]]`: rollouts and other rows together, and the keys of the other rows in order.
    """
    # The first part of a key is the prompt's id; no prompt has this one, so the replay buffer never touches it.
    uid = f"ablated{uuid4().hex}"
    keys = [f"{uid}_{row}_0" for row in range(len(rows))]
    no_loss = torch.zeros_like(rows["response_mask"])
    fields = rows.clone(recurse=False)
    fields.update(
        {
            "response_mask": no_loss,
            "loss_mask": no_loss,
            # verl compares these with the pass's own where the rollout engine reports them
            "rollout_log_probs": torch.zeros_like(no_loss, dtype=torch.float32),
        }
    )
    lengths = [(len(head), len(tail)) for head, tail in zip(rows["prompts"], rows["responses"], strict=True)]
    tags = [
        {"is_padding": True, "prompt_len": head, "response_len": tail, "seq_len": head + tail} for head, tail in lengths
    ]
    tq.kv_batch_put(keys=keys, partition_id=batch.partition_id, fields=fields, tags=tags)

    together, together_tags = [], []
    for rank in range(data_parallel_size):
        own, extra = (_share(count, rank, data_parallel_size) for count in (len(batch), len(keys)))
        together += batch.keys[own] + keys[extra]
        together_tags += batch.tags[own] + tags[extra]
    # No list of fields: the queue then gives those that all rows have, and the ablated ones have what a forward needs.
    merged = KVBatchMeta(
        keys=together, tags=together_tags, partition_id=batch.partition_id, extra_info=batch.extra_info
    )
    return merged, keys


def _share(count: int, rank: int, data_parallel_size: int) -> slice:
    size = count // data_parallel_size
    return slice(rank * size, (rank + 1) * size)


def take_ablated_log_probs(batch: KVBatchMeta, keys: list[str]) -> torch.Tensor:
    """Fetch what the pass stored for the ablated rows, and remove the rows.

    Returns:
        nested `torch.Tensor`: one log-prob per token of each row's tail, in the order of the keys.
    """
    data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=["old_log_probs"])
    tq.kv_clear(keys=keys, partition_id=batch.partition_id)
    return data["old_log_probs"]
