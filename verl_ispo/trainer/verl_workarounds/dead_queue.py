"""Ends the trainer's process when its TransferQueue is gone.

The queue's client waits without a limit for the controller and the storage units, in the middle of a step as well as
between polls for rollouts. A dead one answers never, so the trainer, and with it the training, would wait forever. No
public report is known; a kill of the controller showed it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import transfer_queue.interface
from ray.actor import ActorHandle

from verl_ispo.trainer.verl_workarounds.background_watch import end_process, watch_in_background
from verl_ispo.trainer.verl_workarounds.dead_workers import LOOK_INTERVAL_S, DeadWorkerError, WorkerWatch


def actors_of_queue() -> dict[str, ActorHandle]:
    """The actors of this process's queue, by name; other storages than verl's own have none."""
    controller = transfer_queue.interface._TQ_CONTROLLER
    units = (transfer_queue.interface._TQ_STORAGE or {}).get("SimpleStorage") or {}
    named = {f"TransferQueue's storage unit {number}": unit for number, unit in enumerate(units.values())}
    return named if controller is None else {"TransferQueue's controller": controller, **named}


def watch_queue(
    actors: Callable[[], dict[str, ActorHandle]] = actors_of_queue,
    end: Callable[[Exception], None] = end_process,
    interval_s: float = LOOK_INTERVAL_S,
) -> threading.Thread:
    """Start a thread that looks at the queue's actors as long as this process lives.

    Args:
        actors (`Callable`, *optional*): returns the actors to look at, by name.
        end (`Callable`, *optional*): called with the error when one is dead.
        interval_s (`float`, *optional*, defaults to `5.0`): seconds between two looks.
    """
    watch = WorkerWatch(actors, interval_s, "and the trainer would wait for it forever")
    return watch_in_background(watch.look, "watch over the queue", (DeadWorkerError,), end, interval_s)
