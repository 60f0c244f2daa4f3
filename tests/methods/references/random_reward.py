"""Random reward (arXiv 2506.10947) in loops: GRPO's advantage on a hash of each rollout."""

from __future__ import annotations

import hashlib
import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch

ORDER_IS_PART_OF_THE_RULE = "equal rollouts of a group have their coins in the order of rows"


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    masks, groups = batch.response_mask.tolist(), batch.groups.ids.tolist()
    texts = [
        ",".join(str(token) for token, kept in zip(ids, mask, strict=True) if kept)
        for ids, mask in zip(batch.response_ids.tolist(), masks, strict=True)
    ]
    coins = []
    for row, text in enumerate(texts):
        repeat = sum(groups[other] == groups[row] and texts[other] == text for other in range(row))
        hashed = f"{settings.seed}|{batch.step}|{batch.prompt_keys[row]}|{repeat}|{text}".encode()
        share = int(hashlib.blake2b(hashed, digest_size=8).hexdigest(), 16) / 2**64
        coins.append(1.0 if share < settings.probability else 0.0)
    values = []
    for row, group in enumerate(groups):
        rewards = [coins[other] for other in range(len(groups)) if groups[other] == group]
        if len(rewards) == 1:
            mean, std = 0.0, 1.0
        else:
            mean, std = statistics.fmean(rewards), statistics.stdev(rewards)
        values.append((coins[row] - mean) / (std + 1e-6 if batch.normalize_by_std else 1.0))
    return [[value if kept else 0.0 for kept in mask] for value, mask in zip(values, masks, strict=True)]
