"""DCPO (arXiv 2509.02333) in loops: scores against a prompt's history, and PPO's loss with bounds by probability."""

from __future__ import annotations

import math
import statistics
from typing import Any

from verl_ispo.methods.method import LossBatch, MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    """The state's `seen` holds i - 1, M and S of each prompt."""
    groups = batch.groups.ids.tolist()
    scores = [math.fsum(row) for row in batch.rewards.tolist()]
    found = []
    for row, mask in enumerate(batch.response_mask.tolist()):
        group = [score for score, its in zip(scores, groups, strict=True) if its == groups[row]]
        m, s = statistics.fmean(group), statistics.stdev(group) if len(group) > 1 else 0.0
        before, past_mean, past_std = batch.state.seen.get(batch.prompt_keys[row], (0, 0.0, 0.0))
        i = before + 1
        mean = ((i - 1) * past_mean + m) / i
        std = math.sqrt(((i - 1) * past_std**2 + s**2 + (i - 1) / i * (m - past_mean) ** 2) / i)
        if batch.normalize_by_std:
            n = (scores[row] - m) / s if s > 1e-8 else 0.0
            o = (scores[row] - mean) / std if std > 1e-8 else 0.0
        else:
            n, o = scores[row] - m, scores[row] - mean
        u, v = o / i + (1 - 1 / i) * n, n / i + (1 - 1 / i) * o
        value = u if abs(u) < abs(v) else v
        found.append([value if token else 0.0 for token in mask])
    return found


def token_loss(batch: LossBatch, settings: Any) -> list[list[float]]:
    losses = []
    for log_ratios, olds, advantages, mask in zip(
        batch.log_ratio.tolist(),
        batch.old_log_prob.tolist(),
        batch.advantages.tolist(),
        batch.response_mask.tolist(),
        strict=True,
    ):
        losses.append([0.0] * len(mask))
        for position, token in enumerate(mask):
            if not token:
                continue
            a, r, p = advantages[position], math.exp(log_ratios[position]), math.exp(olds[position])
            low = (1 + math.sqrt(max(0.0, 1 - 4 * batch.clip_low / p))) / 2
            high = min((1 + math.sqrt(1 + 4 * batch.clip_high / p)) / 2, settings.max_ratio)
            loss = max(-a * r, -a * min(max(r, low), high))
            losses[-1][position] = min(loss, -a * batch.dual_clip) if a < 0 else loss
    return losses
