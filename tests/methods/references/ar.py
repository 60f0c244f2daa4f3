"""Advantage reweighting (arXiv 2505.12929) in loops: GRPO's advantage times a p + 1 - a."""

from __future__ import annotations

import math
from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    rows = zip(batch.grpo_advantage.tolist(), batch.log_prob.tolist(), batch.response_mask.tolist(), strict=True)
    return [
        [
            value * (settings.alpha * math.exp(log_prob) + 1 - settings.alpha) if kept else 0.0
            for value, log_prob, kept in zip(*row, strict=True)
        ]
        for row in rows
    ]
