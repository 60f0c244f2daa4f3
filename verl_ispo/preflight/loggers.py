"""``trainer.logger``: names that verl's `Tracking` knows, and the packages that they import."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Iterator

from omegaconf import DictConfig

from verl_ispo.preflight.composition import setting
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding

KEY = "trainer.logger"
IMPORTED = {
    "console": None,
    "file": None,
    "wandb": "wandb",
    "tracking": "wandb",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "vemlp_wandb": "volcengine_ml_platform",
    "tensorboard": "tensorboard",
    "clearml": "clearml",
    "trackio": "trackio",
    "rl_insight": "rl_insight",
}
"""verl's loggers, and the module that each imports when the training starts, after the workers are up."""


def given_loggers(config: DictConfig) -> list[str]:
    """The names under ``trainer.logger``, which takes one or a list."""
    value = setting(config, KEY, [])
    return [value] if isinstance(value, str) else [str(name) for name in value]


def name_fault(name: str) -> str | None:
    """What is wrong with a logger's name, and what was meant; `None` if verl knows it."""
    if name in IMPORTED:
        return None
    near = difflib.get_close_matches(name.strip().lower(), IMPORTED, n=1)
    parts = name.replace(",", " ").split()
    if len(parts) > 1 and all(part in IMPORTED for part in parts):
        remedy = f"did you mean {','.join(parts)}?"
    else:
        remedy = f"did you mean {near[0]}?" if near else "leave it out."
    return f"{name!r} is no logger of verl's; {remedy} Known: {', '.join(sorted(IMPORTED))}"


def is_importable(module: str) -> bool:
    """Whether a module is installed here."""
    return importlib.util.find_spec(module) is not None


def package_fault(name: str, is_installed: Callable[[str], bool] = is_importable) -> str | None:
    """The package that a logger lacks, `None` if it lacks none.

    Args:
        name (`str`): of `IMPORTED`; others lack nothing.
        is_installed (`Callable`, *optional*): whether a module is there.
    """
    module = IMPORTED.get(name)
    if module is None or is_installed(module):
        return None
    return f"{name} needs the package {module}, which is not installed; pip install it, or take console,file"


def check_loggers(config: DictConfig) -> Iterator[Finding]:
    """Names; verl asserts them only when everything else has started."""
    names = given_loggers(config)
    faults = [fault for fault in map(name_fault, names) if fault is not None]
    for fault in faults:
        yield Finding(PROBLEM, KEY, fault)
    if not names:
        yield Finding(NOTE, KEY, f"is empty: no metric of the training is kept; set {KEY}=[console,file]")
    elif not faults:
        yield Finding(OK, KEY, ", ".join(names))


def check_logger_packages(config: DictConfig, is_installed: Callable[[str], bool] = is_importable) -> Iterator[Finding]:
    """Packages of the loggers, in this environment by default."""
    for name in given_loggers(config):
        fault = package_fault(name, is_installed)
        if fault is not None:
            yield Finding(PROBLEM, KEY, fault)
