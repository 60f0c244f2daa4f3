"""A sample of what the references give on the twenty batches and ten micro-batches, as the golden files keep it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.methods.preset_settings import PresetSettings
from tests.methods.twenty_batches import loss_batches, method_batches

GOLDEN = Path(__file__).parent / "golden" / "references"
ROWS, DIGITS = 5, 6


def golden_sample(preset: PresetSettings) -> dict[str, dict[str, Any]]:
    """Of every batch, for some rows: first and last token's number and the mean over tokens, one if all are equal."""
    state = preset.method.state
    advantages = {
        title: _sample(
            preset.reference.advantage(replace(batch, state=None if state is None else state.kind()), preset.settings),
            batch.response_mask.tolist(),
        )
        for title, batch in method_batches(preset.normalize_by_std).items()
    }
    if preset.method.token_loss is None:
        return {"advantage": advantages}
    losses = {
        title: _sample(preset.reference.token_loss(batch, preset.settings), batch.response_mask.tolist())
        for title, batch in loss_batches().items()
    }
    return {"advantage": advantages, "token_loss": losses}


def _sample(rows: Sequence[Sequence[float]], mask: Sequence[Sequence[int]]) -> list[list[float]]:
    written = [row for row, kept in enumerate(mask) if any(kept)]
    chosen = written[:: max(1, -(-len(written) // ROWS))]
    return [_digest([value for value, token in zip(rows[row], mask[row], strict=True) if token]) for row in chosen]


def _digest(values: Sequence[float]) -> list[float]:
    numbers = values[:1] if len(set(values)) == 1 else (values[0], values[-1], sum(values) / len(values))
    # + 0.0 makes -0.0 a 0.0
    return [float(f"{value:.{DIGITS}g}") + 0.0 for value in numbers]
