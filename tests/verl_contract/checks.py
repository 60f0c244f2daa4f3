"""The items of ``contract.yaml``, and what a source of verl lacks of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.verl_contract.sources import Sources, called, parameters, texts
from tests.verl_contract.uses import abstract_methods

CONTRACT = Path(__file__).with_name("contract.yaml")
MARK = "# --- found in the source; rewritten by: python -m tests.verl_contract --write ---\n"
# verl's configs that ours are built on, by the kind of the keys that are looked up in them
CONFIG_NAMES = {"keys": "ppo_trainer", "megatron_keys": "ppo_megatron_trainer"}


@dataclass(frozen=True)
class Item:
    """One thing that verl has to have.

    Attributes:
        kind: see the head of ``contract.yaml``.
        what: its name; with `part`, the definition that has to have the part.
        by: files of ``verl_ispo/`` that need it.
        part: of a definition: a string, a call, an argument.
        why: what it is needed for, where the file does not say it.
    """

    kind: str
    what: str
    by: tuple[str, ...]
    part: tuple[str, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.what}" + (f"[{','.join(self.part)}]" if self.part else "")

    @property
    def needed_by(self) -> str:
        """The end of a sentence about it."""
        return f"needed by {', '.join(f'verl_ispo/{file}' for file in self.by)}" + (f", {self.why}" if self.why else "")


def read_contract() -> dict[str, Any]:
    """The list as it is written."""
    return yaml.safe_load(CONTRACT.read_text(encoding="utf-8"))


def items(contract: Mapping[str, Any]) -> Iterator[Item]:
    """The list's items, one for each string of a definition."""
    for kind, found in contract["found"].items():
        if kind == "abstract":
            yield from _abstract_classes(found)
            continue
        for what, by in found.items():
            yield Item(kind, what, tuple(by))
    for entry in contract["by_hand"]:
        own = {"by": tuple(entry["by"]), "why": entry["why"]}
        for text in entry.get("has", ()):
            yield Item("texts", entry["in"], part=(text,), **own)
        for kind in ("calls", "gives", "asks"):
            if kind in entry:
                yield Item(kind, entry["in"], part=tuple(entry[kind]), **own)
        if not {"has", "calls", "gives", "asks"} & set(entry):
            yield Item("attributes", entry["in"], **own)


def _abstract_classes(found: Mapping[str, list[str]]) -> Iterator[Item]:
    """One item for each base class, whose parts are the methods that it asks for."""
    asked: dict[str, list[str]] = {}
    for method in found:
        owner, _, name = method.rpartition(".")
        asked.setdefault(owner, []).append(name)
    for owner, names in asked.items():
        yield Item("abstract", owner, tuple(found[f"{owner}.{names[0]}"]), tuple(names))


def compose_configs(sources: Sources) -> dict[str, dict[str, Any]]:
    """verl's configs, composed from its own YAML files, by the kind of keys that are looked up in them."""
    folder = sources.folders["verl"] / "trainer" / "config"
    with initialize_config_dir(str(folder.resolve()), version_base=None):
        return {kind: OmegaConf.to_container(compose(name)) for kind, name in CONFIG_NAMES.items()}


def has_key(config: Any, key: str) -> bool:
    """Whether a config declares a setting."""
    for name in key.split("."):
        if not isinstance(config, dict) or name not in config:
            return False
        config = config[name]
    return True


def fault(item: Item, sources: Sources, configs: Mapping[str, Any]) -> str | None:
    """One sentence on what is missing, or `None`."""
    lack = _lack(item, sources, configs)
    return lack and f"{lack} ({item.needed_by})"


def _lack(item: Item, sources: Sources, configs: Mapping[str, Any]) -> str | None:
    if item.kind in CONFIG_NAMES:
        known = has_key(configs[item.kind], item.what)
        return None if known else f"{item.what} is no setting of {CONFIG_NAMES[item.kind]} any more"
    if item.kind == "abstract":
        more = sorted(abstract_methods(sources, item.what) - set(item.part))
        return f"{item.what} asks the classes derived from it for {', '.join(more)}" if more else None
    name, _, given = item.what.partition("(")
    found = sources.find(name)
    if found is None:
        return f"{name} is not there"
    takes = parameters(found.node) if found.node is not None else []
    if item.kind == "arguments":
        argument = given.removesuffix("=)")
        known = argument in takes or any(one.startswith("**") for one in takes)
        return None if known else f"{name} takes no argument {argument}, only ({', '.join(takes)})"
    if item.kind == "overrides":
        same = f"{', '.join(takes)})" == given
        return None if same else f"{name} has the parameters ({', '.join(takes)}), no longer ({given}"
    if item.part:
        return _lack_of_part(item, sources, name)
    return None


def _lack_of_part(item: Item, sources: Sources, name: str) -> str | None:
    """What a definition, or a whole module, does not say."""
    found = sources.find(name)
    node = found.node if found.node is not None else sources.tree(found.module)
    if item.kind == "texts":
        said = {
            *texts(node),
            *(part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)),
            *(part.arg for part in ast.walk(node) if isinstance(part, ast.keyword)),
        }
        return None if item.part[0] in said else f"{name} does not name {item.part[0]!r} any more"
    if item.kind == "calls":
        order = [call for call in called(node) if call in item.part]
        order = list(dict.fromkeys(order))
        return None if order == list(item.part) else f"{name} calls {order}, not {list(item.part)} in this order"
    if item.kind == "gives":
        function, *arguments = item.part
        calls = [part for part in ast.walk(node) if isinstance(part, ast.Call) and ast.unparse(part.func) == function]
        given = {keyword.arg for call in calls for keyword in call.keywords}
        changed = sorted(map(str, given ^ set(arguments)))
        return f"{name} gives {function} other arguments: {', '.join(changed)}" if changed else None
    asked = {ast.unparse(call.func.value).rpartition(".")[2] for call in _remote_calls(node)}
    more = sorted(asked - set(item.part))
    return f"{name} asks its servers for {', '.join(more)}" if more else None


def _remote_calls(node: ast.AST) -> list[ast.Call]:
    """Calls of an actor's method, ``server.method.remote(...)``."""
    return [
        part
        for part in ast.walk(node)
        if isinstance(part, ast.Call)
        and isinstance(part.func, ast.Attribute)
        and part.func.attr == "remote"
        and ast.unparse(part.func.value).startswith("server.")
    ]
