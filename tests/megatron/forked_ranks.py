"""``python -m tests.megatron.forked_ranks FOLDER VARIANT...``: variants of `engine_process`, in forks of one process.

Importing Megatron takes most of the time, so this process does it once and forks the ranks of each group of variants.
It is not imported with this module, since Megatron's checkpoints start a process that imports the module again.
"""

from __future__ import annotations

import importlib
import multiprocessing
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
                for child in multiprocessing.active_children():  # of Megatron's checkpoints
                    child.kill()
                os._exit(status)
        started.add(pid)
    return started


def wait_for(groups: list[set[int]]) -> bool:
    """Wait for the ranks of all groups; whether all have succeeded. Where one fails, the others would wait for it."""
    succeeded = True
    while any(groups):
        pid, status = os.wait()
        group = next(group for group in groups if pid in group)
        group.remove(pid)
        if status:
            succeeded = False
            for other in group:
                os.kill(other, signal.SIGKILL)
    return succeeded


def main() -> None:
    engine_process = importlib.import_module("tests.megatron.engine_process")
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    variants = {name: engine_process.VARIANTS[name] for name in names}

    def start(group: list[str]) -> set[int]:
        return fork_ranks(lambda: engine_process.run_rank(folder, group), variants[group[0]].ranks)

    sound = [name for name in names if not variants[name].fails]
    sizes = sorted({variants[name].ranks for name in sound})
    succeeded = wait_for([start([name for name in sound if variants[name].ranks == ranks]) for ranks in sizes])
    for name in names:
        if variants[name].fails:
            wait_for([start([name])])
    sys.exit(not succeeded)


if __name__ == "__main__":
    main()
