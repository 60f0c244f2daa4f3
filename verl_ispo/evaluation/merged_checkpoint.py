"""The weights of a checkpoint of verl in Hugging Face form, merged where verl did not write them so.

FSDP's shards are merged by verl's own tool, which leaves an adapter beside the base model's weights. Megatron's
checkpoint has whole weights in Hugging Face form, or an adapter alone. An adapter is put into the weights here: without
it the base model would be evaluated under the policy's name.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from verl_ispo.atomic_file import sync_folder
from verl_ispo.evaluation import adapter_merge
from verl_ispo.process_lock import wait_for_lock
from verl_ispo.user_error import UserError

WEIGHTS = ("*.safetensors", "*.bin")
MERGED_FOLDER = "merged_hf"
MERGE_RECORD = "merge.json"
MEGATRON_MANIFEST = "ckpt_contents.json"
"""The last file that verl writes of a Megatron checkpoint."""
LORA_RECORD = "lora_train_meta.json"
"""verl writes it into an FSDP checkpoint that has an adapter."""
LORA_FOLDER = "lora_adapter"
"""Where verl's merger leaves the adapter."""


def has_weights(folder: Path) -> bool:
    """Whether a folder has weights in Hugging Face form."""
    return any(True for pattern in WEIGHTS for _ in folder.glob(pattern))


def hugging_face_folder(actor: Path) -> Path:
    """The folder of an actor's checkpoint that can be loaded; merges on the first call, and after a change.

    Raises:
        UserError: the checkpoint is not complete, or cannot be merged.
    """
    manifest = _megatron_manifest(actor)
    merging = _fsdp_merging(actor) if manifest is None else _megatron_merging(actor, manifest)
    if isinstance(merging, Path):
        return merging
    merged = actor / MERGED_FOLDER
    try:
        with wait_for_lock(actor / f".{MERGED_FOLDER}.lock", merged, "merging it"):
            if not _is_current(merged, actor):
                _merge(merging, merged)
    except OSError as error:
        raise UserError(
            f"{actor}: cannot write the merged model there ({error}). Merge it elsewhere and pass that folder as "
            f"--model: {shlex.join(merging.command(Path('DIR')))}"
        ) from error
    return merged


@dataclass(frozen=True)
class _Merging:
    """How a checkpoint becomes a Hugging Face folder: by verl's merger, or by an adapter put into its base model.

    Attributes:
        actor (`Path`): folder of the checkpoint.
        backend (`str`): of verl's merger: fsdp, megatron; empty for an adapter.
        base (`str`): folder of the base model.
        adapter (`Path`, *optional*): folder of the adapter.
    """

    actor: Path
    backend: str = ""
    base: str = ""
    adapter: Path | None = None

    def command(self, target: Path) -> list[str]:
        """What writes ``target``."""
        if self.adapter is not None:
            return _adapter_command(self.base, self.adapter, target)
        merger = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", self.backend]
        return [*merger, "--local_dir", str(self.actor), "--target_dir", str(target)]


def _adapter_command(base: str | Path, adapter: Path, target: Path) -> list[str]:
    return [sys.executable, "-m", adapter_merge.__name__, str(base), str(adapter), str(target)]


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and has_weights(folder)


def _fsdp_merging(actor: Path) -> Path | _Merging:
    saved = actor / "huggingface"
    if _is_model(saved) and not (actor / LORA_RECORD).is_file():
        return saved  # verl's checkpoint.save_contents had hf_model
    if not (actor / "fsdp_config.json").is_file():
        raise UserError(
            f"{actor}: no fsdp_config.json and no {MEGATRON_MANIFEST}, so neither an FSDP nor a Megatron checkpoint of "
            "verl; is it complete?"
        )
    if not (saved / "config.json").is_file():
        raise UserError(f"{saved}: no config.json, which verl's merger needs; is the checkpoint complete?")
    return _Merging(actor, "fsdp")


def _megatron_manifest(actor: Path) -> dict | None:
    try:
        return json.loads((actor / MEGATRON_MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{actor / MEGATRON_MANIFEST}: cannot be read ({error}); is the checkpoint complete?"
        ) from error


def _megatron_merging(actor: Path, manifest: dict) -> Path | _Merging:
    whole = actor / "model" / "huggingface"
    if manifest.get("backend", {}).get("peft"):
        adapter = whole / "adapter"
        if not (adapter / adapter_merge.ADAPTER_CONFIG).is_file():
            raise UserError(f"{adapter}: no {adapter_merge.ADAPTER_CONFIG}, so the adapter is not there in peft's form")
        base = adapter_merge.base_of(adapter)
        if not _is_model(Path(base)):
            raise UserError(
                f"{adapter} is an adapter of {base or 'a model that it does not name'}, where there is no Hugging Face "
                "folder with weights; put the model there, or the folder that it is in now into "
                f"base_model_name_or_path of {adapter / adapter_merge.ADAPTER_CONFIG}"
            )
        return _Merging(actor, base=base, adapter=adapter)
    if _is_model(whole):
        return whole
    if not (whole / "config.json").is_file():
        raise UserError(
            f"{whole}: no config.json, so the weights are not there in Hugging Face form; train with model in "
            "actor_rollout_ref.actor.checkpoint.save_contents"
        )
    return _Merging(actor, "megatron")


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


def _merge(merging: _Merging, merged: Path) -> None:
    """Merge in a temporary folder and rename the result to ``merged``."""
    actor, temporary = merging.actor, merging.actor / f".{MERGED_FOLDER}.unfinished"
    shutil.rmtree(temporary, ignore_errors=True)
    shards = _shards(actor)
    tool = f"verl's model_merger ({merging.backend})" if merging.backend else f"its base model {merging.base}"
    print(f"Merging {actor} with {tool} ...", flush=True)
    result = temporary / "result"
    try:
        _run(merging.command(result), actor, result)
        tokenizer = merging.adapter.parent if merging.adapter is not None else result
        if (result / LORA_FOLDER).is_dir():
            tokenizer, result = result, temporary / "with_adapter"
            _run(_adapter_command(tokenizer, tokenizer / LORA_FOLDER, result), actor, result)
        _copy_all_but_weights(tokenizer, result)
        record = {"backend": merging.backend, "base": merging.base, "shards": shards}
        (result / MERGE_RECORD).write_text(json.dumps(record), encoding="utf-8")
        for path in result.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(merged, ignore_errors=True)
        os.replace(result, merged)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(actor)


def _run(command: list[str], actor: Path, target: Path) -> None:
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if process.returncode != 0 or not has_weights(target):
        tail = "\n".join(process.stdout.splitlines()[-8:])
        tool = "verl's merger" if "verl.model_merger" in command else "Merging the adapter"
        raise UserError(f"{tool} failed on {actor} (exit status {process.returncode}):\n{tail}")


def _copy_all_but_weights(source: Path, target: Path) -> None:
    """The tokenizer's files and the settings of the generation; what is there already stays."""
    for path in source.iterdir():
        is_weight = any(path.match(pattern) for pattern in (*WEIGHTS, "*.index.json"))
        if path.is_file() and not is_weight and not (target / path.name).exists():
            shutil.copy(path, target)
