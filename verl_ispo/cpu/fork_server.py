"""A process that has imported verl and forks others, so that each process of a CPU training starts without imports.

A training is some nine Python processes, which each spend seconds of a CPU core on importing torch, transformers and
verl: on two cores that is most of a short run. `fork_server` starts one process that imports them once
(`forking_process`); a program that is started through `forked_python.py` is a fork of it. Ray starts its workers that
way if it is told to (``ray_init.runtime_env.py_executable``).

A fork has what the server had imported, and nothing else of it: it takes arguments, environment, folder, open files
and priority from whoever asked, and `random` and numpy get new seeds. The server never runs a model and has one thread
when it forks, which it checks. Memory that no fork writes to is shared by all.

Only for the CPU back end: a process that has met a GPU cannot be forked.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from verl_ispo.cpu.environment import cpu_environment
from verl_ispo.cpu.forked_python import REASON_FILE, SOCKET_VARIABLE

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""The server's own, whatever its forks are to have: an import that starts threads leaves it unable to fork."""
CLIENT = Path(__file__).with_name("forked_python.py")


def forked_python_command() -> list[str]:
    """The words that stand for ``python`` in a command whose process is to be forked."""
    return [sys.executable, "-IS", str(CLIENT)]


def has_fork_server(environment: Mapping[str, str]) -> bool:
    """Whether processes with this environment can be forked."""
    return bool(environment.get(SOCKET_VARIABLE))


def python_command(environment: Mapping[str, str]) -> list[str]:
    """``python``, or what stands for it where this environment names a fork server."""
    return forked_python_command() if has_fork_server(environment) else [sys.executable]


def py_executable() -> str:
    """The same words for ``runtime_env.py_executable`` of Ray, which gives them to a shell."""
    return shlex.join(forked_python_command())


@contextlib.contextmanager
def fork_server(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Start a server; it ends with the context, or when its last process ends if that is later.

    It imports while the caller goes on: what is asked of it meanwhile waits.

    Args:
        environment (`Mapping[str, str]`): of the server. If it names a server already, that one is used.

    Yields:
        The environment with the server's name, for the processes that are to use it; outside Linux without one.
    """
    if has_fork_server(environment) or sys.platform != "linux":  # it reads /proc
        yield dict(environment)
        return
    # Ray's C++ part reads these once, when it is loaded, and `ray.init` would set them later
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {**({} if environment.get("RAY_AUTH_MODE") else token), **cpu_environment(environment)}
    # the path of a socket is at most 107 characters, so not below a TMPDIR that may be long
    folder = tempfile.mkdtemp(prefix="verl_ispo_fork_", dir="/tmp")
    path = str(Path(folder) / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen(64)
        server = subprocess.Popen(
            [sys.executable, "-m", "verl_ispo.cpu.forking_process", str(listening.fileno()), folder],
            env={**environment, **ONE_THREAD},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listening.fileno()],
        )
    try:
        yield {**environment, SOCKET_VARIABLE: path}
    finally:
        server.stdin.close()
        if Path(folder, REASON_FILE).exists():  # else it removes its folder itself, with its last process
            shutil.rmtree(folder, ignore_errors=True)
