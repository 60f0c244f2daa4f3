"""A copy of a model with a longer context: its own config.json, links to all other files. Prints the folder to use.

python scripts/extend_context.py --model Qwen/Qwen2.5-Math-7B --max-position-embeddings 6144 --rope-theta 15000 \
    --out runs/models/Qwen2.5-Math-7B-6144

Trainer, reference, rollout engine (vLLM, SGLang), Megatron's bridge and the evaluation all read a model's config.json;
an override in verl's config reaches only some of them. A model that has the positions already is used as it is.
Exit status 2: a fault in model or options (one sentence says which).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class ContextError(ValueError):
    """A model whose context cannot be extended as asked; the message names the file and the remedy."""


def extended_config(config: dict[str, Any], max_position_embeddings: int, rope_theta: float | None) -> dict[str, Any]:
    """The content of config.json with more positions.

    Args:
        config (`dict`): content of the model's own config.json.
        max_position_embeddings (`int`): positions of the copy.
        rope_theta (`float`, *optional*): base frequency of the copy; the model's own where none is given.

    Raises:
        ContextError: if the model scales its rotary embeddings already, so that theta alone would not say what it does.
    """
    extended = {**config, "max_position_embeddings": max_position_embeddings}
    if rope_theta is None:
        return extended
    parameters = config.get("rope_parameters")
    scaling = config.get("rope_scaling") or parameters or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        raise ContextError(
            f"the model has rope scaling of type {kind!r}; leave --rope-theta out, or use its base model"
        )
    if "rope_theta" in config or parameters is None:
        extended["rope_theta"] = rope_theta
    if parameters is not None:  # how transformers 5 writes it
        extended["rope_parameters"] = {**parameters, "rope_theta": rope_theta}
    return extended


def model_folder(model: str) -> Path:
    """The local folder of a model: as given, or from the hub (or its cache, with HF_HUB_OFFLINE=1)."""
    path = Path(model).expanduser()
    if path.exists():
        if not (path / "config.json").is_file():
            raise ContextError(f"{path}: no config.json; give a Hugging Face folder or organisation/name of the hub")
        return path.resolve()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, ignore_patterns=["*.pth", "*.gguf", "original/*"]))
    except (OSError, ValueError) as error:  # the hub's own errors are of these two
        raise ContextError(
            f"{model}: no such folder, and the hub does not give it ({str(error).splitlines()[0]}); "
            "give the folder of a local copy"
        ) from error


def extend(model: str, out: Path, max_position_embeddings: int, rope_theta: float | None) -> Path:
    """Make the copy, or find it made.

    Returns:
        `Path`: the copy; the model itself if it has the positions already.
    """
    source = model_folder(model)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    own = config.get("max_position_embeddings")
    if isinstance(own, int) and own >= max_position_embeddings:
        print(f"{source}: has {own} positions, used as it is", file=sys.stderr)
        return source
    wanted = json.dumps(extended_config(config, max_position_embeddings, rope_theta), indent=2, sort_keys=True) + "\n"
    if out.exists():
        return _checked(out, source, wanted)
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
            return _checked(out, source, wanted)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    print(f"{out}: {source.name} with {max_position_embeddings} positions instead of {own}", file=sys.stderr)
    return out


def _checked(out: Path, source: Path, wanted: str) -> Path:
    """The copy that stands there, if it is the one that is asked for."""
    config = out / "config.json"
    broken = [path.name for path in out.iterdir() if path.is_symlink() and not path.exists()]
    elsewhere = {Path(os.readlink(path)).parent for path in out.iterdir() if path.is_symlink()} - {source}
    if broken or elsewhere or not config.is_file() or config.read_text(encoding="utf-8") != wanted:
        reason = f"its links to {', '.join(sorted(broken))} lead nowhere" if broken else "it is of other settings"
        raise ContextError(f"{out}: stands there, and {reason}; remove that folder (it holds links, no weights)")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face folder, or organisation/name of the hub")
    parser.add_argument("--out", type=Path, required=True, help="folder of the copy, on a disk that all nodes see")
    parser.add_argument("--max-position-embeddings", type=int, required=True, help="positions of the copy")
    parser.add_argument("--rope-theta", type=float, help="base frequency of the copy (default: the model's own)")
    options = parser.parse_args(arguments)
    try:
        print(extend(options.model, options.out.absolute(), options.max_position_embeddings, options.rope_theta))
    except (ContextError, json.JSONDecodeError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
