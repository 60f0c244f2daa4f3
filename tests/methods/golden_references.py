"""A sample of what the references give on the twenty batches and ten micro-batches, as the golden files keep it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.methods.preset_settings import PresetSettings
from tests.methods.twenty_batches import method_batches, updates

GOLDEN = Path(__file__).parent / "golden" / "references"
ROWS, DIGITS = 5, 6


def golden_sample(preset: PresetSettings) -> dict[str, dict[str, Any]]:
    """Of every batch, for some rows: first and last token's number and the mean over tokens, one if all are equal."""
    reference, settings = preset.reference, preset.settings
    sample = {
        "advantage": {
            title: _sample(reference.advantage(preset.given(batch), settings), batch.response_mask.tolist())
            for title, batch in method_batches(preset.normalize_by_std).items()
        }
    }
    if preset.method.token_loss is not None:
        micro_batches = {title: update.of(preset.method, settings) for title, update in updates().items()}
        sample["token_loss"] = {
            title: _sample(reference.token_loss(batch, settings), batch.response_mask.tolist())
            for title, batch in micro_batches.items()
        }
    return sample


def _sample(rows: Sequence[Sequence[float]], mask: Sequence[Sequence[int]]) -> list[list[float]]:
    written = [row for row, kept in enumerate(mask) if any(kept)]
    chosen = written[:: max(1, -(-len(written) // ROWS))]
    return [_digest([value for value, token in zip(rows[row], mask[row], strict=True) if token]) for row in chosen]


def _digest(values: Sequence[float]) -> list[float]:
    numbers = values[:1] if len(set(values)) == 1 else (values[0], values[-1], sum(values) / len(values))
    # + 0.0 makes -0.0 a 0.0
    return [float(f"{value:.{DIGITS}g}") + 0.0 for value in numbers]
