"""Ray workers that need not import verl: each is a fork of one process that has.

A training starts eight processes that import torch, Ray and verl, seven seconds of CPU each, which on two cores is most
of a short training. Ray takes another interpreter for its workers (``runtime_env.py_executable``); `python_of_workers`
gives one that asks a server to fork. The server is started by the first worker of a Ray session, in its environment,
which holds what Ray's C++ part reads once when it is loaded, and ends with the raylet.

The tests of the launchers start their trainings as a user does, without this.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PRELOADED = (
    "verl.trainer.main_ppo",
    "verl.trainer.ppo.v1",
    "verl.workers.engine_workers",
    "verl.experimental.agent_loop",
    "verl.experimental.reward_loop",
    "verl_ispo.cpu.engine",
    "verl_ispo.cpu.rollout",
    "verl_ispo.cpu.weight_mailbox",
    "verl_ispo.tiny_task.reward",
    "verl_ispo.grading.reward_function",
    "transformers.models.qwen2.modeling_qwen2",
)
MESSAGE_BYTES = 2**18
START_TIMEOUT_S = 120


def python_of_workers(folder: Path) -> str:
    """The value for ``runtime_env.py_executable``.

    Args:
        folder (`Path`): for the sockets of the servers, whose paths are at most 107 characters.
    """
    return shlex.join([sys.executable, "-IS", __file__, str(folder)])


def ask_for_a_fork(folder: Path, arguments: list[str]) -> int:
    """Run ``python ARGUMENTS`` in a fork of this Ray session's server, and wait for its end."""
    address = folder / f"{os.environ['RAY_RAYLET_PID']}-{os.environ['RAY_JOB_ID']}"
    with (folder / f"{address.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not address.exists():
            subprocess.Popen([sys.executable, __file__, "--serve", str(address)])
            end = time.monotonic() + START_TIMEOUT_S
            while not address.exists():
                if time.monotonic() > end:
                    raise TimeoutError(f"no server of forks at {address} after {START_TIMEOUT_S} s")
                time.sleep(0.05)
    message = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.connect(str(address))
        socket.send_fds(link, [message], [0, 1, 2])
        # no message arrives if the fork was killed
        return int(link.recv(8) or b"70")


def serve(address: Path) -> None:
    """Import what the workers import, then fork for each, until the raylet is gone."""
    import importlib

    os.setpgrp()  # not the group of the first worker that asked for a fork
    for module in PRELOADED:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    raylet = Path("/proc") / os.environ["RAY_RAYLET_PID"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        unfinished = address.with_suffix(".new")
        server.bind(str(unfinished))
        server.listen(64)
        server.settimeout(1)
        unfinished.rename(address)
        while raylet.exists():
            try:
                link, _ = server.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                server.close()
                run_worker(link)
            link.close()


def run_worker(link: socket.socket) -> None:
    """Become the worker that the message describes: its streams, folder, environment and arguments."""
    import runpy
    import traceback

    # the raylet ends a worker by its process group
    os.setpgrp()
    link.settimeout(None)
    message, streams, _, _ = socket.recv_fds(link, MESSAGE_BYTES, 3)
    arguments, folder, environment = json.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    sys.path[0] = str(Path(arguments[0]).parent)
    status = 0
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    link.send(str(status).encode())
    os._exit(status)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(Path(sys.argv[2]))
    else:
        sys.exit(ask_for_a_fork(Path(sys.argv[1]), [argument for argument in sys.argv[2:] if argument != "-u"]))
