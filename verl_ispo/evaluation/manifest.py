"""The manifest of an evaluation: everything that decides its samples, so that a resumed run cannot mix two of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from verl_ispo.atomic_file import write_text
from verl_ispo.user_error import UserError

MANIFEST_NAME = "manifest.json"
FORMAT = 1
PARTIAL_PROMPTS = "partial_prompts"
"""The option by which a folder of ``verl-ispo contamination`` is known: the shares of the questions."""
_FREE = ("labels", "model")
"""Sections that a resumed run may change: names for the table, and the model's path (its digest is in `inputs`)."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a result folder.

    Raises:
        UserError: if there is none, or of another format.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["format"]
    except FileNotFoundError as error:
        raise UserError(f"{folder}: no {MANIFEST_NAME}; give a folder that verl-ispo eval has written") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a manifest ({error}); evaluate into a new folder") from error
    if found != FORMAT:
        raise UserError(f"{path}: format {found}, this version reads {FORMAT}; evaluate again")
    return manifest


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest atomically."""
    write_text(folder / MANIFEST_NAME, json.dumps(manifest, indent=2) + "\n")


def refuse_differences(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse to resume in a folder that was begun with other options.

    Raises:
        UserError: naming each difference, as ``options.n: recorded 4, asked 8``.
    """
    recorded = dict(_leaves({key: value for key, value in read_manifest(folder).items() if key not in _FREE}))
    asked = dict(_leaves({key: value for key, value in manifest.items() if key not in _FREE}))
    differences = [
        f"{name}: recorded {recorded.get(name)!r}, asked {asked.get(name)!r}"
        for name in sorted({*recorded, *asked})
        if recorded.get(name) != asked.get(name)
    ]
    if differences:
        raise UserError(
            f"{folder} holds an evaluation begun with other settings ({'; '.join(differences)}). "
            "Give the recorded ones to resume it, or another --out for a new one"
        )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{key}".lstrip("."))
    else:
        yield name, value
