"""What this package uses of verl and TransferQueue, found in its source.

Found: imported names and attributes of imported modules and classes; arguments given by name; methods of verl's classes
that ours override, with their signatures; abstract methods; attributes of ``self`` in classes derived from verl's, and
of parameters annotated with one; settings in YAML files, in strings that are a setting's whole key, and as attributes
of ``config``.

Not found, and therefore in the list by hand: attributes of what those attributes hold, fields of a batch, the order of
calls.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.verl_contract.sources import Function, Sources, absolute, parameters
from verl_ispo.methods.registry import methods

FOREIGN = ("verl", "transfer_queue")
# Sections of a training's config that are this package's.
OURS = ("trainer.v1.ispo", *(f"algorithm.{name}" for name in methods()))
# Mappings that take any key: an engine's, a model's, Ray's. Only that they exist is verl's affair.
FREE = (
    "actor_rollout_ref.actor.fsdp_config.mixed_precision",
    "actor_rollout_ref.actor.megatron.override_transformer_config",
    "actor_rollout_ref.model.override_config",
    "actor_rollout_ref.ref.fsdp_config.mixed_precision",
    "actor_rollout_ref.rollout.engine_kwargs.vllm",
    "ray_kwargs.ray_init",
    "reward.custom_reward_function.reward_kwargs",
)
# Strings that only look like a setting: a file of a checkpoint, and the plugins' entry-point group.
NO_SETTING, NO_MODULE = ("data.pt",), ("verl.plugins",)


@dataclass
class Uses:
    """Each used thing with the files that use it, by kind; see the head of ``contract.yaml``."""

    sources: Sources
    sections: frozenset[str]
    found: dict[str, dict[str, set[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))

    def place(self, module: str) -> str:
        """The file of a module of this package."""
        return str(self.sources.file(module).relative_to(self.sources.folders["verl_ispo"]))

    def add(self, kind: str, what: str, module: str) -> None:
        """Note a use."""
        self.found[kind][what].add(self.place(module))

    def add_key(self, key: str, place: str) -> None:
        """Note a setting, unless it is this package's own."""
        if key in NO_SETTING or any(f"{key}.".startswith(f"{own}.") for own in OURS):
            return
        free = [section for section in FREE if key.startswith(f"{section}.")]
        self.found["keys"][free[0] if free else key].add(place)


def uses_of_package(sections: frozenset[str], sources: Sources) -> dict[str, dict[str, set[str]]]:
    """Everything that is found in the package, by kind and name, with files relative to ``verl_ispo/``.

    Args:
        sections (`frozenset[str]`): top-level sections of verl's config.
        sources (`Sources`): of ``verl_ispo`` and of what it uses.
    """
    uses = Uses(sources, sections)
    package = sources.folders["verl_ispo"]
    for module in sources.modules("verl_ispo"):
        _uses_of_module(uses, module)
    for path in sorted((package / "config").rglob("*.yaml")):
        for key in _leaves(yaml.safe_load(path.read_text(encoding="utf-8")) or {}):
            if key.split(".")[0] in sections:
                uses.add_key(key, str(path.relative_to(package)))
    return uses.found


def _leaves(section: Any, before: str = "") -> Iterator[str]:
    if isinstance(section, dict) and section:
        for name, value in section.items():
            yield from _leaves(value, f"{before}.{name}" if before else str(name))
    else:
        yield before


def _uses_of_module(uses: Uses, module: str) -> None:
    nodes = uses.sources.nodes(module)
    names = _imports(uses, module, nodes)
    for name in names.values():
        if uses.sources.file(name) is None:
            uses.add("names", name, module)
    _uses_of_names(uses, module, nodes, names)
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            _uses_of_class(uses, module, node)
        elif isinstance(node, Function):
            _uses_of_arguments(uses, module, node, names)
    _names_in_texts(uses, module, nodes)
    _keys_of_module(uses, module, nodes)


def _names_in_texts(uses: Uses, module: str, nodes: list[ast.AST]) -> None:
    """Modules that are started or loaded by their name."""
    for node in nodes:
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if re.fullmatch(r"verl(\.[a-zA-Z_0-9]+)+", text) and text not in NO_MODULE:
            uses.add("names", text, module)


def _imports(uses: Uses, module: str, nodes: list[ast.AST]) -> dict[str, str]:
    """What is imported from verl and TransferQueue anywhere in a module: local name to dotted name."""
    names = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            base = absolute(node, module, uses.sources.file(module))
            names.update({alias.asname or alias.name: f"{base}.{alias.name}" for alias in node.names})
        elif isinstance(node, ast.Import):
            names.update({alias.asname or alias.name: alias.name for alias in node.names})
    return {name: dotted for name, dotted in names.items() if dotted.split(".")[0] in FOREIGN}


def _dotted(node: ast.AST, names: dict[str, str]) -> str | None:
    """The dotted name of an expression that begins with an imported name."""
    written = ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""
    for name, dotted in names.items():
        if written == name or written.startswith(f"{name}."):
            return dotted + written[len(name) :]
    return None


def _uses_of_names(uses: Uses, module: str, nodes: list[ast.AST], names: dict[str, str]) -> None:
    """Attributes of imported modules and classes, and arguments that are given to them by name."""
    for node in nodes if names else ():
        if isinstance(node, ast.Attribute) and (dotted := _dotted(node, names)):
            owner, _, attribute = dotted.rpartition(".")
            if uses.sources.file(owner) is not None and uses.sources.file(dotted) is None:
                uses.add("names", dotted, module)
            elif isinstance(getattr(uses.sources.find(owner), "node", None), ast.ClassDef):
                uses.add("attributes", f"{owner}.{attribute}", module)
        elif isinstance(node, ast.Call) and (dotted := _dotted(node.func, names)):
            for keyword in node.keywords:
                if keyword.arg is not None:
                    uses.add("arguments", f"{dotted}({keyword.arg}=)", module)


def _foreign_bases(uses: Uses, dotted: str) -> list[str]:
    return [base for base in uses.sources.bases(dotted) if base.split(".")[0] in FOREIGN]


def _uses_of_class(uses: Uses, module: str, node: ast.ClassDef) -> None:
    """What a class of ours overrides, implements and reads of the verl class that it is derived from."""
    sources, own = uses.sources, f"{module}.{node.name}"
    foreign = _foreign_bases(uses, own)
    if not foreign:
        return
    theirs = foreign[0]
    for part in node.body:
        original = sources.member(theirs, part.name) if isinstance(part, Function) else None
        if original is not None and isinstance(original.node, Function):
            uses.add("overrides", f"{theirs}.{part.name}({', '.join(parameters(original.node))})", module)
    asked = sorted(abstract_methods(sources, theirs))
    if asked and all(_is_ours(sources, own, name) for name in asked):
        for name in asked:
            uses.add("abstract", f"{theirs}.{name}", module)
    for attribute in _attributes_of(node, {"self"}):
        original = sources.member(theirs, attribute)
        if original and not (isinstance(original.node, Function) and _is_ours(sources, own, attribute)):
            uses.add("attributes", f"{theirs}.{attribute}", module)


def _is_ours(sources: Sources, dotted: str, name: str) -> bool:
    return sources.member(dotted, name).module.split(".")[0] not in FOREIGN


def abstract_methods(sources: Sources, dotted: str) -> set[str]:
    """Methods that a class leaves to those derived from it."""
    found = {}
    for one in sources.bases(dotted):
        module, _, name = one.rpartition(".")
        for part in sources.top_level(module)[name].body:
            if isinstance(part, Function):
                marks = [ast.unparse(mark).rpartition(".")[2] for mark in part.decorator_list]
                found.setdefault(part.name, "abstractmethod" in marks)
    return {name for name, is_abstract in found.items() if is_abstract}


def _attributes_of(node: ast.AST, owners: set[str]) -> set[str]:
    return {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id in owners
    }


def _uses_of_arguments(uses: Uses, module: str, node: ast.AST, names: dict[str, str]) -> None:
    """Attributes of parameters that are annotated with a class of verl's."""
    for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        written = ast.unparse(one.annotation).removesuffix(" | None") if one.annotation else ""
        dotted = names.get(written)
        if dotted is not None and uses.sources.bases(dotted):
            for attribute in _attributes_of(node, {one.arg}):
                uses.add("attributes", f"{dotted}.{attribute}", module)


def _keys_of_module(uses: Uses, module: str, nodes: list[ast.AST]) -> None:
    """Settings that a module names or reads."""
    place = uses.place(module)
    key = re.compile(rf"\+*((?:{'|'.join(sorted(uses.sections))})(?:\.[a-z_0-9]+)+)(?:=.*)?", re.DOTALL)
    for node in nodes:
        if isinstance(node, (ast.Constant, ast.JoinedStr)):
            text = _text(uses, module, node)
            if text is not None and (match := key.fullmatch(text)):
                uses.add_key(match[1], place)
    for node in nodes:
        if isinstance(node, Function):
            for path in _paths_read(node):
                if path[0] in uses.sections and len(path) > 1:
                    uses.add_key(".".join(path), place)


def _text(uses: Uses, module: str, node: ast.AST) -> str | None:
    """The text of a string, of an f-string of constants, or of a constant of this package."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = [
            _text(uses, module, part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values
        ]
        return None if None in parts else "".join(parts)
    if not isinstance(node, ast.Name):
        return None
    found = uses.sources.find(f"{module}.{node.id}")
    if found is None or not isinstance(found.node, ast.Assign):
        return None
    target, value = found.node.targets[0], found.node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        value = dict(zip((part.id for part in target.elts), value.elts, strict=True))[node.id]
    return _text(uses, found.module, value)


def _paths_read(function: ast.AST) -> Iterator[tuple[str, ...]]:
    """The settings that a function reads as attributes of ``config``, also through names for its sections."""
    aliases: dict[str, tuple[str, ...]] = {"config": (), "own": ()}
    nodes = list(ast.walk(function))
    if not any(_name_of(node) in ("config", "own") for node in nodes):
        return

    def path_of(node: ast.AST) -> tuple[str, ...] | None:
        if isinstance(node, ast.Name):
            return aliases.get(node.id)
        if isinstance(node, ast.Attribute):
            if node.attr == "config" and isinstance(node.value, ast.Name):
                return ()
            before = path_of(node.value)
            return None if before is None else (*before, node.attr)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            before = path_of(node.func.value)
            name = node.args[0] if node.args else None
            if before is not None and isinstance(name, ast.Constant) and isinstance(name.value, str):
                return (*before, name.value)
        return None

    assignments = [node for node in nodes if isinstance(node, ast.Assign)]
    for node in sorted(assignments, key=lambda one: one.lineno):
        target = node.targets[0]
        if isinstance(target, ast.Name) and (path := path_of(node.value)):
            aliases[target.id] = path
    inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    inner |= {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        if isinstance(node, (ast.Attribute, ast.Call)) and id(node) not in inner and (path := path_of(node)):
            yield path


def _name_of(node: ast.AST) -> str:
    """The name that a node reads, or the attribute."""
    return getattr(node, "id", None) or getattr(node, "attr", None) or ""
