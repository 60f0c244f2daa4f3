"""Reads the source of a package: where a name is defined, what a class has, which parameters a function takes.

Nothing is imported, so the source of another version can be read, whatever it would need.

Not followed: names made at run time (``setattr``, ``__getattr__``), and base classes outside of the packages given.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
Function = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Found:
    """A definition.

    Attributes:
        module: dotted name of the module that has it.
        node: `None` for a module, or for a name from outside of the packages.
    """

    module: str
    node: ast.AST | None


class Sources:
    """Packages, each in a folder.

    Args:
        folders (`dict[str, Path]`): of each package by its name, for example ``{"verl": Path("/src/verl/verl")}``.
    """

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders
        self._modules: dict[str, dict[str, ast.AST] | None] = {}
        self._trees: dict[str, ast.Module] = {}
        self._nodes: dict[str, list[ast.AST]] = {}
        self._own_members: dict[tuple[str, str], dict[str, ast.AST]] = {}

    def file(self, module: str) -> Path | None:
        """The file of a module, or `None`."""
        package, *rest = module.split(".")
        if package not in self.folders:
            return None
        path = self.folders[package].joinpath(*rest)
        for candidate in (path.with_suffix(".py") if rest else path, path / "__init__.py"):
            if candidate.is_file():
                return candidate
        return None

    def tree(self, module: str) -> ast.Module:
        """The syntax tree of a module that is there."""
        if module not in self._trees:
            self._trees[module] = ast.parse(self.file(module).read_text(encoding="utf-8"))
        return self._trees[module]

    def nodes(self, module: str) -> list[ast.AST]:
        """All nodes of a module."""
        if module not in self._nodes:
            self._nodes[module] = list(ast.walk(self.tree(module)))
        return self._nodes[module]

    def top_level(self, module: str) -> dict[str, ast.AST]:
        """What a module binds at its top level, also under ``if`` and ``try``, by name; the last binding counts."""
        if module not in self._modules:
            self._modules[module] = dict(_bindings(self.tree(module).body))
        return self._modules[module]

    def find(self, dotted: str) -> Found | None:
        """The definition behind a dotted name, through re-exports; `None` where there is none."""
        return self._find(dotted, frozenset())

    def _find(self, dotted: str, asked: frozenset[str]) -> Found | None:
        if dotted in asked:
            return None
        if self.file(dotted) is not None:
            return Found(dotted, None)
        parent, _, name = dotted.rpartition(".")
        if not parent:
            return None
        owner = self._find(parent, asked | {dotted})
        if owner is None:
            return None
        if isinstance(owner.node, ast.ClassDef):
            return self.member(parent, name)
        if owner.node is not None or self.file(owner.module) is None:
            return None
        node = self.top_level(owner.module).get(name)
        if node is None:
            return self._find_starred(owner.module, name, asked | {dotted})
        if isinstance(node, ast.ImportFrom):
            base = absolute(node, owner.module, self.file(owner.module))
            original = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
            target = f"{base}.{original}"
            return self._find(target, asked | {dotted}) if base.split(".")[0] in self.folders else Found(target, None)
        return Found(owner.module, node)

    def _find_starred(self, module: str, name: str, asked: frozenset[str]) -> Found | None:
        """A name that a module gets from ``from ... import *``."""
        for statement in self.tree(module).body:
            if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
                base = absolute(statement, module, self.file(module))
                found = self._find(f"{base}.{name}", asked)
                if found is not None:
                    return found
        return None

    def bases(self, dotted: str) -> list[str]:
        """A class and its base classes by dotted name, nearest first; those outside of the packages are left out."""
        found = self.find(dotted)
        if found is None or not isinstance(found.node, ast.ClassDef):
            return []
        names = [f"{found.module}.{found.node.name}"]
        for base in found.node.bases:
            names += self.bases(f"{found.module}.{ast.unparse(base)}")
        return list(dict.fromkeys(names))

    def member(self, dotted: str, name: str) -> Found | None:
        """A method or attribute of a class or of a class that it is derived from: ``self.name = ...`` counts."""
        for one in self.bases(dotted):
            module, _, class_name = one.rpartition(".")
            node = self._members(module, class_name).get(name)
            if node is not None:
                return Found(module, node)
        return None

    def _members(self, module: str, class_name: str) -> dict[str, ast.AST]:
        if (module, class_name) in self._own_members:
            return self._own_members[module, class_name]
        owner = self.top_level(module)[class_name]
        members: dict[str, ast.AST] = {}
        for node in ast.walk(owner):
            is_set = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            if is_set and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "instance"):
                members.setdefault(node.attr, node)
        self._own_members[module, class_name] = {**members, **dict(_bindings(owner.body))}
        return self._own_members[module, class_name]

    def modules(self, package: str) -> list[str]:
        """Every module of a package, by dotted name."""
        folder = self.folders[package]
        return [
            ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
            for path in sorted(folder.rglob("*.py"))
        ]


def installed(*packages: str) -> Sources:
    """The sources of packages of this environment."""
    return Sources({name: Path(find_spec(name).submodule_search_locations[0]) for name in packages})


def absolute(node: ast.ImportFrom, module: str, file: Path) -> str:
    """The dotted name of the module that ``from ... import`` reads."""
    if not node.level:
        return node.module
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    up = package[: len(package) - node.level + 1]
    return ".".join([*up, node.module] if node.module else up)


def parameters(node: ast.AST) -> list[str]:
    """Names of a function's parameters, ``*args`` and ``**kwargs`` with their stars; of a class those of its fields
    or of ``__init__``."""
    if isinstance(node, ast.ClassDef):
        init = dict(_bindings(node.body)).get("__init__")
        if init is not None:
            return parameters(init)[1:]
        return [part.target.id for part in node.body if isinstance(part, ast.AnnAssign)]
    if not isinstance(node, Function):
        return []
    given = node.args
    return [
        *(one.arg for one in (*given.posonlyargs, *given.args)),
        *([f"*{given.vararg.arg}"] if given.vararg else []),
        *(one.arg for one in given.kwonlyargs),
        *([f"**{given.kwarg.arg}"] if given.kwarg else []),
    ]


def texts(node: ast.AST) -> list[str]:
    """The strings of a piece of source; an f-string as it is written."""
    return [
        part.value if isinstance(part, ast.Constant) else ast.unparse(part)[2:-1]
        for part in ast.walk(node)
        if isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and isinstance(part.value, str))
    ]


def called(node: ast.AST) -> list[str]:
    """Names of the methods and functions that a piece of source calls, in the order of its lines."""
    calls = [part for part in ast.walk(node) if isinstance(part, ast.Call)]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    return [
        call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
        for call in calls
        if isinstance(call.func, (ast.Attribute, ast.Name))
    ]


def _bindings(body: list[ast.stmt]) -> list[tuple[str, ast.AST]]:
    found: list[tuple[str, ast.AST]] = []
    for statement in body:
        if isinstance(statement, (*Function, ast.ClassDef)):
            found.append((statement.name, statement))
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                parts = target.elts if isinstance(target, ast.Tuple) else [target]
                found += [(part.id, statement) for part in parts if isinstance(part, ast.Name)]
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found.append((statement.target.id, statement))
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            found += [(alias.asname or alias.name, statement) for alias in statement.names]
        elif isinstance(statement, (ast.If, ast.Try, ast.With)):
            blocks = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
            blocks += [handler.body for handler in getattr(statement, "handlers", [])]
            found += [binding for block in blocks for binding in _bindings(block)]
    return found
