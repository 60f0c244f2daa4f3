"""Sizes that fit, for the remedies of findings."""

from __future__ import annotations


def nearest_divisor(number: int, near: int) -> int:
    """The largest divisor of `number` that is at most `near`, for remedies."""
    return max(size for size in range(1, max(1, min(near, number)) + 1) if number % size == 0)


def nearest_multiple(step: int, near: int) -> int:
    """The multiple of `step` that is nearest to `near` and above 0, for remedies."""
    return max(1, round(near / step)) * step
