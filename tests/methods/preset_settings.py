"""What a preset makes of a method of the registry: its settings and verl's switch, read from its file."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tests.methods.references import reference_of
from verl_ispo.method_presets import method_names, read_preset
from verl_ispo.methods.method import Method
from verl_ispo.methods.registry import method_of


@dataclass(frozen=True)
class PresetSettings:
    """One preset of a method that has a reference.

    Attributes:
        method: of the registry.
        settings: of ``algorithm.<method>``, checked.
        normalize_by_std: verl's ``norm_adv_by_std_in_grpo``.
        reference: the method's module under tests/methods/references.
    """

    method: Method
    settings: Any
    normalize_by_std: bool
    reference: ModuleType


def presets_with_reference() -> dict[str, PresetSettings]:
    """All presets whose estimator is a method with a reference, by name."""
    found = {}
    for name in method_names():
        changes = read_preset(name).changes
        method = method_of(changes.get("algorithm.adv_estimator"))
        reference = None if method is None else reference_of(method.name)
        if reference is not None:
            section = f"algorithm.{method.name}."
            own = {key.removeprefix(section): value for key, value in changes.items() if key.startswith(section)}
            by_std = bool(changes.get("algorithm.norm_adv_by_std_in_grpo", True))
            found[name] = PresetSettings(method, method.read_settings(own), by_std, reference)
    return found
