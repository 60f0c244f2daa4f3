"""The folder of a run's checkpoints, as verl writes it: which of them the run can resume from.

::

    checkpoints/latest_checkpointed_iteration.txt    the step that verl resumes from
    checkpoints/global_step_N/data.pt                state of the data loader, written last
    checkpoints/global_step_N/actor/                 FSDP: model_world_size_W_rank_R.pt, optim_..., extra_state_...
                                                     Megatron: model/, optimizer/, extra/, ckpt_contents.json
    checkpoints/stop_after_this_step                 ours: asks the trainer to save at the end of its step and end

verl loads what it finds: without the optimizer's state it goes on with a new optimizer, without weights from the base
model, and where the noted step is missing it starts from the beginning, all of it without a word. A checkpoint counts
as whole here if it has weights, optimizer and extra state of every rank, and the data loader's state. Megatron's can be
loaded by any number of data-parallel ranks, but only with the tensor- and pipeline-parallel sizes of the save.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_ispo.atomic_file import write_text
from verl_ispo.user_error import UserError

LATEST_STEP_FILE = "latest_checkpointed_iteration.txt"
LAST_FILE = "data.pt"
"""The last file that verl writes of a checkpoint before it notes the checkpoint as the latest."""

STOP_FILE = "stop_after_this_step"
"""A file and not a signal: the trainer is a process of Ray, perhaps on another node."""

PARTS = ("model", "optim", "extra_state")
MEGATRON_MANIFEST, MEGATRON_SIZES = "ckpt_contents.json", "transformer_config.json"
"""What verl writes last into a Megatron checkpoint, and the file with its sizes."""
MEGATRON_PARTS = ("model", "optimizer", "rng_state")
SIZE_KEYS = tuple(f"{name}_model_parallel_size" for name in ("tensor", "pipeline", "virtual_pipeline"))
_RANK_FILE = re.compile(r"(model|optim|extra_state)_world_size_(\d+)_rank_(\d+)\.pt")


UNFINISHED, OTHER_RANKS, OTHER_SIZES, NOT_SAVED = "unfinished", "other ranks", "other sizes", "not saved"
Sizes = tuple[int, int, int]


@dataclass(frozen=True)
class Lack:
    """Why a checkpoint cannot be resumed.

    Attributes:
        kind (`str`): `UNFINISHED`, `OTHER_RANKS`, `OTHER_SIZES` or `NOT_SAVED`.
        what (`str`): what the checkpoint has instead, as a phrase.
    """

    kind: str
    what: str


@dataclass(frozen=True)
class Resumption:
    """Where a start begins.

    Attributes:
        step (`int`): of the checkpoint; 0 where there is none and the run begins.
        note (`str`): what was found, where that is not the step that verl noted; empty otherwise.
    """

    step: int
    note: str = ""


def checkpoints(folder: Path) -> dict[int, Path]:
    """Checkpoints that have an actor, complete or not, by step."""
    matches = ((re.fullmatch(r"global_step_(\d+)", path.name), path) for path in folder.glob("global_step_*"))
    return {int(match[1]): path for match, path in matches if match and (path / "actor").is_dir()}


def noted_step(folder: Path) -> int | None:
    """The step that verl noted as the latest; `None` without a note, or with one that holds no number."""
    file = folder / LATEST_STEP_FILE
    text = file.read_text(encoding="utf-8", errors="replace").strip() if file.exists() else ""
    return int(text) if text.isdigit() else None


def megatron_sizes(actor: Mapping[str, Any]) -> Sizes | None:
    """Tensor-, pipeline- and virtual-pipeline-parallel size in ``actor_rollout_ref.actor``; `None` without Megatron."""
    return _sizes(actor["megatron"]) if actor["strategy"] == "megatron" else None


def _sizes(section: Mapping[str, Any]) -> Sizes:
    return tuple(section.get(key) or 1 for key in SIZE_KEYS)


def find_lack(checkpoint: Path, ranks: int, megatron: Sizes | None) -> Lack | None:
    """What a checkpoint lacks to be resumed by this many ranks; `None` for a whole one."""
    # torch.save ends a file with the index of a zip archive, so a file that was cut off is none
    if not zipfile.is_zipfile(checkpoint / LAST_FILE):
        return Lack(UNFINISHED, f"no whole {LAST_FILE}, as after a kill while it was saved")
    actor = checkpoint / "actor"
    return _find_lack_of_ranks(actor, ranks) if megatron is None else _find_lack_of_megatron(actor, megatron)


def _find_lack_of_megatron(actor: Path, wanted: Sizes) -> Lack | None:
    try:
        contents = json.loads((actor / MEGATRON_MANIFEST).read_text(encoding="utf-8"))["contents"]
        absent = [part for part in MEGATRON_PARTS if not any((actor / contents[part]["path"]).glob("*"))]
        saved = _sizes(json.loads((actor / MEGATRON_SIZES).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        return Lack(NOT_SAVED, f"no actor/{Path(error.filename).name}, which verl writes beside Megatron's state")
    except KeyError as error:
        return Lack(NOT_SAVED, f"no {error.args[0]} in actor/{MEGATRON_MANIFEST}")
    except (ValueError, TypeError, AttributeError) as error:
        return Lack(NOT_SAVED, f"files in actor that cannot be read ({error})")
    if absent:
        return Lack(NOT_SAVED, f"nothing in actor/{contents[absent[0]]['path']}")
    if saved != wanted:
        return Lack(OTHER_SIZES, f"the state of {_product(saved)}, and this start has {_product(wanted)}")
    return None


def _product(sizes: Sizes) -> str:
    return " x ".join(map(str, sizes)) + " (tensor x pipeline x virtual pipeline)"


def _find_lack_of_ranks(actor: Path, ranks: int) -> Lack | None:
    found: dict[int, dict[str, set[int]]] = {}
    for path in actor.glob("*_rank_*.pt"):
        if (match := _RANK_FILE.fullmatch(path.name)) is not None and path.stat().st_size:
            found.setdefault(int(match[2]), {}).setdefault(match[1], set()).add(int(match[3]))
    if not found:
        return Lack(NOT_SAVED, "no state to train on (actor.checkpoint.save_contents left it out)")
    if ranks not in found:
        sizes = ", ".join(map(str, sorted(found)))
        return Lack(OTHER_RANKS, f"the state of {sizes} rank(s), and this start has {ranks}")
    absent = [part for part in PARTS if found[ranks].get(part, set()) < set(range(ranks))]
    return Lack(NOT_SAVED, f"no {', '.join(absent)} of every rank") if absent else None


def resumption(folder: Path, ranks: int, megatron: Sizes | None = None) -> Resumption:
    """Where a start begins: at the newest whole checkpoint, or at the beginning of a run that has none.

    Args:
        folder (`Path`): ``trainer.default_local_dir``.
        ranks (`int`): training ranks of this start, ``trainer.nnodes`` times ``trainer.n_gpus_per_node``.
        megatron (`tuple`, *optional*): `megatron_sizes` of this start; without it the actor trains with FSDP.

    Raises:
        UserError: there are checkpoints, or a note of one, and none can be resumed; or the noted one is of another
            number of ranks, or of other sizes. The message says what would resume the run.
    """
    found = {step: find_lack(path, ranks, megatron) for step, path in checkpoints(folder).items()}
    lacks = {step: lack for step, lack in found.items() if lack is not None}
    whole, noted = found.keys() - lacks.keys(), noted_step(folder)
    if noted in whole:
        return Resumption(noted)
    if noted in lacks and lacks[noted].kind in (OTHER_RANKS, OTHER_SIZES):
        raise UserError(_refusal(folder, lacks, noted))
    if whole:
        newest = max(whole)
        return Resumption(
            newest, f"{folder}: {_why_not(noted, lacks)}; the newest whole checkpoint is of step {newest}"
        )
    if noted is None and all(lack.kind == UNFINISHED for lack in lacks.values()):
        return Resumption(0, f"{folder}: no checkpoint was completed; starting from the beginning" if lacks else "")
    raise UserError(_refusal(folder, lacks, noted))


def _why_not(noted: int | None, lacks: Mapping[int, Lack]) -> str:
    """Why the noted step is not the one that is resumed."""
    if noted is None:
        return f"{LATEST_STEP_FILE} holds no number, as after a crash"
    because = f"has {lacks[noted].what}" if noted in lacks else "is not there"
    return f"the checkpoint that {LATEST_STEP_FILE} names ({noted}) {because}"


def _refusal(folder: Path, lacks: Mapping[int, Lack], noted: int | None) -> str:
    step = noted if noted in lacks or not lacks else max(lacks)
    lack, remedy = lacks.get(step), "set another OUT (trainer.default_local_dir) for a new run"
    if lack is None:
        return f"{folder} cannot be resumed: there is no checkpoint of step {step}; {remedy}"
    if lack.kind == OTHER_RANKS:
        remedy = f"start with as many ranks (trainer.nnodes times trainer.n_gpus_per_node), or {remedy}"
    elif lack.kind == OTHER_SIZES:
        remedy = f"start with the sizes that it was saved with, or {remedy}"
    elif lack.kind == NOT_SAVED:
        remedy = (
            "save model, optimizer and extra (actor_rollout_ref.actor.checkpoint.save_contents) in a run that is to be "
            f"resumed, and {remedy}; MODEL can be this run's weights"
        )
    return f"{folder} cannot be resumed: its checkpoint of step {step} has {lack.what}; {remedy}"


def note_latest(folder: Path, step: int) -> None:
    """Write the step that verl resumes from; step 0 removes the note, so that it begins."""
    tracker = folder / LATEST_STEP_FILE
    if step:
        write_text(tracker, str(step))
    else:
        tracker.unlink(missing_ok=True)


def ask_to_stop(folder: Path) -> None:
    """Ask the trainer that saves in a folder to save at the end of its step, and to end."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STOP_FILE).touch()


def is_asked_to_stop(folder: Path) -> bool:
    """Whether `ask_to_stop` was called since the last `forget_stop`."""
    return (folder / STOP_FILE).exists()


def forget_stop(folder: Path) -> None:
    """Take the request back, or note that it was followed."""
    (folder / STOP_FILE).unlink(missing_ok=True)
