"""Folders that a training writes to: that they can be made and written before it has trained anything for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from verl_ispo.preflight.composition import setting
from verl_ispo.preflight.finding import OK, PROBLEM, Finding

CHECKPOINTS = "trainer.default_local_dir"
OTHERS = ("trainer.rollout_data_dir", "trainer.validation_data_dir", "trainer.v1.ispo.dump_dir")


def check_output_paths(config: DictConfig) -> Iterator[Finding]:
    """That a path means what it says: verl and Hydra replace neither ``~`` nor ``$HOME``."""
    for key in output_keys(config):
        path = str(setting(config, key))
        if path.startswith("~") or "$" in path:
            sign = "~" if path.startswith("~") else "$"
            yield Finding(
                PROBLEM,
                key,
                f"is {path}, in which nobody replaces {sign}: a folder of that very name would be made in "
                f'{Path.cwd()}. Let the shell do it ({key}="$HOME/..."), or write ${{oc.env:HOME}}',
            )


def check_output_folders(config: DictConfig) -> Iterator[Finding]:
    """That this machine can write there; a folder that is not there yet is made in its nearest parent."""
    for key in output_keys(config):
        folder = Path(str(setting(config, key))).absolute()
        existing = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
        if not existing.is_dir():
            what = "is a file" if existing.exists() else "is a link to nothing"
            yield Finding(PROBLEM, key, f"{folder}: {existing} {what}, and no folder; set another {key}")
        elif not os.access(existing, os.W_OK | os.X_OK):
            yield Finding(
                PROBLEM, key, f"{folder}: {existing} cannot be written by this user; set another {key}, or its rights"
            )
        elif key == CHECKPOINTS:
            yield Finding(OK, key, f"{folder} can be written")


def output_keys(config: DictConfig) -> list[str]:
    """The keys of the folders that this run writes to."""
    saves = setting(config, "trainer.save_freq", -1) > 0
    return [CHECKPOINTS] * saves + [key for key in OTHERS if setting(config, key)]
