"""D3S (arXiv 2509.22115) in loops: rollouts by the variance of A, of each prompt and of the step; tokens by |A| H."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    """GRPO's, of all rollouts."""
    rows = zip(batch.grpo_advantage.tolist(), batch.response_mask.tolist(), strict=True)
    return [[a * token for a, token in zip(*row, strict=True)] for row in rows]


def keeps(batch: MethodBatch, settings: Any) -> list[list[bool]]:
    masks, groups = batch.response_mask.tolist(), batch.groups.ids.tolist()
    progress = (batch.step - 1) / (batch.total_steps - 1) if batch.total_steps > 1 else 0.0

    def share(name: str) -> float:
        initial, final = (getattr(settings, f"{when}_{name}_share") for when in ("initial", "final"))
        return initial + progress * (final - initial)

    scores = [math.fsum(row) for row in batch.rewards.tolist()]
    a = {}
    for row, group in enumerate(groups):
        own = [score for score, its in zip(scores, groups, strict=True) if its == group]
        mean, std = (statistics.fmean(own), statistics.stdev(own)) if len(own) > 1 else (0.0, 1.0)
        a[row] = (scores[row] - mean) / (std + 1e-6) if batch.normalize_by_std else scores[row] - mean
    written = {row: [t for t, token in enumerate(mask) if token] for row, mask in enumerate(masks)}
    entropies = {row: {t: batch.entropy[row, t].item() for t in places} for row, places in written.items()}
    unsure = {row: statistics.fmean(own.values()) for row, own in entropies.items() if own}
    kept = []
    for group in sorted(set(groups)):
        rows = [row for row, its in enumerate(groups) if its == group and written[row]]
        if rows:
            kept += _chosen(rows, a, unsure, min(len(rows), max(2, _part(len(rows), share("prompt")))))
    kept = _chosen(sorted(kept), a, unsure, _part(len(kept), share("batch"))) if kept else []
    score = {(row, t): round(abs(a[row]) * h, 9) for row in kept for t, h in entropies[row].items()}
    least = sorted(score.values(), reverse=True)[_part(len(score), share("token")) - 1] if score else 0.0
    return [[(row, t) in score and score[row, t] >= least for t in range(len(mask))] for row, mask in enumerate(masks)]


def _part(count: int, share: float) -> int:
    return max(1, math.ceil(count * share - 1e-9))


def _chosen(rows: list[int], a: dict[int, float], unsure: dict[int, float], number: int) -> list[int]:
    """Every split into largest and smallest is tried."""
    values = {row: round(a[row], 9) for row in rows}
    order = sorted(rows, key=lambda row: (-values[row], -unsure[row] if values[row] > 0 else unsure[row]))
    splits = [order[:k] + order[len(order) - number + k :] for k in range(number + 1)]
    variances = [statistics.pvariance([values[row] for row in split]) for split in splits]
    return next(split for split, v in zip(splits, variances, strict=True) if v >= max(variances) - 1e-9)
