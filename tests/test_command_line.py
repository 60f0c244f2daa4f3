"""How commands end, and one process at a time: exit statuses, messages, signals and locks.

Not exercised: a real file system without locks; its answers are made here.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from verl_ispo.command_line import run_command
from verl_ispo.process_lock import take_lock, wait_for_lock
from verl_ispo.user_error import UserError

HOLDER = """
import sys
from pathlib import Path
from verl_ispo.process_lock import take_lock
with take_lock(Path(sys.argv[1]), Path("place"), "working there", "give another one"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(("result", "status"), [(None, 0), (0, 0), (1, 1)])
def test_the_status_is_that_of_the_work(result: int | None, status: int) -> None:
    assert run_command("command", lambda: result) == status


def test_a_fault_of_the_user_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("command", lambda: raises(UserError("--n 0: give 1 or more")), to_terminal=str.upper) == 2
    assert capsys.readouterr().err == "command: error: --N 0: GIVE 1 OR MORE\n"


def test_any_other_error_is_a_fault_of_the_program() -> None:
    with pytest.raises(ValueError, match="ours"):
        run_command("command", lambda: raises(ValueError("ours")))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_interrupt_and_say_what_is_kept(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        assert run_command("command", lambda: os.kill(os.getpid(), number), "interrupted; all is kept") == 130
    finally:
        signal.signal(signal.SIGINT, previous)
    assert capsys.readouterr().err == "\ncommand: interrupted; all is kept\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_lock_is_refused_while_it_is_held_and_dies_with_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            UserError, match=r"^place: another process is working there \(lock .*\); wait for it, or give"
        ):
            take_lock(lock, Path("place"), "working there", "give another one")
    finally:
        holder.kill()
        holder.communicate()
    with take_lock(lock, Path("place"), "working there", "give another one"):
        pass


def test_waiting_for_a_lock_is_said_and_ends_with_it(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    waiter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from verl_ispo.process_lock import wait_for_lock\n"
            "with wait_for_lock(Path(sys.argv[1]), Path('place'), 'merging it'): print('taken')",
            str(lock),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert waiter.stdout.readline() == f"place: waiting for another process that is merging it (lock {lock})\n"
    holder.communicate("go on\n")
    assert waiter.communicate(timeout=60)[0] == "taken\n"
    with wait_for_lock(lock, Path("place"), "merging it"):
        pass


NO_LOCKS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS]


@pytest.mark.parametrize("number", NO_LOCKS)
@pytest.mark.parametrize("take", ["take", "wait"])
def test_where_the_file_system_has_no_locks_the_work_goes_on(
    take: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any other answer than "held" refused the work, or was taken for "held": nobody can hold a lock there."""

    class NoLocks(filelock.UnixFileLock):
        def _acquire(self) -> None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock, "FileLock", NoLocks)
    lock = tmp_path / ".lock"
    with take_lock(lock, tmp_path, "x", "y") if take == "take" else wait_for_lock(lock, tmp_path, "x"):
        pass
    said = capsys.readouterr().err
    assert "has no locks" in said
    assert str(tmp_path) in said


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO])
def test_another_fault_of_the_lock_file_is_not_taken_for_a_file_system_without_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty(filelock.UnixFileLock):
        def _acquire(self) -> None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock, "FileLock", Faulty)
    with pytest.raises(OSError, match=os.strerror(number)):
        take_lock(tmp_path / ".lock", tmp_path, "x", "y")
