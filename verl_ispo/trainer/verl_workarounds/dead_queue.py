"""Ends the trainer's process when its TransferQueue is gone.

The queue's client waits without a limit for the controller and the storage units, in the middle of a step as well as
between polls for rollouts. A dead one answers never, so the trainer, and with it the training, would wait forever. No
public report is known; a kill of the controller showed it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

import transfer_queue.interface
from ray.actor import ActorHandle

from verl_ispo.trainer.verl_workarounds.dead_workers import LOOK_INTERVAL_S, DeadWorkerError, WorkerWatch

# Until Ray has brought the last words of this process to the driver's log, in seconds.
LAST_WORDS_S = 3.0


def actors_of_queue() -> dict[str, ActorHandle]:
    """The actors of this process's queue, by name; other storages than verl's own have none."""
    controller = transfer_queue.interface._TQ_CONTROLLER
    units = (transfer_queue.interface._TQ_STORAGE or {}).get("SimpleStorage") or {}
    named = {f"TransferQueue's storage unit {number}": unit for number, unit in enumerate(units.values())}
    return named if controller is None else {"TransferQueue's controller": controller, **named}


def end_process(error: DeadWorkerError) -> None:
    """Say why and end. Nothing is cleaned up: closing the queue would wait for it, too."""
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    time.sleep(LAST_WORDS_S)
    os._exit(1)


def watch_queue(
    actors: Callable[[], dict[str, ActorHandle]] = actors_of_queue,
    end: Callable[[DeadWorkerError], None] = end_process,
    interval_s: float = LOOK_INTERVAL_S,
) -> threading.Thread:
    """Start a thread that looks at the queue's actors as long as this process lives.

    Args:
        actors (`Callable`, *optional*): returns the actors to look at, by name.
        end (`Callable`, *optional*): called with the error when one is dead.
        interval_s (`float`, *optional*, defaults to `5.0`): seconds between two looks.
    """
    watch = WorkerWatch(actors, interval_s, "and the trainer would wait for it forever")

    def look() -> None:
        while True:
            time.sleep(interval_s)
            try:
                watch.look()
            except DeadWorkerError as error:
                end(error)
                return

    thread = threading.Thread(target=look, name="watch over the queue", daemon=True)
    thread.start()
    return thread
