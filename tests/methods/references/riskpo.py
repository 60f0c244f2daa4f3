"""RiskPO (arXiv 2510.00911) in loops: bundles by first row, tracked quantiles, the mixed risk measure, its credit."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import MethodBatch

ORDER_IS_PART_OF_THE_RULE = "prompts are bundled by their first row, and the j-th rollouts of a bundle by their rows"


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    masks = batch.response_mask.tolist()
    scores = [math.fsum(row) for row in batch.rewards.tolist()]
    prompts: dict[int, list[int]] = {}
    for row, group in enumerate(batch.groups.ids.tolist()):
        prompts.setdefault(group, []).append(row)
    kept = [rows for rows in prompts.values() if any(sum(masks[row]) for row in rows)]
    size = int(settings.bundle_size)
    bundles = [kept[start : start + size] for start in range(0, len(kept), size)]
    # for each bundle, the rows of each sum
    papers = [list(zip(*bundle, strict=False)) for bundle in bundles]
    sums = [[math.fsum(scores[row] for row in rows) for rows in bundle] for bundle in papers]
    every = sorted(value for bundle in sums for value in bundle)
    values = [0.0] * len(masks)
    if every:
        low, high = _quantiles(batch.state, every, settings)
        of_row = {row: rows for rows in kept for row in rows}
        for bundle_papers, bundle_sums in zip(papers, sums, strict=True):
            std = statistics.stdev(bundle_sums) if len(bundle_sums) > 1 else 1.0
            for rows, total in zip(bundle_papers, bundle_sums, strict=True):
                middle = max(total - low, 0.0) - max(total - high, 0.0)
                middle += low - high if settings.natural_baseline else 0.0
                middle /= settings.alpha_high - settings.alpha_low + 1e-6
                tail = -max(low - total, 0.0) / (settings.alpha_low + 1e-6)
                own = (settings.tail_weight * tail + middle) / (settings.tail_weight + 1)
                own /= std + 1e-6 if batch.normalize_by_std else 1.0
                for row, value in _credited(own, rows, of_row, scores, settings.credit).items():
                    values[row] = value
    return [[value if t else 0.0 for t in mask] for value, mask in zip(values, masks, strict=True)]


def _quantiles(state: Any, every: list[float], settings: Any) -> tuple[float, float]:
    levels = (settings.alpha_low, settings.alpha_high)
    if state is None or state.low is None:
        found = []
        for level in levels:
            place = level * (len(every) - 1)
            below = math.floor(place)
            above = min(below + 1, len(every) - 1)
            found.append(every[below] + (place - below) * (every[above] - every[below]))
        return found[0], found[1]
    moved = [
        quantile + settings.quantile_rate * (level - sum(value < quantile for value in every) / len(every))
        for quantile, level in zip((state.low, state.high), levels, strict=True)
    ]
    return moved[0], moved[1]


def _credited(
    own: float, rows: tuple[int, ...], of_row: dict[int, list[int]], scores: list[float], credit: str
) -> dict[int, float]:
    if credit == "uniform":
        return dict.fromkeys(rows, own)
    if credit == "std":
        found = {}
        for row in rows:
            group = [scores[other] for other in of_row[row]]
            std = statistics.stdev(group) if len(group) > 1 else 0.0
            found[row] = own / ((std if std > 1e-3 else 1.0) + 1e-6)
        return found
    ratios = {row: scores[row] - statistics.fmean(scores[other] for other in of_row[row]) for row in rows}
    total = math.fsum(ratios.values())
    if abs(total) <= 1e-6:
        return {row: own / len(rows) for row in rows}
    return {row: own * ratio / total for row, ratio in ratios.items()}
