"""How the page turns the values of a metric into one number."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


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
