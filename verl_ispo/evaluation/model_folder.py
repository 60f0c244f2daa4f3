"""Find the Hugging Face folder to sample from: the one that was named, or a checkpoint merged by verl's own tool."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from verl_ispo.atomic_file import sync_folder
from verl_ispo.process_lock import wait_for_lock
from verl_ispo.runs.checkpoint_folder import LATEST_STEP_FILE
from verl_ispo.user_error import UserError

MERGED_FOLDER = "merged_hf"
MERGE_RECORD = "merge.json"
_WEIGHTS = ("*.safetensors", "*.bin")
_HASHED = (
    *_WEIGHTS,
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
        return Checkpoint(_hugging_face_folder(step_folder / "actor"), step, "last step")
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
        return Checkpoint(_hugging_face_folder(actor), step, rule)
    if (path / "config.json").is_file():
        if not _has_weights(path):
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


def _has_weights(folder: Path) -> bool:
    return any(True for pattern in _WEIGHTS for _ in folder.glob(pattern))


def _hugging_face_folder(actor: Path) -> Path:
    """The folder of an actor checkpoint that can be loaded; merges the shards on the first call."""
    saved = actor / "huggingface"
    if (saved / "config.json").is_file() and _has_weights(saved):
        return saved  # verl's checkpoint.save_contents had hf_model
    if (actor / "fsdp_config.json").is_file():
        backend, needed = "fsdp", saved
    elif (actor / "model" / "huggingface").is_dir():
        backend, needed = "megatron", actor / "model" / "huggingface"
    else:
        raise UserError(
            f"{actor}: no fsdp_config.json and no model/huggingface folder, so neither an FSDP nor a Megatron "
            "checkpoint of verl; is it complete?"
        )
    if not (needed / "config.json").is_file():
        raise UserError(f"{needed}: no config.json, which verl's merger needs; is the checkpoint complete?")
    merged = actor / MERGED_FOLDER
    try:
        with wait_for_lock(actor / f".{MERGED_FOLDER}.lock", merged, "merging it"):
            if not _is_current(merged, actor):
                _merge(actor, backend, merged)
    except OSError as error:
        raise UserError(
            f"{actor}: cannot write the merged model there ({error}). Merge it elsewhere and pass that folder as "
            f"--model: python -m verl.model_merger merge --backend {backend} --local_dir {actor} --target_dir DIR"
        ) from error
    return merged


def _shards(actor: Path) -> list[list[str | int]]:
    """Names, sizes and times of the files that are merged, so that a later checkpoint in this folder is noticed."""
    parts = [path for path in actor.rglob("*") if path.is_file() and not path.name.startswith(".")]
    kept = [path for path in parts if MERGED_FOLDER not in path.relative_to(actor).parts]
    return sorted([str(path.relative_to(actor)), path.stat().st_size, path.stat().st_mtime_ns] for path in kept)


def _is_current(merged: Path, actor: Path) -> bool:
    try:
        return json.loads((merged / MERGE_RECORD).read_text(encoding="utf-8"))["shards"] == _shards(actor)
    except (OSError, ValueError, KeyError):
        return False


def _merge(actor: Path, backend: str, merged: Path) -> None:
    """Run verl's merger into a temporary folder and rename the result to ``merged``."""
    temporary = actor / f".{MERGED_FOLDER}.unfinished"
    shutil.rmtree(temporary, ignore_errors=True)
    shards = _shards(actor)
    print(f"Merging {actor} with verl's model_merger ({backend}) ...", flush=True)
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", backend]
    command += ["--local_dir", str(actor), "--target_dir", str(temporary)]
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if process.returncode != 0 or not _has_weights(temporary):
        shutil.rmtree(temporary, ignore_errors=True)
        tail = "\n".join(process.stdout.splitlines()[-8:])
        raise UserError(f"verl's merger failed on {actor} (exit status {process.returncode}):\n{tail}")
    (temporary / MERGE_RECORD).write_text(json.dumps({"backend": backend, "shards": shards}), encoding="utf-8")
    for path in temporary.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(merged, ignore_errors=True)
    os.replace(temporary, merged)
    sync_folder(actor)
