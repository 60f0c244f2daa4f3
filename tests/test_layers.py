"""The layers: a package imports only from packages below it, imports form no cycle, and most packages need no verl.

Derivation: imports are read from the source, those inside functions and under ``TYPE_CHECKING`` included, so nothing is
imported here. "Package" means a package or module directly in ``verl_ispo``, or a top-level package beside it.

Not exercised: imports by name (``importlib``, Hydra targets); which packages an import loads in the end, which is
tests/signals/test_import_without_verl.py.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

# From the bottom up. A package imports only from the lines above its own.
LAYERS = (
    ("user_error", "atomic_file", "varlen_attention", "end_of_sequence"),
    ("answers", "command_line", "process_lock", "secret_values"),
    ("config",),
    ("signals",),
    ("methods",),
    ("method_presets",),
    ("explained",),
    ("grading", "runs"),
    ("data_prep",),
    ("trainer", "cpu"),
    ("plugin",),
    ("evaluation",),
    ("report",),
    ("probe",),
    ("preflight",),
    ("doctor",),
    ("training_progress", "launch"),
    ("example_runs",),
    ("tiny_task", "real_model"),
    ("cli",),
    ("hydra_plugins",),
)
# The only packages that import verl.
ON_VERL = {"trainer", "cpu", "plugin", "preflight", "doctor", "launch"}
LEVEL_OF = {package: level for level, packages in enumerate(LAYERS) for package in packages}


def module_files() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    files = {}
    for package in ("verl_ispo", "data_prep", "hydra_plugins"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


FILES = module_files()


def imported(module: str) -> Iterator[str]:
    """Dotted names that a module imports, anywhere in it; a relative import is made absolute."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*up, node.module] if node.module else up)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield name if name in FILES else base


def package_of(module: str) -> str | None:
    """The package of a module; `None` for ``verl_ispo/__init__.py``, which only names what it exports."""
    top, *rest = module.split(".")
    return top if top != "verl_ispo" else rest[0] if rest else None


PACKAGES = sorted({package for module in FILES if (package := package_of(module)) is not None})


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_from_below_only(package: str) -> None:
    assert package in LEVEL_OF, f"{package} has no layer yet: add it to LAYERS, above all that it imports"
    upward = [
        f"{module} imports {name}"
        for module in FILES
        if package_of(module) == package
        for name in imported(module)
        if name in FILES and (other := package_of(name)) not in (package, None) and LEVEL_OF[other] >= LEVEL_OF[package]
    ]
    assert not upward


@pytest.mark.parametrize("package", [package for package in PACKAGES if package not in ON_VERL])
def test_a_package_that_needs_no_verl_imports_none(package: str) -> None:
    on_verl = [
        f"{module} imports {name}"
        for module in FILES
        if package_of(module) == package
        for name in imported(module)
        if name.split(".")[0] == "verl"
    ]
    assert not on_verl


def test_imports_form_no_cycle() -> None:
    graph = {module: {name for name in imported(module) if name in FILES} - {module} for module in FILES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as cycle:
        pytest.fail(" -> ".join(cycle.args[1]))


def test_the_reader_of_imports_sees_what_there_is() -> None:
    """Known imports of each kind: absolute, of a module out of its package, relative, inside a function."""
    assert "verl_ispo.signals.composite" in imported("verl_ispo")
    assert "verl_ispo.trainer.refusals" in imported("verl_ispo.preflight.verl_features")
    assert "verl_ispo.grading.comparison_rules" in imported("verl_ispo.grading.symbolic")
    assert "verl_ispo.report.build" in imported("verl_ispo.report.report_arguments")
