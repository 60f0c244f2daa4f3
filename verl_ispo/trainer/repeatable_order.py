"""Rows of a batch in an order that a second run repeats (``trainer.v1.ispo.repeatable_order``; ours)."""

from __future__ import annotations

import hashlib

from transfer_queue import KVBatchMeta

from verl_ispo.trainer.step_batch import fetch


def repeatable_order(batch: KVBatchMeta) -> list[int]:
    """Row indices in an order that depends on prompts and sample numbers alone, not on verl's random ids or on arrival.

    Sorted by a hash of the prompt, so that neighbours in the data set do not end up in one mini-batch.
    """
    prompts = fetch(batch, ["prompts"])["prompts"].unbind()
    digests = [hashlib.blake2b(str(prompt.tolist()).encode(), digest_size=8).digest() for prompt in prompts]
    numbers = [tuple(int(part) for part in key.rsplit("_", 2)[1:]) for key in batch.keys]
    return sorted(range(len(prompts)), key=lambda row: (digests[row], *numbers[row]))
