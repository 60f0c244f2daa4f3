"""A start by a user whose home folder cannot be written, or is not there, as in a container under any user number.

Ray writes its token there, Hugging Face's datasets the files it reads, engines what they compile. All of them ask an
environment variable first.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from verl_ispo.launch.ray_cluster import has_token, token_path

CACHE_FOLDER = "cache"


def stand_ins(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables for a training on this machine in place of what its home folder cannot take; none where it can.

    Args:
        folder (`Path`): of the run, where caches go instead.
        environment (`Mapping[str, str]`): the training's, whose own values win.
    """
    wanted: dict[str, str] = {}
    if not has_token(environment) and not can_write(token_path(environment)):
        wanted["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # for a Ray of this start alone
    caches, own = folder / CACHE_FOLDER, environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    hub = environment.get("HF_HOME") or f"{own if os.path.isabs(own) else caches}/huggingface"
    if not can_write(f"{own}/any"):
        # models that are in the home's cache are still read from there
        wanted |= {"XDG_CACHE_HOME": str(caches), "TRITON_CACHE_DIR": str(caches / "triton"), "HF_HOME": hub}
    if not can_write(f"{hub}/any"):
        wanted |= {"HF_DATASETS_CACHE": str(caches / "datasets"), "HF_MODULES_CACHE": str(caches / "modules")}
    return {name: value for name, value in wanted.items() if name == "XDG_CACHE_HOME" or not environment.get(name)}


def can_write(file: str) -> bool:
    """Whether a file can be made, with the folders above it; not without a home folder: its path stays relative."""
    folder = os.path.dirname(file)
    while folder and not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return os.path.isabs(folder) and os.access(folder, os.W_OK | os.X_OK)
