"""Running a process until it ends or a signal comes: it outlives its launcher only if that is killed by SIGKILL.

A signal may leave it time to end by itself, so that it saves what it has; a second one ends it, a third one kills it.

Its output goes to its log file and not through the launcher, so that a process whose launcher was killed keeps writing.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

POLL_S = 0.1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Attributes:
        status (`int`): as in a shell; 128 plus the signal's number after a signal.
        asked_by (`int`, *optional*): the signal to the launcher because of which it ended the process.
    """

    status: int
    asked_by: int | None


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Record the signals that ask this process to end, instead of ending. An ignored signal (nohup) stays ignored."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for number in heeded:
            signal.signal(number, before[number])


def run_process(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    screen: Iterator[None],
    inherited: Sequence[int] = (),
    ask_to_end: Callable[[], float] = lambda: 0.0,
) -> Ending:
    """Run a command until it ends, showing its progress; SIGTERM, SIGINT and SIGHUP end it first.

    Args:
        command (`Sequence[str]`): program and arguments.
        environment (`Mapping[str, str]`): all of its environment.
        log (`Path`): file for all its output; overwritten.
        screen (`Iterator[None]`): advanced regularly, and once more after the end.
        inherited (`Sequence[int]`, *optional*): file descriptors that it inherits.
        ask_to_end (`Callable`, *optional*): called at the first signal; returns the seconds that the command has to end
            by itself before SIGTERM.
    """
    with noted_signals() as received, log.open("wb") as output, closing(screen):
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(inherited),
            preexec_fn=_ignore_interrupts,
        )
        try:
            while process.poll() is None and not received:
                _show(screen)
                time.sleep(POLL_S)
            until = time.monotonic() + (ask_to_end() if process.poll() is None else 0.0)
            while process.poll() is None and len(received) < 2 and time.monotonic() < until:
                _show(screen)
                time.sleep(POLL_S)
            asked = len(received)
            if process.poll() is None:
                process.terminate()
            while process.poll() is None and len(received) <= asked:  # a further signal ends the wait
                time.sleep(POLL_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        _show(screen)
    return Ending(shell_status(process.returncode), received[0] if received else None)


def call(
    command: Sequence[str], environment: Mapping[str, str] | None = None, output: BinaryIO | int | None = None
) -> int:
    """Run a command to its end; a signal that asks this process to end is passed to the command.

    Args:
        command (`Sequence[str]`): program and arguments.
        environment (`Mapping[str, str]`, *optional*): all of its environment; this process's where it is not given.
        output (`BinaryIO` or `int`, *optional*): for standard output, and for errors too if it is a file; this
            process's streams if it is not given.

    Returns:
        `int`: exit status as in a shell; 128 plus the signal's number if there was one.
    """
    errors = subprocess.STDOUT if hasattr(output, "fileno") else None
    with noted_signals() as received:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=errors)
        asked = 0
        while process.poll() is None:
            if len(received) > asked:
                process.terminate() if asked == 0 else process.kill()
                asked = len(received)
            time.sleep(POLL_S)
    return 128 + received[0] if received else shell_status(process.returncode)


def shell_status(returncode: int) -> int:
    """The exit status as in a shell, from `subprocess`'s, which is negative after a signal."""
    return returncode if returncode >= 0 else 128 - returncode


def _show(screen: Iterator[None]) -> None:
    """Advance what is shown; a screen that fails, as a file on a full disk does, shows nothing more."""
    with suppress(OSError, StopIteration):
        next(screen)


def killed_by(status: int) -> str:
    """What a shell's status above 128 says of verl's driver; empty for another one."""
    try:
        name = signal.Signals(status - 128).name
    except ValueError:
        return ""
    because = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
    return f"verl's driver was ended by {name}{because}"


def _ignore_interrupts() -> None:
    """A terminal's Ctrl-C goes to the launcher too, which ends the training by SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
