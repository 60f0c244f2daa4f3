"""The process of a fork server: imports what a CPU training's processes import, and forks one for each request.

    python -m verl_ispo.cpu.forking_process SOCKET_NUMBER FOLDER        # started by `verl_ispo.cpu.fork_server`

A request is what `forked_python.ask` sends. The answer is two lines: the process's id, and its status at its end.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import random
import select
import shutil
import signal
import socket
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from verl_ispo.cpu.forked_python import LENGTH, PASSED_SIGNALS, READY, REASON_FILE

# Ray's C++ part reads what the raylet tells a worker once, when it is loaded, which here is before there is a raylet:
# the job is the first of a Ray of its own, and this process stands for the raylet, whose end `forked_python` sees.
os.environ.update(RAY_JOB_ID="01000000", RAY_RAYLET_PID=str(os.getpid()))

import numpy
import ray._raylet
import torch

IMPORTED = (
    "verl.trainer.main_ppo",
    "verl.trainer.ppo.v1",
    "verl.experimental.agent_loop",
    "verl.experimental.reward_loop",
    "verl.workers.engine_workers",
    "verl_ispo.cpu.rollout",
    "verl_ispo.cpu.engine",
    "verl_ispo.cpu.weight_mailbox",
    "verl_ispo.tiny_task.reward",
    "verl_ispo.grading.reward_function",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.qwen2.tokenization_qwen2",
)
"""What the processes of a training import, most of it in each of them."""
MOST_FILES = 250
MOST_WAIT_S = 10.0
"""For a request, once somebody has connected."""
PR_SET_PDEATHSIG = 1
FORK_SAFE_THREADS = ("jemalloc_bg_thd",)
"""Threads of libraries that handle a fork themselves; pyarrow's allocator has one."""


class _Server:
    """Answers requests until its owner is gone and its last process has ended."""

    def __init__(self, listening: socket.socket, owner: int) -> None:
        self._listening = listening
        self._owner: int | None = owner
        self._processes: dict[int, socket.socket] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGCHLD, *PASSED_SIGNALS)}

    def serve(self) -> dict | None:
        """Returns a request in the process that was forked for it, and `None` in the server at its end."""
        signal.set_wakeup_fd(self._wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while self._owner is not None or self._processes or select.select([self._listening], [], [], 0)[0]:
            waited = [self._listening, self._wake_read, *self._processes.values()]
            ready, _, _ = select.select([*waited, *([] if self._owner is None else [self._owner])], [], [])
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
            self._report_ended()
            for connection in ready:
                if connection == self._owner and os.read(connection, 1) == b"":
                    self._owner = None
            for pid, connection in list(self._processes.items()):
                if connection in ready:  # nothing is ever sent: whoever asked for it is gone
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    self._forget(pid)
            if self._listening in ready:
                connection, _ = self._listening.accept()
                request = self._fork(connection)
                if request is not None:
                    return request
        return None

    def _fork(self, connection: socket.socket) -> dict | None:
        connection.settimeout(MOST_WAIT_S)
        try:
            connection.sendall(READY)
            request, files = _read_request(connection)
        except (OSError, ValueError):  # whoever asked is gone
            connection.close()
            return None
        connection.settimeout(None)
        pid = os.fork()
        if pid:
            for number in files:
                os.close(number)
            self._processes[pid] = connection
            with contextlib.suppress(OSError):
                connection.sendall(f"{pid}\n".encode())
            return None
        self._leave(connection)
        _take_files(request["files"], files)
        return request

    def _leave(self, connection: socket.socket) -> None:
        """In the forked process: let go of what belongs to the server, and end if the server is killed."""
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for other in (connection, self._listening, *self._processes.values()):
            other.close()
        for number in (self._wake_read, self._wake_write, self._owner):
            if number is not None and number > 2:
                os.close(number)

    def _report_ended(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._processes:
                with contextlib.suppress(OSError):
                    self._processes[pid].sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                self._forget(pid)

    def _forget(self, pid: int) -> None:
        self._processes.pop(pid).close()


def _read_request(connection: socket.socket) -> tuple[dict, list[int]]:
    rights = array.array("i")
    first, ancillary, _, _ = connection.recvmsg(LENGTH.size, socket.CMSG_LEN(MOST_FILES * rights.itemsize))
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            rights.frombytes(content[: len(content) - len(content) % rights.itemsize])
    if len(first) < LENGTH.size:
        raise ValueError(f"{len(first)} bytes instead of a length")
    (length,) = LENGTH.unpack(first)
    body = b""
    while len(body) < length:
        piece = connection.recv(min(length - len(body), 1 << 20))
        if not piece:
            raise ValueError(f"it ends after {len(body)} of {length} bytes")
        body += piece
    return json.loads(body), rights.tolist()


def _take_files(wanted: Sequence[int], received: Sequence[int]) -> None:
    """Give received files the numbers that they had where they come from."""
    above = max([*wanted, *received], default=0) + 1
    spare = []
    for number in received:
        os.dup2(number, above, inheritable=False)
        os.close(number)
        spare.append(above)
        above += 1
    for number, source in zip(wanted, spare, strict=True):
        os.dup2(source, number, inheritable=True)
        os.close(source)


def _become(request: dict) -> None:
    """Take over what the request says, apart from the files."""
    os.setpgrp()  # a raylet ends a worker by its process group
    os.chdir(request["folder"])
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(request["environment"])
    added = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in before]
    sys.path[:] = [*added, *sys.path]
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, request["priority"])
    sys.stdout.reconfigure(line_buffering=os.isatty(1))
    random.seed()
    numpy.random.seed()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > 0:
        torch.set_num_threads(int(threads))


def _run(arguments: Sequence[str]) -> None:
    """Run ``-m MODULE ARGUMENTS`` or ``SCRIPT ARGUMENTS`` as Python does, as ``__main__``."""
    arguments = [argument for index, argument in enumerate(arguments) if not (index == 0 and argument == "-u")]
    main = types.ModuleType("__main__")
    if arguments[0] == "-m":
        name, rest = arguments[1], arguments[2:]
        sys.path.insert(0, os.getcwd())
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
        if spec is None or spec.loader is None:
            raise SystemExit(f"no module named {name}")
        main.__spec__, main.__file__, main.__package__ = spec, spec.origin, spec.parent
        code = spec.loader.get_code(spec.name)
    else:
        rest = arguments[1:]
        sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
        main.__file__ = arguments[0]
        code = compile(Path(arguments[0]).read_bytes(), arguments[0], "exec")
    sys.argv = [main.__file__, *rest]
    ray._raylet.setproctitle(" ".join(["python", *arguments]))  # what ps shows
    main.__builtins__ = __builtins__
    sys.modules["__main__"] = main
    exec(code, main.__dict__)


def _thread_names() -> list[str]:
    return [Path(f"/proc/self/task/{number}/comm").read_text().strip() for number in os.listdir("/proc/self/task")]


def serve(listening: socket.socket, folder: str) -> None:
    """Import, then fork until the owner, at the other end of standard input, is gone.

    Args:
        listening (`socket.socket`): where requests arrive.
        folder (`str`): removed at the end.
    """
    os.setpgrp()  # a terminal's Ctrl-C is for whoever asked for a process
    request = None
    try:
        for name in IMPORTED:
            importlib.import_module(name)
        threads = [name for name in _thread_names() if name not in FORK_SAFE_THREADS]
        if len(threads) > 1:
            raise RuntimeError(f"after its imports the fork server has the threads {threads}, a fork copies only one")
        gc.collect()
        gc.freeze()
    except Exception as error:
        # for those who ask: they then start Python themselves
        Path(folder, REASON_FILE).write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        raise
    try:
        request = _Server(listening, os.dup(0)).serve()
    finally:
        if request is None:
            shutil.rmtree(folder, ignore_errors=True)
    if request is not None:
        _become(request)
        _run(request["arguments"])


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
