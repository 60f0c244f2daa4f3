"""Several runs at a time."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence

from verl_ispo.example_runs.steps import StepFailedError
from verl_ispo.launch.training_process import POLL_S, noted_signals


def run_some_at_a_time(commands: Sequence[Sequence[str]], jobs: int) -> int:
    """Run commands, ``jobs`` at a time; one that fails does not stop the others.

    Returns:
        `int`: how many failed.

    Raises:
        StepFailedError: a signal arrived; the running commands have been ended.
    """
    waiting, running, failed = list(commands), [], 0
    with noted_signals() as received:
        while (waiting or running) and not received:
            while waiting and len(running) < jobs:
                running.append(subprocess.Popen(waiting.pop(0)))
            time.sleep(POLL_S)
            failed += sum(process.poll() not in (None, 0) for process in running)
            running = [process for process in running if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait()
    if received:
        raise StepFailedError("ended by a signal; the same command resumes from the checkpoints", 128 + received[0])
    return failed
