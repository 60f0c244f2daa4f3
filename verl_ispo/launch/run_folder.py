"""The folder of a run: its lock, its identity, the steps done, and the names of its files.

::

    OUT/lock              held by the one process that trains
    OUT/run.txt           MODEL, METHOD, SEED, which identify the run; RESPONSE_LENGTH, STEPS of the last start
    OUT/command.N.txt     command of start N
    OUT/train.N.log       all output of start N
    OUT/metrics.N.jsonl   its metrics: verl overwrites its log file, so each start gets its own
    OUT/checkpoints/      verl's
    OUT/dump/             dumped rollouts
    OUT/run_id            its id at W&B and SwanLab (`verl_ispo.launch.logger_places`)
    OUT/tensorboard, OUT/wandb, ...    what other loggers write
    OUT/cache             caches, where the home folder cannot be written (`verl_ispo.launch.unwritable_home`)
    OUT/.secrets.json     of mode 600, during a start on a Ray cluster: keys and tokens for its processes
    OUT/done              the last step that was trained, after a start that ended by itself
    OUT/trained_settings.json, OUT/changes.jsonl    what the run trains (`verl_ispo.launch.run_config`)
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
from verl_ispo.process_lock import has_no_locks, warn_of_no_locks
from verl_ispo.runs.checkpoint_folder import noted_step
from verl_ispo.runs.metric_log import read_metric_log
from verl_ispo.user_error import UserError

IDENTITY = ("MODEL", "METHOD", "SEED")


class FolderBusyError(UserError):
    """Another process uses this folder. Exit status 1, since the same command may work later."""


@dataclass(frozen=True)
class StartFiles:
    """Files of one start."""

    number: int
    log: Path
    metrics: Path
    command: Path


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold a folder's lock, as its only writer, during a ``with`` block.

    Yields:
        `int`: the lock's file descriptor. A training inherits it, so that a training that outlives its launcher still
        holds the lock.

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
        except OSError as error:
            if not has_no_locks(error):
                raise
            warn_of_no_locks(folder / "lock", error)
        yield lock
    finally:
        os.close(lock)


def read_run(folder: Path) -> dict[str, str]:
    """The entries of run.txt, by name; empty if there is no such file."""
    file = folder / "run.txt"
    if not file.exists():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines()
    return {name: value for name, found, value in (line.partition("=") for line in lines) if found}


def write_run(folder: Path, identity: Mapping[str, str], response_length: int, steps: int) -> None:
    """Write the run's identity, and what this start trains."""
    noted = {**identity, "RESPONSE_LENGTH": response_length, "STEPS": steps}
    write_text(folder / "run.txt", "".join(f"{name}={value}\n" for name, value in noted.items()))


def check_identity(folder: Path, identity: Mapping[str, str]) -> None:
    """Refuse to resume from another run.

    Args:
        folder (`Path`): of the run.
        identity (`Mapping[str, str]`): MODEL, METHOD and SEED of this one.

    Raises:
        UserError: the folder has others.
    """
    noted = {name: value for name, value in read_run(folder).items() if name in IDENTITY}
    if not noted or noted == dict(identity):
        return
    because = ""
    if {**noted, "MODEL": identity["MODEL"]} == dict(identity) and _preset_since(noted["MODEL"]) == identity["MODEL"]:
        because = f". It was started without the settings of preset {identity['MODEL']}, which that name gets now"
    said = " ".join(f"{name}={value}" for name, value in noted.items())
    raise UserError(
        f"{folder} contains another run ({said}), from which this one would resume{because}; set another OUT (--out)"
    )


def _preset_since(model: str) -> str | None:
    """The preset that an older run's model would get now."""
    try:
        return choose_model(model).preset
    except UserError:
        return None


def steps_done(folder: Path) -> int:
    """Steps of the run that are done; 0 before its first successful end."""
    file = folder / "done"
    return int(file.read_text(encoding="utf-8")) if file.exists() else 0


def note_done(folder: Path, steps: int) -> None:
    """Record that `steps` steps are done."""
    write_text(folder / "done", f"{steps}\n")


def steps_trained(metrics: Path, folder: Path, otherwise: int) -> int:
    """The last step that a start trained.

    Args:
        metrics (`Path`): metrics of the start; a file logger may not have been asked for.
        folder (`Path`): of the run, whose last checkpoint tells where there are no metrics.
        otherwise (`int`): what to take where there is neither.
    """
    if metrics.exists() and metrics.stat().st_size:
        return max(read_metric_log(metrics).training_steps, default=0)
    return latest_checkpoint(folder) or otherwise


def latest_checkpoint(folder: Path) -> int | None:
    """The step from which the next start resumes, as recorded by verl."""
    return noted_step(folder / "checkpoints")


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
