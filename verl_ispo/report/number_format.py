"""How numbers look in the page."""

from __future__ import annotations

import math

MISSING = "–"


def show(value: float | None, percent: bool = False) -> str:
    """Four significant digits, or a share in per cent with one decimal; a dash for a value that is not known."""
    if value is None or not math.isfinite(value):
        return MISSING
    if percent:
        return f"{100 * value:.1f} %"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def signed(value: float | None) -> str:
    """Three decimals and a sign; a value that rounds to zero has no sign."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:+.3f}" if abs(value) >= 0.0005 else "0.000"
