"""Checks that most options need.

An option's variable in the scripts is its name in capitals: ``--gpus-per-node`` is ``GPUS_PER_NODE``. Messages name
both, as ``GPUS_PER_NODE=x (--gpus-per-node)``, since a user may know only one of them.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence

from verl_ispo.user_error import UserError


def option_of(variable: str) -> str:
    """The option of a variable: ``TRAIN_TP`` is ``--train-tp``."""
    return "--" + variable.lower().replace("_", "-")


def given(variable: str, value: object) -> str:
    """A value with both names of its option, for the start of a message."""
    return f"{variable}={value} ({option_of(variable)})"


def check_choice(variable: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value that is not known.

    Raises:
        UserError: names the nearest known value and all known values.
    """
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        meant = f"; did you mean {near[0]}?" if near else "."
        raise UserError(f"{given(variable, value)} is not known{meant} Known: {' '.join(known)}")


def check_from_one(variable: str, value: int) -> None:
    """Refuse a number below 1.

    Raises:
        UserError: it is 0 or negative.
    """
    if value < 1:
        raise UserError(f"{given(variable, value)} is not a whole number from 1; set for instance {variable}=1")


def whole_number(variable: str) -> Callable[[str], int]:
    """A type for argparse: a whole number, whose error names the variable too."""

    def convert(text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{variable}={text} is not a whole number from 1; set for instance {variable}=1"
            ) from None

    return convert
