"""A checked dataclass from one section of verl's config: unknown keys and values out of range are errors."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

SectionT = TypeVar("SectionT")

# Keys that have moved, so that a command written for an earlier version is told the new name.
MOVED_KEYS = {f"algorithm.ispo.{name}": f"trainer.v1.ispo.{name}" for name in ("dump_dir", "dump_every", "dump_groups")}


class UnknownISPOKeyError(TypeError, ValueError):
    """A key that a section does not know. A TypeError as for an unknown keyword, a ValueError as for a bad setting."""


def from_section(cls: type[SectionT], section: str, settings: Mapping[str, Any] | None) -> SectionT:
    """Build a dataclass from a mapping such as Hydra's ``algorithm.gtpo``; `None` gives the defaults.

    Raises:
        UnknownISPOKeyError: a key that is no field; the message names the nearest one.
    """
    given = {str(key): value for key, value in (settings or {}).items()}
    refuse_unknown_keys(given, [field.name for field in fields(cls)], section)
    return cls(**given)


def refuse_unknown_keys(settings: Iterable[str], known: Sequence[str], section: str) -> None:
    """Raise `UnknownISPOKeyError` for the first key that is not known, naming the nearest one that is."""
    for key in settings:
        refuse_moved_key(f"{section}.{key}")
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise UnknownISPOKeyError(
                f"unknown setting {key!r} (under {section}); did you mean {nearest!r}? Known: {list(known)}"
            )


def refuse_moved_key(key: str) -> None:
    """Raise `UnknownISPOKeyError` for a dotted key of an earlier version, with its new name."""
    if key in MOVED_KEYS:
        raise UnknownISPOKeyError(f"{key} has moved: set {MOVED_KEYS[key]} instead")


def check_number(
    key: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    """Raise `ValueError`, naming key (with its section), value and range, unless it is a finite number within it."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    in_range = is_number and math.isfinite(value) and low <= value <= high
    at_open_end = in_range and ((low_open and value == low) or (high_open and value == high))
    if not in_range or at_open_end:
        bracket = "(" if low_open or low == -math.inf else "["
        closing = ")" if high_open or high == math.inf else "]"
        raise ValueError(f"{key} must be a number in {bracket}{low}, {high}{closing}, got {value!r}")


def check_whole_number(key: str, value: Any, low: int = 0) -> None:
    """Raise `ValueError`, naming key (with its section) and value, unless it is a whole number of at least ``low``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{key} must be a whole number from {low}, got {value!r}")


def check_text(key: str, value: Any, may_be_empty: bool = False) -> None:
    """Raise `ValueError`, naming key (with its section) and value, unless the value is a text."""
    if not isinstance(value, str) or not (value or may_be_empty):
        raise ValueError(f"{key} must be a text{'' if may_be_empty else ' that is not empty'}, got {value!r}")


def check_choice(key: str, value: Any, choices: Sequence[str]) -> None:
    """Raise `ValueError`, naming key (with its section), value and choices, unless the value is one of them."""
    if value not in choices:
        raise ValueError(f"{key} must be one of {list(choices)}, got {value!r}")
