"""``verl-ispo methods``: what each preset under ``config/method`` changes, where it is from, how sure, at what cost.

A preset's file says all of this itself: its first comment lines are what the method is, ``How sure:`` and
``Extra cost:``; its keys are all that it changes against GRPO. Read without verl, so that it answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

PRESET_FOLDER = Path(__file__).parent / "config" / "method"
HOW_SURE, EXTRA_COST = "How sure: ", "Extra cost: "


class UnknownMethodError(ValueError):
    """A method that has no preset; the message names the nearest one and lists all."""


@dataclass(frozen=True)
class MethodPreset:
    """One file of ``config/method``.

    Attributes:
        name: as in ``method=name``.
        about: what it is and its source.
        how_sure: where its rule was read.
        extra_cost: beside GRPO's.
        changes: key to value, those of the presets that it builds on included.
    """

    name: str
    about: str
    how_sure: str
    extra_cost: str
    changes: Mapping[str, Any]


def method_names() -> list[str]:
    """All presets: GRPO, then the others by name."""
    return sorted((path.stem for path in PRESET_FOLDER.glob("*.yaml")), key=lambda name: (name != "grpo", name))


def read_preset(name: str) -> MethodPreset:
    """Read one preset.

    Raises:
        UnknownMethodError: if there is none of that name.
    """
    known = method_names()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise UnknownMethodError(f"unknown method {name!r}; did you mean {nearest!r}? Known: {' '.join(known)}")
    about, how_sure, extra_cost = _header(PRESET_FOLDER / f"{name}.yaml")
    return MethodPreset(name, about, how_sure, extra_cost, _changes(name))


def _header(path: Path) -> tuple[str, str, str]:
    """The comment above the first key: free text, then the two lines with a name."""
    parts = {"": "", HOW_SURE: "", EXTRA_COST: ""}
    part = ""
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        if not line.startswith("# "):
            break
        text = line.removeprefix("# ")
        for start in (HOW_SURE, EXTRA_COST):
            if text.startswith(start):
                part, text = start, text.removeprefix(start)
        parts[part] = f"{parts[part]} {text}".strip()
    return parts[""], parts[HOW_SURE], parts[EXTRA_COST]


def _changes(name: str) -> dict[str, Any]:
    """Flat keys of a preset, as Hydra's defaults list lays them over one another."""
    content = OmegaConf.to_container(OmegaConf.load(PRESET_FOLDER / f"{name}.yaml"), resolve=False) or {}
    bases = content.pop("defaults", ["_self_"])
    changes: dict[str, Any] = {}
    for base in bases:
        changes |= _flat(content) if base == "_self_" else _changes(base)
    return changes


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def describe(preset: MethodPreset) -> str:
    """A preset in a few lines."""
    changes = [f"{key}={_as_override(value)}" for key, value in preset.changes.items()]
    return "\n".join(
        [
            preset.name,
            *(textwrap.wrap(preset.about, 110, initial_indent="  ", subsequent_indent="  ")),
            f"  how sure:   {preset.how_sure}",
            f"  extra cost: {preset.extra_cost}",
            *(f"  {'changes:' if not place else ''}".ljust(14) + change for place, change in enumerate(changes)),
        ]
    )


def _as_override(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def add_methods_parser(commands: Any) -> None:
    """Add the subcommand to the parser of ``verl-ispo``."""
    parser = commands.add_parser(
        "methods",
        help="list the method presets: what each changes, source, how sure, extra cost",
        description="Lists the presets for method=NAME: what each changes against GRPO, where its rule is from, how "
        "sure that is, and what it costs beside GRPO. Exits with 2 for a name that there is not.",
        epilog="example: verl-ispo methods ispo_guarded dapo",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--names-only", action="store_true", help="print the names, one a line")


def run_methods(options: argparse.Namespace) -> int:
    """Run the subcommand; returns the exit status."""
    names = options.names or method_names()
    try:
        presets = [read_preset(name) for name in names]
    except UnknownMethodError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(names) if options.names_only else "\n\n".join(map(describe, presets)))
    return 0
