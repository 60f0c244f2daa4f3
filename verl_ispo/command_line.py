"""How every command ends: 0 when it is done, 2 for a fault that its user can correct, 130 when it is interrupted."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable

from verl_ispo.user_error import UserError

USER_ERROR_STATUS = 2
INTERRUPTED_STATUS = 130


def run_command(
    program: str,
    work: Callable[[], int | None],
    interrupted: str = "interrupted",
    to_terminal: Callable[[str], str] = str,
) -> int:
    """Do a command's work and return the exit status.

    A scheduler's SIGTERM ends the work like Ctrl-C, so that temporary files are removed.

    Args:
        program (`str`): what was called, such as ``verl-ispo eval``; put before every message.
        work (`Callable`): returns an exit status, `None` for 0. A `UserError` in it is printed and gives 2, in the form
            of argparse: ``PROGRAM: error: MESSAGE``.
        interrupted (`str`, *optional*, defaults to `"interrupted"`): printed on Ctrl-C, such as what is kept.
        to_terminal (`Callable`, *optional*, defaults to `str`): applied to the message of a `UserError`, which may
            quote text that a terminal would interpret.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler) if in_main_thread else None
    try:
        return work() or 0
    except UserError as error:
        print(f"{program}: error: {to_terminal(str(error))}", file=sys.stderr)
        return USER_ERROR_STATUS
    except KeyboardInterrupt:
        print(f"\n{program}: {interrupted}", file=sys.stderr)
        return INTERRUPTED_STATUS
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, previous)
