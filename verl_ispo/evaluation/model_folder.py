"""Find the Hugging Face folder to sample from: the one that was named, or that of a checkpoint of verl."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from verl_ispo.evaluation.merged_checkpoint import WEIGHTS, has_weights, hugging_face_folder
from verl_ispo.runs.checkpoint_folder import LATEST_STEP_FILE
from verl_ispo.user_error import UserError

_HASHED = (
    *WEIGHTS,
    *("config.json", "generation_config.json", "tokenizer*", "chat_template*", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.*", "merges.txt", "*.model"),
)
_BAR_FROM_BYTES = 1 << 30


@dataclass(frozen=True)
class Checkpoint:
    """A model to evaluate.

    Attributes:
        folder (`Path`): Hugging Face folder with weights and tokenizer.
        step (`int`, *optional*): training step of a verl checkpoint.
        rule (`str`): how the checkpoint was chosen; the table names it.
    """

    folder: Path
    step: int | None
    rule: str


def resolve_checkpoint(model: str) -> Checkpoint:
    """Find the model that a user means.

    Args:
        model (`str`): a Hugging Face folder; a verl run (the folder that holds ``latest_checkpointed_iteration.txt``:
            its last step is taken); one ``global_step_N``, or its ``actor`` folder; or a model id of the hub.

    Raises:
        UserError: if it is none of these, or verl's tool cannot merge it.
    """
    path = Path(os.path.expanduser(model))
    if not path.exists():
        return _from_hub(model)
    if (path / LATEST_STEP_FILE).is_file():
        step = _latest_step(path)
        step_folder = path / f"global_step_{step}"
        if not step_folder.is_dir():
            raise UserError(
                f"{path / LATEST_STEP_FILE} names step {step}, but {step_folder} is not there; "
                "name another global_step_N folder to evaluate that one"
            )
        return Checkpoint(hugging_face_folder(step_folder / "actor"), step, "last step")
    actor = path if path.name == "actor" else path / "actor"
    match = re.fullmatch(r"global_step_(\d+)", actor.resolve().parent.name)
    if actor.is_dir() and match:
        step, run = int(match[1]), actor.resolve().parent.parent
        last = _latest_step(run) if (run / LATEST_STEP_FILE).is_file() else None
        rule = (
            "last step"
            if step == last
            else f"step {step}, chosen by hand (last: {'unknown' if last is None else last})"
        )
        return Checkpoint(hugging_face_folder(actor), step, rule)
    if (path / "config.json").is_file():
        if not has_weights(path):
            raise UserError(f"{path}: there is a config.json, but no weights (*.safetensors or *.bin) beside it")
        return Checkpoint(path, None, "folder as given")
    raise UserError(
        f"{path}: neither a Hugging Face folder (config.json and weights) nor a verl checkpoint (a folder with "
        f"{LATEST_STEP_FILE}, or global_step_N with its actor folder)"
    )


def model_digest(folder: Path) -> str:
    """SHA-256 over names and contents of config, weights and tokenizer files."""
    files = sorted({path for pattern in _HASHED for path in folder.glob(pattern) if path.is_file()})
    total = sum(path.stat().st_size for path in files)
    digest = hashlib.sha256()
    with tqdm(
        total=total, unit="B", unit_scale=True, desc="Hashing the model", disable=total < _BAR_FROM_BYTES
    ) as progress:
        for path in files:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
                    progress.update(len(block))
    return digest.hexdigest()


def _from_hub(model: str) -> Checkpoint:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise UserError(f"--model {model}: no such folder, and not a model id of the hub (organisation/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model, ignore_patterns=["*.pth", "*.gguf", "original/*"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise UserError(
            f"--model {model}: no such folder, and the hub does not give it ({str(error).splitlines()[0]})"
        ) from error
    return Checkpoint(folder, None, "hub model as published")


def _latest_step(run: Path) -> int:
    text = (run / LATEST_STEP_FILE).read_text(encoding="utf-8").strip()
    if not text.isdecimal():
        raise UserError(f"{run / LATEST_STEP_FILE}: {text!r} is not a step; verl writes a whole number there")
    return int(text)
