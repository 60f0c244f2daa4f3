"""The folder of a run's checkpoints, as verl writes it: which of them the run can resume from.

::

    checkpoints/latest_checkpointed_iteration.txt    the step that verl resumes from
    checkpoints/global_step_N/data.pt                state of the data loader, written last
    checkpoints/global_step_N/actor/                 FSDP: model_world_size_W_rank_R.pt, optim_..., extra_state_...
                                                     Megatron: dist_ckpt/

verl loads what it finds: without the optimizer's state it goes on with a new optimizer, without weights from the base
model, and where the noted step is missing it starts from the beginning, all of it without a word. A checkpoint counts
as whole here if it has weights, optimizer and extra state of every rank, and the data loader's state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from verl_ispo.atomic_file import write_text
from verl_ispo.user_error import UserError

LATEST_STEP_FILE = "latest_checkpointed_iteration.txt"
LAST_FILE = "data.pt"
"""The last file that verl writes of a checkpoint before it notes the checkpoint as the latest."""

PARTS = ("model", "optim", "extra_state")
MEGATRON_FOLDER = "dist_ckpt"
_RANK_FILE = re.compile(r"(model|optim|extra_state)_world_size_(\d+)_rank_(\d+)\.pt")


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


def missing_parts(checkpoint: Path, ranks: int, is_megatron: bool) -> str:
    """What a checkpoint lacks to be resumed by this many ranks, as a phrase; ``""`` for a whole one."""
    state = checkpoint / LAST_FILE
    if not state.is_file() or not state.stat().st_size:
        return f"no {LAST_FILE}, as after a kill while it was saved"
    if not is_megatron:
        return _missing_ranks(checkpoint / "actor", ranks)
    has_states = any((checkpoint / "actor" / MEGATRON_FOLDER).glob("*"))
    return "" if has_states else f"nothing in actor/{MEGATRON_FOLDER}"


def _missing_ranks(actor: Path, ranks: int) -> str:
    found: dict[int, dict[str, set[int]]] = {}
    for path in actor.glob("*_rank_*.pt"):
        if (match := _RANK_FILE.fullmatch(path.name)) is not None and path.stat().st_size:
            found.setdefault(int(match[2]), {}).setdefault(match[1], set()).add(int(match[3]))
    if not found:
        return "no state to train on (actor.checkpoint.save_contents left it out)"
    if ranks not in found:
        sizes = ", ".join(map(str, sorted(found)))
        return f"the state of {sizes} rank(s), and this start has {ranks}"
    absent = [part for part in PARTS if found[ranks].get(part, set()) < set(range(ranks))]
    return f"no {', '.join(absent)} of every rank" if absent else ""


def resumption(folder: Path, ranks: int, is_megatron: bool = False) -> Resumption:
    """Where a start begins: at the newest whole checkpoint, or at the beginning of a run that has none.

    Args:
        folder (`Path`): ``trainer.default_local_dir``.
        ranks (`int`): training ranks of this start, ``trainer.nnodes`` times ``trainer.n_gpus_per_node``.
        is_megatron (`bool`, *optional*, defaults to `False`): the actor trains with Megatron.

    Raises:
        UserError: there are checkpoints, or a note of one, and none can be resumed; or the noted one is of another
            number of ranks. The message says what would resume the run.
    """
    found, noted = checkpoints(folder), noted_step(folder)
    lacks = {step: missing_parts(path, ranks, is_megatron) for step, path in found.items()}
    whole = [step for step, what in lacks.items() if not what]
    if noted in whole:
        return Resumption(noted)
    if noted in found and "and this start has" in lacks[noted]:
        raise UserError(_refusal(folder, lacks, noted))
    if whole:
        because = lacks.get(noted, "is not there") if noted is not None else "holds no number, as after a crash"
        which = f"the step that {LATEST_STEP_FILE} names ({noted})" if noted is not None else LATEST_STEP_FILE
        what = f"{which} {'has ' if noted in found else ''}{because}" if noted != max(whole) else ""
        return Resumption(max(whole), f"{folder}: {what}; the newest whole checkpoint is of step {max(whole)}")
    if noted is None and all(LAST_FILE in what for what in lacks.values()):
        return Resumption(0, "" if not found else f"{folder}: no checkpoint was completed; starting from the beginning")
    if noted is None and not found:
        return Resumption(0)
    raise UserError(_refusal(folder, lacks, noted))


def _refusal(folder: Path, lacks: Mapping[int, str], noted: int | None) -> str:
    step = noted if noted in lacks or not lacks else max(lacks)
    what = (
        f"its checkpoint of step {step} has {lacks[step]}"
        if step in lacks
        else f"there is no checkpoint of step {step}"
    )
    remedy = "set another OUT (trainer.default_local_dir) for a new run"
    if "and this start has" in lacks.get(step, ""):
        remedy = f"start with as many ranks (trainer.nnodes times trainer.n_gpus_per_node), or {remedy}"
    elif step in lacks:
        remedy = (
            "save model, optimizer and extra (actor_rollout_ref.actor.checkpoint.save_contents) in a run that is to be "
            f"resumed, and {remedy}; MODEL can be this run's weights"
        )
    return f"{folder} cannot be resumed: {what}; {remedy}"


def note_latest(folder: Path, step: int) -> None:
    """Write the step that verl resumes from; step 0 removes the note, so that it begins."""
    tracker = folder / LATEST_STEP_FILE
    if step:
        write_text(tracker, str(step))
    else:
        tracker.unlink(missing_ok=True)
