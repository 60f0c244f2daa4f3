"""One process at a time in a folder or at a file; the system releases the lock of a process that is killed.

Some network file systems have no locks (Lustre mounted without ``flock``, NFS without its lock service). Nobody can
hold a lock there, so such an error is a warning and the work goes on; only the answer that another process holds the
lock refuses it.
"""

from __future__ import annotations

import errno
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import filelock

from verl_ispo.user_error import UserError

NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})
"""Answers of a file system that has no locks."""


def has_no_locks(error: OSError | NotImplementedError) -> bool:
    """Whether an error of taking a lock says that the file system has none, and not that the lock is held."""
    return isinstance(error, NotImplementedError) or error.errno in NO_LOCKS


def warn_of_no_locks(lock_file: Path, error: OSError | NotImplementedError) -> None:
    """Say that nothing keeps a second process away."""
    print(
        f"{lock_file}: this file system has no locks ({error}), so nothing keeps a second process out of "
        f"{lock_file.parent}; make sure that only one works there",
        file=sys.stderr,
        flush=True,
    )


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
        return _acquired(lock_file, timeout_s=0)
    except filelock.Timeout as error:
        raise UserError(f"{place}: another process is {doing} (lock {lock_file}); wait for it, or {remedy}") from error


def wait_for_lock(lock_file: Path, place: Path, doing: str) -> AbstractContextManager[object]:
    """Take a lock as soon as it is free, with a message if that takes time; arguments as for `take_lock`.

    Raises:
        OSError: the lock file cannot be made.
    """
    try:
        return _acquired(lock_file, timeout_s=0)
    except filelock.Timeout:
        print(f"{place}: waiting for another process that is {doing} (lock {lock_file})", flush=True)
        return _acquired(lock_file, timeout_s=-1)


def _acquired(lock_file: Path, timeout_s: float) -> AbstractContextManager[object]:
    """The lock, or a context without one where the file system has none.

    Raises:
        filelock.Timeout: another process holds it for longer than `timeout_s`; -1 waits for ever.
    """
    try:
        return filelock.FileLock(lock_file).acquire(timeout=timeout_s)
    except filelock.Timeout:
        raise
    except (OSError, NotImplementedError) as error:
        if not has_no_locks(error):
            raise
        warn_of_no_locks(lock_file, error)
        return nullcontext()
