"""A = 2 R - 1 (arXiv 2605.07689)."""

from __future__ import annotations

from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    return [
        [(1.0 if correct else -1.0) * token for token in mask]
        for correct, mask in zip(batch.correct.tolist(), batch.response_mask.tolist(), strict=True)
    ]
