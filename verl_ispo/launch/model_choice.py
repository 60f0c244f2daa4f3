"""The model that a user means: a preset's name, its name on the hub, a folder of that name, or any other model.

A preset is a file of ``config/base_model``: the paper's settings for one model (lengths, context, rollout memory).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf

from verl_ispo.launch.option_checks import given
from verl_ispo.preflight.hydra_overrides import quoted
from verl_ispo.user_error import UserError

PRESET_FOLDER = Path(__file__).parents[1] / "config" / "base_model"
MODEL_PATH_KEY = "actor_rollout_ref.model.path"


@dataclass(frozen=True)
class ModelChoice:
    """The model to train or evaluate, and its name.

    Attributes:
        name (`str`): name of folders and experiments: the preset's, or the last part of the model's.
        identity (`str`): the model in a run's run.txt: the preset's name, a folder's full path, or the name on the hub.
        preset (`str`, *optional*): file of ``config/base_model``; `None` for a model without such settings.
        path (`str`, *optional*): folder or hub name of the weights; `None` for the preset's own.
        note (`str`): a sentence on how a preset was found, empty where its own name was given.
    """

    name: str
    identity: str
    preset: str | None
    path: str | None
    note: str = ""

    @property
    def paper_name(self) -> str:
        """What the paper calls it: the last part of a preset's name on the hub."""
        return self.name if self.preset is None else Path(hub_names()[self.preset]).name

    def overrides(self) -> list[str]:
        """The choice as Hydra overrides."""
        chosen = [] if self.preset is None else [f"base_model={self.preset}"]
        return chosen if self.path is None else [*chosen, f"{MODEL_PATH_KEY}={quoted(self.path)}"]


@cache
def hub_names() -> dict[str, str]:
    """Each preset's name on the hub, by the preset's name."""
    return {
        path.stem: str(OmegaConf.select(OmegaConf.load(path), MODEL_PATH_KEY))
        for path in sorted(PRESET_FOLDER.glob("*.yaml"))
    }


def known_models() -> str:
    """The possible values, for error messages."""
    return f"{' '.join(hub_names())}, a folder, or organisation/name of the model hub"


def choose_model(model: str, model_path: str = "") -> ModelChoice:
    """Find the preset and the weights of a model.

    Args:
        model (`str`): a preset's name; its name on the hub, in any case; a folder, which gets the preset of its name
            (``/disk/Qwen2.5-Math-7B``); another folder or ``organisation/name``, which get none.
        model_path (`str`, *optional*): where the weights of a preset are; the hub where it is empty.

    Raises:
        UserError: if it is none of these, or `model_path` does not fit it.
    """
    weights = str(Path(model_path).resolve()) if model_path and Path(model_path).is_dir() else model_path
    if model in hub_names():
        return ModelChoice(model, model, model, weights or None)
    folder = Path(model).resolve() if model and Path(model).is_dir() else None
    if folder is None and not re.fullmatch(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+", model):
        said = given("MODEL", model) + " is not known" if model else "MODEL is not set (--model)"
        raise UserError(f"{said}. Known: {known_models()}")
    name = folder.name if folder else Path(model).name
    preset = _preset_of(name if folder else model)
    if preset is None:
        if model_path:
            raise UserError(
                f"{given('MODEL_PATH', model_path)} needs a preset (MODEL one of: {' '.join(hub_names())}); here "
                "set only MODEL"
            )
        return ModelChoice(name, str(folder or model), None, str(folder or model))
    if folder and model_path and weights != str(folder):
        raise UserError(
            f"{given('MODEL', model)} is a folder of weights, and {given('MODEL_PATH', model_path)} is another; set "
            f"one of them, or MODEL={preset}"
        )
    note = f"{model} has the name of preset {preset} and gets its settings (verl_ispo/config/base_model/{preset}.yaml)"
    return ModelChoice(preset, preset, preset, str(folder) if folder else weights or None, note)


def _preset_of(name: str) -> str | None:
    """The preset of a hub name, or of the last part of one, which is what a local folder is called."""
    for preset, hub_name in hub_names().items():
        if name.casefold() in (hub_name.casefold(), Path(hub_name).name.casefold()):
            return preset
    return None
