"""One process at a time in a folder or at a file; the system releases the lock of a process that is killed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import filelock

from verl_ispo.user_error import UserError


def take_lock(lock_file: Path, place: Path, doing: str, remedy: str) -> AbstractContextManager[object]:
    """Take a lock at once; leaving the returned context releases it.

    Args:
        lock_file (`Path`): in an existing folder.
        place (`Path`): what only one process may use at a time, for the message.
        doing (`str`): what the process that holds the lock does, such as ``writing an evaluation there``.
        remedy (`str`): what to do instead of waiting, such as ``give another --out``.

    Raises:
        UserError: another process holds the lock.
        OSError: the lock file cannot be made.
    """
    try:
        return filelock.FileLock(lock_file).acquire(timeout=0)
    except filelock.Timeout as error:
        raise UserError(f"{place}: another process is {doing} (lock {lock_file}); wait for it, or {remedy}") from error


def wait_for_lock(lock_file: Path, place: Path, doing: str) -> AbstractContextManager[object]:
    """Take a lock as soon as it is free, with a message if that takes time; arguments as for `take_lock`.

    Raises:
        OSError: the lock file cannot be made.
    """
    lock = filelock.FileLock(lock_file)
    try:
        return lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"{place}: waiting for another process that is {doing} (lock {lock_file})", flush=True)
        return lock.acquire()
