"""HAPO (arXiv 2509.16591) in loops: an advantage over tokens; a loss whose clip and advantage follow the entropy."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch

MICRO_BATCH_IS_PART_OF_THE_RULE = "entropies are scaled by the quantile and the extremes of the micro-batch"


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    groups, masks = batch.groups.ids.tolist(), batch.response_mask.tolist()
    scores = [math.fsum(row) for row in batch.rewards.tolist()]
    values = [0.0] * len(masks)
    for group in set(groups):
        rows = [row for row, its in enumerate(groups) if its == group and sum(masks[row])]
        tokens = [scores[row] for row in rows for _ in range(sum(masks[row]))]
        if not tokens or min(tokens) == max(tokens):
            continue
        mean, std = statistics.fmean(tokens), statistics.pstdev(tokens)
        by_token = {row: _divided(scores[row] - mean, std, batch.normalize_by_std) for row in rows}
        if max(map(abs, by_token.values())) >= settings.max_token_advantage:
            own = [scores[row] for row in rows]
            mean, std = statistics.fmean(own), statistics.stdev(own)
            by_token = {row: _divided(scores[row] - mean, std, batch.normalize_by_std) for row in rows}
        for row in rows:
            values[row] = by_token[row]
    return [[value * token for token in mask] for value, mask in zip(values, masks, strict=True)]


def _divided(centred: float, std: float, by_std: bool) -> float:
    return centred / (std + 1e-6) if by_std else centred


def token_loss(batch: LossBatch, settings: Any, point: LossBatch | None = None) -> list[list[float]]:
    masks = batch.response_mask.tolist()
    tokens = [(row, t) for row, mask in enumerate(masks) for t, token in enumerate(mask) if token]
    logs = {place: math.log(max(batch.entropy[place].item(), 1e-8)) for place in tokens}
    middle = sorted(logs.values())[round(settings.entropy_quantile * (len(tokens) - 1))]
    x = {place: value - middle for place, value in logs.items()}
    size = math.sqrt(max(math.fsum(value**2 for value in x.values()) / len(x), 1e-8))
    x = {place: value / size for place, value in x.items()}
    above, below = max(*x.values(), 1e-8), min(*x.values(), -1e-8)
    losses = [[0.0] * len(mask) for mask in masks]
    for row, t in tokens:
        value = x[row, t]
        h = value / above if value > 0 else value / below if settings.reading == "code" else value / abs(below)
        low, high = batch.clip_low, batch.clip_high
        if h > 0:
            high *= 1 + settings.clip_weight * h
        else:
            low *= 1 - settings.clip_weight * h
        at_point = math.exp((point or batch).log_ratio[row, t].item())
        inside = 1 - low / 2 < at_point < 1 + high / 2
        a, ratio = batch.advantages[row, t].item(), math.exp(batch.log_ratio[row, t].item())
        if (h > 0 and not inside) or (h <= 0 and inside):
            a *= 1 + settings.advantage_weight * h
        loss = -min(a * ratio, a * min(max(ratio, 1 - low), 1 + high))
        losses[row][t] = min(loss, -a * batch.dual_clip) if a < 0 else loss
    return losses
