"""The folder of a run: who may write to it, whose it is, how far it is, and the names of its files.

::

    OUT/lock              held by the one process that trains
    OUT/run.txt           MODEL, METHOD, SEED, which say whose folder it is; RESPONSE_LENGTH, STEPS of the last start
    OUT/command.N.txt     command of start N
    OUT/train.N.log       all that it printed
    OUT/metrics.N.jsonl   its metrics: verl starts its log file anew, so each start gets one of its own
    OUT/checkpoints/      verl's
    OUT/dump/             dumped rollouts
    OUT/done              steps that are done
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from verl_ispo.atomic_file import write_text
from verl_ispo.launch.model_choice import choose_model
from verl_ispo.user_error import UserError

IDENTITY = ("MODEL", "METHOD", "SEED")


class FolderBusyError(UserError):
    """Another process trains in this folder. Exit status 1, as the same command may work a moment later."""


@dataclass(frozen=True)
class StartFiles:
    """Files of one start."""

    number: int
    log: Path
    metrics: Path
    command: Path


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Be the one writer of a folder, for the length of a ``with``.

    Yields:
        `int`: the lock's file descriptor. A training inherits it, so that one which outlives its launcher still holds
        the lock.

    Raises:
        FolderBusyError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderBusyError(
                f"another process works in {folder}; wait for it or end it, or set another OUT (--out)"
            ) from error
        yield lock
    finally:
        os.close(lock)


def read_run(folder: Path) -> dict[str, str]:
    """What run.txt notes, by name; empty where there is none."""
    file = folder / "run.txt"
    if not file.exists():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines()
    return {name: value for name, found, value in (line.partition("=") for line in lines) if found}


def write_run(folder: Path, identity: Mapping[str, str], response_length: int, steps: int) -> None:
    """Note whose folder it is, and what this start trains."""
    noted = {**identity, "RESPONSE_LENGTH": response_length, "STEPS": steps}
    write_text(folder / "run.txt", "".join(f"{name}={value}\n" for name, value in noted.items()))


def check_identity(folder: Path, identity: Mapping[str, str]) -> None:
    """Refuse to go on from another run.

    Args:
        folder (`Path`): of the run.
        identity (`Mapping[str, str]`): MODEL, METHOD and SEED of this one.

    Raises:
        UserError: the folder's are others.
    """
    noted = {name: value for name, value in read_run(folder).items() if name in IDENTITY}
    if not noted or noted == dict(identity):
        return
    because = ""
    if {**noted, "MODEL": identity["MODEL"]} == dict(identity) and _preset_since(noted["MODEL"]) == identity["MODEL"]:
        because = f". It was started without the settings of preset {identity['MODEL']}, which that name gets now"
    said = " ".join(f"{name}={value}" for name, value in noted.items())
    raise UserError(
        f"{folder} holds another run ({said}), which this one would go on from{because}; set another OUT (--out)"
    )


def _preset_since(model: str) -> str | None:
    """The preset that an older run's model gets today."""
    try:
        return choose_model(model).preset
    except UserError:
        return None


def steps_done(folder: Path) -> int:
    """Steps of the run that are done; 0 before its first good end."""
    file = folder / "done"
    return int(file.read_text(encoding="utf-8")) if file.exists() else 0


def note_done(folder: Path, steps: int) -> None:
    """Note that so many steps are done."""
    write_text(folder / "done", f"{steps}\n")


def latest_checkpoint(folder: Path) -> int | None:
    """The step that a next start goes on from, as verl notes it."""
    file = folder / "checkpoints" / "latest_checkpointed_iteration.txt"
    text = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    return int(text) if text else None


def next_start(folder: Path) -> StartFiles:
    """The files of the next start."""
    number = 1
    while any((folder / name).exists() for name in (f"metrics.{number}.jsonl", f"train.{number}.log")):
        number += 1
    return StartFiles(
        number,
        log=folder / f"train.{number}.log",
        metrics=folder / f"metrics.{number}.jsonl",
        command=folder / f"command.{number}.txt",
    )
