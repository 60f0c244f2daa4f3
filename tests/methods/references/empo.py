"""EMPO (arXiv 2504.05812) in loops: the answer's frequency, unless the entropy of the answers is at its highest."""

from __future__ import annotations

import math
import statistics
from typing import Any

from tests.methods.references.majority_vote import plain
from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    masks, groups = batch.response_mask.tolist(), batch.groups.ids.tolist()
    # a rollout without an answer is a cluster of its own
    clusters = [plain(text or "") or f"nothing {row}" for row, text in enumerate(batch.answer_texts)]
    values = []
    for row, group in enumerate(groups):
        members = [other for other in range(len(groups)) if groups[other] == group]
        own = [clusters[other] for other in members]
        frequency = {cluster: own.count(cluster) / len(own) for cluster in own}
        entropy = -math.fsum(share * math.log(share) for share in frequency.values())
        certain = entropy < math.log(len(own)) - 1e-9
        rewards = [frequency[cluster] if certain and not cluster.startswith("nothing ") else 0.0 for cluster in own]
        if len(members) == 1:
            mean, std = 0.0, 1.0
        else:
            mean, std = statistics.fmean(rewards), statistics.stdev(rewards)
        own_reward = rewards[members.index(row)]
        values.append((own_reward - mean) / (std + 1e-6 if batch.normalize_by_std else 1.0))
    return [[value if kept else 0.0 for kept in mask] for value, mask in zip(values, masks, strict=True)]
