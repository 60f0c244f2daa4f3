"""A copy of a model with a longer context: its own config.json, links to all other files.

Trainer, reference, rollout engine (vLLM, SGLang), Megatron's bridge and the evaluation all read a model's config.json;
an override in verl's config reaches only some of them. A model that already has enough positions is used as it is.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from verl_ispo.user_error import UserError


class ContextError(UserError):
    """A model whose context cannot be extended; the message names the file and the remedy."""


def extended_config(config: dict[str, Any], max_position_embeddings: int, rope_theta: float | None) -> dict[str, Any]:
    """The content of config.json with more positions.

    Args:
        config (`dict`): content of the model's own config.json.
        max_position_embeddings (`int`): positions of the copy.
        rope_theta (`float`, *optional*): base frequency of the copy; the model's own where none is given.

    Raises:
        ContextError: if the model already scales its rotary embeddings, so that theta alone does not define them.
    """
    extended = {**config, "max_position_embeddings": max_position_embeddings}
    if rope_theta is None:
        return extended
    parameters = config.get("rope_parameters")
    scaling = config.get("rope_scaling") or parameters or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        raise ContextError(
            f"the model has rope scaling of type {kind!r}, which excludes another rope_theta; remove it "
            "(~actor_rollout_ref.model.override_config.rope_theta), or use the base model"
        )
    if "rope_theta" in config or parameters is None:
        extended["rope_theta"] = rope_theta
    if parameters is not None:  # how transformers 5 writes it
        extended["rope_parameters"] = {**parameters, "rope_theta": rope_theta}
    return extended


def model_folder(model: str, local_only: bool = False) -> Path:
    """The local folder of a model: the given folder, or one from the hub.

    Args:
        model (`str`): folder, or organisation/name of the hub.
        local_only (`bool`, *optional*, defaults to `False`): look only in the hub's cache on this machine.

    Raises:
        ContextError: if there is no such model.
    """
    path = Path(os.path.expanduser(model))
    if path.exists():
        if not (path / "config.json").is_file():
            raise ContextError(f"{path}: no config.json; give a Hugging Face folder or organisation/name of the hub")
        return path.resolve()
    from huggingface_hub import snapshot_download

    try:
        ignored = ["*.pth", "*.gguf", "original/*"]
        return Path(snapshot_download(model, ignore_patterns=ignored, local_files_only=local_only))
    except (OSError, ValueError) as error:  # the hub's own errors are of these two
        raise ContextError(
            f"{model}: no such folder, and the hub does not have it ({str(error).splitlines()[0]}); "
            "give the folder of a local copy"
        ) from error


def extend(
    model: str, out: Path, max_position_embeddings: int, rope_theta: float | None, local_only: bool = False
) -> tuple[Path, str]:
    """Make the copy, or find the existing one.

    Args:
        model (`str`): folder, or organisation/name of the hub.
        out (`Path`): folder of the copy, on a disk that all nodes see.
        max_position_embeddings (`int`): positions of the copy.
        rope_theta (`float`, *optional*): base frequency of the copy; the model's own where it is `None`.
        local_only (`bool`, *optional*, defaults to `False`): download nothing.

    Returns:
        `tuple[Path, str]`: the copy, or the model itself if it already has enough positions; and a sentence for
        the screen, empty where the copy existed.

    Raises:
        ContextError: if there is no such model, or `out` is a different copy.
    """
    source = model_folder(model, local_only)
    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ContextError(f"{source / 'config.json'} is not JSON ({error}); download the model again") from error
    own = config.get("max_position_embeddings")
    if isinstance(own, int) and own >= max_position_embeddings:
        return source, f"{source}: has {own} positions, used as it is"
    wanted = json.dumps(extended_config(config, max_position_embeddings, rope_theta), indent=2, sort_keys=True) + "\n"
    if out.exists():
        return _checked(out, source, wanted), ""
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        building.chmod(0o755)
        for file in source.iterdir():
            if file.name != "config.json" and not file.name.startswith("."):
                (building / file.name).symlink_to(file)
        (building / "config.json").write_text(wanted, encoding="utf-8")
        try:
            building.rename(out)
        except OSError:  # another process was faster
            if not out.exists():
                raise
            return _checked(out, source, wanted), ""
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return out, f"{out}: {source.name} with {max_position_embeddings} positions instead of {own}"


def _checked(out: Path, source: Path, wanted: str) -> Path:
    """The existing copy, if it is the requested one."""
    config = out / "config.json"
    broken = [path.name for path in out.iterdir() if path.is_symlink() and not path.exists()]
    elsewhere = {Path(os.readlink(path)).parent for path in out.iterdir() if path.is_symlink()} - {source}
    if broken or elsewhere or not config.is_file() or config.read_text(encoding="utf-8") != wanted:
        reason = f"its links to {', '.join(sorted(broken))} are broken" if broken else "it has other settings"
        raise ContextError(f"{out}: exists, and {reason}; remove that folder (it contains links, no weights)")
    return out
