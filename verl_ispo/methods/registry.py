"""The one list of this project's methods: every module of this package that holds a ``METHOD``."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import verl_ispo.methods
from verl_ispo.methods.method import Method


@cache
def methods() -> dict[str, Method]:
    """All methods by name, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(verl_ispo.methods.__path__))
    modules = [importlib.import_module(f"verl_ispo.methods.{name}") for name in names]
    found = [module.METHOD for module in modules if hasattr(module, "METHOD")]
    return {method.name: method for method in found}


def method_of(estimator: object) -> Method | None:
    """The method behind ``algorithm.adv_estimator``; `None` for verl's own estimators."""
    return methods().get(str(estimator))
