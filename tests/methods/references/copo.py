"""COPO (arXiv 2508.04138) in loops: what the loss reads of a batch, and the blend of two clipped losses."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    rows = zip(batch.grpo_advantage.tolist(), batch.response_mask.tolist(), strict=True)
    return [[value if kept else 0.0 for value, kept in zip(*row, strict=True)] for row in rows]


def loss_columns(batch: MethodBatch, settings: Any) -> dict[str, list[float]]:
    """The global advantage and the local weight of every rollout."""
    groups, masks = batch.groups.ids.tolist(), batch.response_mask.tolist()
    correct, local = batch.correct.tolist(), advantage(batch, settings)
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    entropy, rewards = {}, {}
    for group, rows in members.items():
        texts = [batch.answer_texts[row] for row in rows]
        shares = [texts.count(text) / len(texts) for text in set(texts)]
        entropy[group] = -math.fsum(share * math.log2(share) for share in shares)
        factor = 1.0
        if settings.reward_by_entropy and len(rows) > 1:
            factor = 1 - (1 - 1 / len(rows)) / math.log2(len(rows)) * entropy[group]
        rewards[group] = statistics.fmean(float(correct[row]) for row in rows) * factor
    prompts = {group for group, rows in members.items() if any(sum(masks[row]) for row in rows)}
    known = [rewards[group] for group in prompts]
    whole = dict.fromkeys(members, 0.0)
    if len(known) > 1 and len(set(known)) > 1:
        std = statistics.stdev(known) + 1e-6 if batch.normalize_by_std else 1.0
        whole |= {group: (rewards[group] - statistics.fmean(known)) / std for group in prompts}
    weights = []
    for row, group in enumerate(groups):
        soft = 1 / (1 + math.exp(-settings.sharpness * (entropy[group] - settings.middle_entropy)))
        forced, right = float(any(local[row])), float(correct[row])
        weights.append(
            {
                "only-soft": soft,
                "soft-with-forced": soft * forced,
                "only-forced": forced,
                "soft-with-zero": soft * right,
                "only-zero": right,
                "only-global": 0.0,
                "no-global": 1.0,
            }[settings.mode]
        )
    return {"global_advantage": [whole[group] for group in groups], "local_weight": weights}


def token_loss(batch: LossBatch, settings: Any) -> list[list[float]]:
    names = ("global_advantage", "local_weight")
    whole, weight = (batch.columns[name].tolist() for name in names)
    log_ratio, local, mask = batch.log_ratio.tolist(), batch.advantages.tolist(), batch.response_mask.tolist()

    def clipped(log_r: float, a: float) -> float:
        r = math.exp(log_r)
        loss = max(-a * r, -a * min(max(r, 1 - batch.clip_low), 1 + batch.clip_high))
        return min(loss, -a * batch.dual_clip) if a < 0 else loss

    found = []
    for row, kept_row in enumerate(mask):
        line = []
        for t, kept in enumerate(kept_row):
            w = weight[row][t]
            blend = w * clipped(log_ratio[row][t], local[row][t]) + (1 - w) * clipped(log_ratio[row][t], whole[row][t])
            line.append(blend if kept else 0.0)
        found.append(line)
    return found
