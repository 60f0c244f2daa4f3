"""``python -m tests.megatron.forked_ranks FOLDER VARIANT...``: the variants of `engine_process`, from one import of Megatron.

The imports take most of the time, so this process makes them once and forks the ranks of each group of variants. Nothing
is imported before that, since Megatron's checkpoints start a process that imports this module again.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.trainer.ports import free_port, rank_environment


def fork_ranks(run: Callable[[], None], ranks: int) -> set[int]:
    """Start processes that call ``run`` as one rank each; their ids."""
    port, started = free_port(), set()
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            os.environ.update(rank_environment(rank, ranks, port))
            status = 1
            try:
                run()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        started.add(pid)
    return started


def main() -> None:
    engine_process = importlib.import_module("tests.megatron.engine_process")
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    groups: dict[int, list[str]] = {}
    for name in names:
        groups.setdefault(engine_process.VARIANTS[name].ranks, []).append(name)
    running: set[int] = set()
    for ranks, group in groups.items():
        running |= fork_ranks(lambda group=group: engine_process.run_rank(folder, group), ranks)
    while running:
        pid, status = os.wait()
        running.remove(pid)
        if status:  # the other ranks would wait for this one
            for other in running:
                os.kill(other, signal.SIGKILL)
            sys.exit(1)


if __name__ == "__main__":
    main()
