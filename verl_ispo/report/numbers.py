"""How numbers look in the page, and the few ways in which a run is put into one number."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

MISSING = "–"


def show(value: float | None, percent: bool = False) -> str:
    """Four significant digits, or a share in per cent with one decimal; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return MISSING
    if percent:
        return f"{100 * value:.1f} %"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def signed(value: float | None) -> str:
    """Three decimals and a sign; what rounds to zero has none."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:+.3f}" if abs(value) >= 0.0005 else "0.000"


def known(values: Sequence[float]) -> list[float]:
    """The finite ones."""
    return [value for value in values if math.isfinite(value)]


def mean(values: Sequence[float]) -> float | None:
    """Mean of the known values."""
    return statistics.fmean(known(values)) if known(values) else None


def median(values: Sequence[float]) -> float | None:
    """Median of the known values."""
    return statistics.median(known(values)) if known(values) else None


def last_tenth(values: Sequence[float]) -> Sequence[float]:
    """The last tenth of a series, at least one entry."""
    return values[-max(1, len(values) // 10) :]
