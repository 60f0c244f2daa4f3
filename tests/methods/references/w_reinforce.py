"""PSR, NSR and W-REINFORCE (arXiv 2506.01347) in loops: a correct rollout +w, an incorrect one -w."""

from __future__ import annotations

from typing import Any

from verl_ispo.methods.method import MethodBatch


def advantage(batch: MethodBatch, settings: Any) -> list[list[float]]:
    rows = zip(batch.correct.tolist(), batch.response_mask.tolist(), strict=True)
    weights = {True: settings.correct_weight, False: -settings.incorrect_weight}
    return [[weights[verdict] if kept else 0.0 for kept in mask] for verdict, mask in rows]
