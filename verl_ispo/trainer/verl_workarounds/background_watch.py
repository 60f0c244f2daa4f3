"""A watch in a thread of the trainer's process, for what the trainer waits for where it asks no watch."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

from verl_ispo.trainer.verl_workarounds.dead_workers import LOOK_INTERVAL_S

# Until Ray has brought the last words of this process to the driver's log, in seconds.
LAST_WORDS_S = 3.0


def end_process(error: Exception) -> None:
    """Say why and end. Nothing is cleaned up: closing the queue or the engines would wait for them, too."""
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    time.sleep(LAST_WORDS_S)
    os._exit(1)


def watch_in_background(
    look: Callable[[], None],
    name: str,
    seen: tuple[type[Exception], ...],
    end: Callable[[Exception], None] = end_process,
    interval_s: float = LOOK_INTERVAL_S,
) -> threading.Thread:
    """Start a thread that looks as long as this process lives.

    Args:
        look (`Callable`): raises an error of `seen` when the trainer would wait forever.
        name (`str`): of the thread.
        seen (`tuple`): errors that end the watch.
        end (`Callable`, *optional*): called with the error.
        interval_s (`float`, *optional*, defaults to `5.0`): seconds between two looks.
    """

    def repeat() -> None:
        while True:
            time.sleep(interval_s)
            try:
                look()
            except seen as error:
                end(error)
                return

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    return thread
