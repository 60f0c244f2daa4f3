"""What each preset under ``config/method`` changes, where it is from, what it needs and costs.

A preset's file says most of this itself: its first comment lines are what the method is, ``Source:``, ``Extra cost:``
and, for a method of the paper's table, the name of its row; its keys are all that it changes against GRPO. What it
needs of a batch is in the registry of methods. Read without verl, so that it answers at once.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from verl_ispo.user_error import UserError

PRESET_FOLDER = Path(__file__).parent / "config" / "method"
SHARED = Path(__file__).parent / "config" / "ispo_training.yaml"
SOURCE, EXTRA_COST, PAPER_ROW = "Source: ", "Extra cost: ", "Row of the paper's table: "


class UnknownMethodError(UserError):
    """A method that has no preset; the message names the nearest one and lists all."""


@dataclass(frozen=True)
class MethodPreset:
    """One file of ``config/method``.

    Attributes:
        name: as in ``method=name``.
        about: what it is, with the paper's arXiv number.
        source: where its rule was read.
        extra_cost: beside GRPO's.
        table_name: its row in the paper's table, or the preset's own name.
        needs: what the method reads of a batch beyond rewards, in words; empty for verl's own methods.
        changes: key to value, including those of the presets that it builds on.
    """

    name: str
    about: str
    source: str
    extra_cost: str
    table_name: str
    needs: Sequence[str]
    changes: Mapping[str, Any]


def method_names() -> list[str]:
    """All presets: GRPO, then the others by name."""
    return sorted((path.stem for path in PRESET_FOLDER.glob("*.yaml")), key=lambda name: (name != "grpo", name))


def paper_methods() -> list[str]:
    """The presets that have a row of their own in the paper's table."""
    return [name for name in method_names() if _header(PRESET_FOLDER / f"{name}.yaml")[PAPER_ROW]]


def table_name(method: str) -> str:
    """The paper's name of a method, which matches its rows with ours; the method's own where the paper has none."""
    return (_header(PRESET_FOLDER / f"{method}.yaml")[PAPER_ROW] or method) if method in method_names() else method


def read_preset(name: str) -> MethodPreset:
    """Read one preset.

    Raises:
        UnknownMethodError: if there is none of that name.
    """
    known = method_names()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise UnknownMethodError(f"unknown method {name!r}; did you mean {nearest!r}? Known: {' '.join(known)}")
    from verl_ispo.methods.registry import method_of  # imports torch, which the launcher does not need

    header, changes = _header(PRESET_FOLDER / f"{name}.yaml"), _changes(name)
    method = method_of(changes.get("algorithm.adv_estimator"))
    return MethodPreset(
        name=name,
        about=header[""],
        source=header[SOURCE],
        extra_cost=header[EXTRA_COST],
        table_name=header[PAPER_ROW] or name,
        needs=[] if method is None else sorted(need.value for need in method.needs),
        changes=changes,
    )


def _header(path: Path) -> dict[str, str]:
    """The comment above the first key: free text, then the lines with a name."""
    parts = {"": "", SOURCE: "", EXTRA_COST: "", PAPER_ROW: ""}
    part = ""
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        if not line.startswith("# "):
            break
        text = line.removeprefix("# ")
        for start in (SOURCE, EXTRA_COST, PAPER_ROW):
            if text.startswith(start):
                part, text = start, text.removeprefix(start)
        parts[part] = f"{parts[part]} {text}".strip()
    return parts


def _changes(name: str) -> dict[str, Any]:
    """Flat keys of a preset, merged in the order of Hydra's defaults list."""
    content = OmegaConf.to_container(OmegaConf.load(PRESET_FOLDER / f"{name}.yaml"), resolve=False) or {}
    bases = content.pop("defaults", ["_self_"])
    changes: dict[str, Any] = {}
    for base in bases:
        changes |= _flat(content) if base == "_self_" else _changes(base)
    return changes


def method_section(preset: MethodPreset, method: str) -> dict[str, Any]:
    """The keys that a preset sets under ``algorithm.<method>``.

    A value that is another setting (``${data.max_response_length}``) is that setting's in what all methods share.
    """
    start = f"algorithm.{method}."
    keys = [key for key in preset.changes if key.startswith(start)]
    if not any("${" in str(preset.changes[key]) for key in keys):
        return {key.removeprefix(start): preset.changes[key] for key in keys}
    shared = OmegaConf.load(SHARED)
    for key, value in preset.changes.items():
        OmegaConf.update(shared, key, value, force_add=True)
    return {key.removeprefix(start): OmegaConf.select(shared, key) for key in keys}


@dataclass(frozen=True)
class PresetKey:
    """One key that a preset changes.

    Attributes:
        name: dotted.
        value: as it is written.
        comment: above it, or else above its section, or else above the key before it.
    """

    name: str
    value: str
    comment: str


def preset_keys(name: str, with_bases: bool = True) -> list[PresetKey]:
    """The keys of a preset in the order of its file, those of the presets it builds on before them.

    Args:
        name (`str`): of a preset.
        with_bases (`bool`, *optional*, defaults to `True`): `False` gives the file's own keys alone.
    """
    lines = (PRESET_FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    keys: dict[str, PresetKey] = {}
    sections: list[str] = []
    comments: list[str] = []  # of the sections that are open
    comment: list[str] = []
    for line in itertools.dropwhile(lambda line: line.startswith("#"), lines):
        text, depth = line.strip(), (len(line) - len(line.lstrip())) // 2
        if text.startswith("#"):
            comment.append(text.lstrip("# "))
        elif text.startswith("- "):
            base = text.removeprefix("- ")
            keys |= {key.name: key for key in preset_keys(base)} if with_bases and base != "_self_" else {}
        elif text:
            key, _, value = text.partition(":")
            sections = [*sections[:depth], key]
            above = " ".join(comment) or (comments[depth - 1] if depth else "")
            if value.strip():
                above = above or comments[-1]
            comments, comment = [*comments[:depth], above], []
            if value.strip():
                dotted = ".".join(sections)
                keys[dotted] = PresetKey(dotted, _unquoted(value.strip()), comments[-1])
    return list(keys.values())


def _unquoted(value: str) -> str:
    """A value as it is written; without quotes, unless an escape inside needs them."""
    return value if "\\" in value else value.strip("\"'")


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
