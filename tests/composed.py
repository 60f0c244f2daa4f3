"""Configs as verl's main would compose them, each set of overrides composed once and handed out as a copy."""

from __future__ import annotations

import copy
from functools import cache

from omegaconf import DictConfig

from verl_ispo.preflight.composition import compose_config


def composed(*overrides: str, name: str = "ispo_trainer") -> DictConfig:
    """The config of ``--config-name=name overrides``, the caller's to change."""
    return copy.deepcopy(_composed_once(name, overrides))


@cache
def _composed_once(name: str, overrides: tuple[str, ...]) -> DictConfig:
    return compose_config(name, overrides)
