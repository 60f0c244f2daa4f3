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


def check_loggers(config: DictConfig) -> Iterator[Finding]:
    """Names; verl asserts them only when everything else has started."""
    names, known = given_loggers(config), list(IMPORTED)
    if not names:
        yield Finding(NOTE, KEY, f"is empty: no metric of the training is kept; set {KEY}=[console,file]")
    unknown = [name for name in names if name not in known]
    for name in unknown:
        near = difflib.get_close_matches(name.strip().lower(), known, n=1)
        parts = name.replace(",", " ").split()
        if len(parts) > 1 and all(part in known for part in parts):
            remedy = f"did you mean [{','.join(parts)}]"
        else:
            remedy = f"did you mean {near[0]}" if near else "leave it out"
        yield Finding(PROBLEM, KEY, f"{name!r} is no logger of verl's; {remedy}? Known: {', '.join(sorted(known))}")
    if names and not unknown:
        yield Finding(OK, KEY, ", ".join(names))


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def check_logger_packages(config: DictConfig, is_installed: Callable[[str], bool] = _is_installed) -> Iterator[Finding]:
    """Packages of the loggers.

    Args:
        config (`DictConfig`): the composed config.
        is_installed (`Callable`, *optional*): whether a module can be imported; asked of this environment by default.
    """
    for name in given_loggers(config):
        module = IMPORTED.get(name)
        if module is not None and not is_installed(module):
            yield Finding(
                PROBLEM, KEY, f"{name} needs the package {module}, which is not installed; pip install it, or set "
                f"{KEY}=[console,file]"
            )  # fmt: skip
