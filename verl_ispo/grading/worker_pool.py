"""A pool of killable workers for the symbolic path, usable from any thread and from Ray actors.

Why not a library's pool, as measured with pebble 5.2 and ``concurrent.futures``: they start workers through
:mod:`multiprocessing`, which imports the caller's ``__main__`` again in each worker (Ray's worker script; or a script
without a ``__main__`` guard, which then starts itself over and over); they end a hung task from a thread of the
caller, so a worker that is hung when Ray kills the actor runs on forever; ``concurrent.futures`` cannot end one at all.
Here the kernel ends it (:mod:`~verl_ispo.grading.worker_process`).

A caller's thread takes a worker, sends it one answer, and waits on the worker's socket. Nothing runs in between: no
queue, no manager thread. The time limit counts from when the worker starts on the answer, not from when a thread began
to wait for a worker.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from verl_ispo.answers.ground_truth import GroundTruth

from .settings import PoolSettings
from .worker_process import REAP, SPAWN, STATUS

START_TIMEOUT_S = 120.0
"""How long the server may take to import sympy, on a busy machine."""

_GRACE_S = 2.0
"""After the time limit and this, a worker that its own timer has not ended is killed."""

_SERVER = (
    "import json, sys; sys.dont_write_bytecode = True; sys.path[:] = json.loads(sys.argv[1]); "
    "from verl_ispo.grading.worker_process import serve; serve(int(sys.argv[2]), int(sys.argv[3]))"
)


class GraderUnavailableError(Exception):
    """No worker has ever started in this process: the installation is at fault, not an answer."""


@dataclass(frozen=True)
class Outcome:
    """A worker's verdict on one answer, or how the worker ended; ``status`` as in the result of ``compute_score``."""

    status: str
    reason: str
    elapsed_s: float


@dataclass
class _Worker:
    pid: int
    connection: Connection
    answers: int = 0


@dataclass
class PoolCounters:
    """Workers over the life of a pool."""

    servers_started: int = 0
    workers_started: int = 0
    workers_recycled: int = 0
    workers_timed_out: int = 0
    workers_crashed: int = 0


class WorkerPool:
    """Up to ``settings.workers`` workers, started when they are first needed.

    Args:
        settings (`PoolSettings`): Number of workers, memory per worker, answers per worker.
    """

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self.counters = PoolCounters()
        self._slots = threading.BoundedSemaphore(settings.workers)
        self._lock = threading.Lock()  # guards the server and the list of idle workers
        self._idle: list[_Worker] = []
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._closed = False

    def check(self, gold: GroundTruth, answer: str, timeout_s: float) -> Outcome:
        """Grade one answer in a worker. Blocks while all workers are busy; ``timeout_s`` does not count that.

        Raises:
            GraderUnavailableError: if no worker of this pool has ever started.
            RuntimeError: if none can be started any more.
        """
        task = {
            "gold": gold.text,
            "multiple_answers": gold.multiple_answers,
            "unit": gold.unit,
            "tolerance": gold.tolerance,
            "log_base": gold.log_base,
            "answer": answer,
            "timeout_s": timeout_s,
        }
        message = json.dumps(task).encode()
        with self._slots:
            for attempt in (1, 2):
                worker = self._take_worker()
                started = time.monotonic()
                try:
                    worker.connection.send_bytes(message)
                    break
                except OSError:  # it died while idle, so this answer is not the cause
                    self._remove(worker)
                    if attempt == 2:
                        raise RuntimeError(
                            "two grading workers in a row died while idle; find out what kills them "
                            "(dmesg shows the kernel's out-of-memory killer)"
                        ) from None
            try:
                if not worker.connection.poll(timeout_s + _GRACE_S):
                    raise TimeoutError
                reply = json.loads(worker.connection.recv_bytes())
            except (EOFError, OSError, TimeoutError) as error:
                return self._ended(worker, time.monotonic() - started, hung=isinstance(error, TimeoutError))
            elapsed_s = time.monotonic() - started
            worker.answers += 1
            if (
                worker.answers >= self.settings.answers_per_worker
                or reply["taken_bytes"] > self.settings.memory_bytes // 4
            ):
                self.counters.workers_recycled += 1
                self._remove(worker)
            else:
                self._give_back(worker)
            return Outcome(reply["status"], reply["reason"], elapsed_s)

    def _ended(self, worker: _Worker, elapsed_s: float, hung: bool) -> Outcome:
        status = self._remove(worker)
        signalled = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if hung or signalled == signal.SIGALRM:
            self.counters.workers_timed_out += 1
            return Outcome("timeout", f"ended after {elapsed_s:.1f} s", elapsed_s)
        self.counters.workers_crashed += 1
        cause = signal.Signals(signalled).name if signalled else f"exit code {os.waitstatus_to_exitcode(status)}"
        return Outcome("error", f"the worker ended ({cause})", elapsed_s)

    def _take_worker(self) -> _Worker:
        with self._lock:
            if self._closed:
                raise RuntimeError("the grading pool is closed")
            if self._idle:
                return self._idle.pop()
            for attempt in (1, 2):
                control = self._running_server()
                ours, theirs = socket.socketpair()
                try:
                    socket.send_fds(control, [SPAWN], [theirs.fileno()])
                    pid, _ = self._read_status(control)
                except OSError as error:
                    ours.close()
                    self._stop_server()
                    if attempt == 2:
                        raise RuntimeError(
                            f"the grading server ended when it had to start a worker ({error}); its error is on stderr"
                        ) from error
                    continue
                finally:
                    theirs.close()
                self.counters.workers_started += 1
                return _Worker(pid, Connection(ours.detach()))
        raise AssertionError("unreachable")

    def _give_back(self, worker: _Worker) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(worker)
                return
        worker.connection.close()

    def _remove(self, worker: _Worker) -> int:
        """Kill a worker and return its wait status (that of its own end, where it had ended already)."""
        worker.connection.close()
        with self._lock:
            if self._control is None:
                return signal.SIGKILL
            try:
                os.kill(worker.pid, signal.SIGKILL)  # its zombie is not collected yet, so the id is its own
                self._control.sendall(REAP + STATUS.pack(worker.pid, 0))
                return self._read_status(self._control)[1]
            except OSError:
                return signal.SIGKILL

    def _read_status(self, control: socket.socket) -> tuple[int, int]:
        data = b""
        while len(data) < STATUS.size:
            part = control.recv(STATUS.size - len(data))
            if not part:
                raise ConnectionError("the grading server has ended")
            data += part
        return STATUS.unpack(data)

    def _running_server(self) -> socket.socket:
        if self._control is not None and self._server is not None and self._server.poll() is None:
            return self._control
        self._stop_server()
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", _SERVER, json.dumps(sys.path), str(theirs.fileno())]
            self._server = subprocess.Popen(
                [*command, str(self.settings.memory_bytes)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._control = ours
        ours.settimeout(START_TIMEOUT_S)
        try:
            self._read_status(ours)
        except OSError as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(timeout=2.0)
            code = self._server.poll()
            self._stop_server()
            raise (RuntimeError if self.counters.servers_started else GraderUnavailableError)(
                f"the grading server did not start ({error}; exit code {code}). "
                "Its own error is on stderr; check that math-verify and verl_ispo import in a fresh interpreter."
            ) from error
        self.counters.servers_started += 1
        return ours

    def _stop_server(self) -> None:
        for worker in self._idle:
            worker.connection.close()
        self._idle.clear()
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._server is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(timeout=2.0)
            if self._server.poll() is None:
                self._server.kill()
                self._server.wait()
            self._server = None

    def close(self) -> None:
        """End all workers and the server. Answers that are being graded come out as errors."""
        with self._lock:
            self._closed = True
            self._stop_server()

    def forget(self) -> None:
        """In a forked child: drop the parent's workers without ending them."""
        self._lock = threading.Lock()
        for worker in self._idle:
            worker.connection.close()
        if self._control is not None:
            self._control.close()


@dataclass
class _Pools:
    lock: threading.Lock = field(default_factory=threading.Lock)
    by_settings: dict[PoolSettings, WorkerPool] = field(default_factory=dict)


_pools = _Pools()


def shared_pool(settings: PoolSettings) -> WorkerPool:
    """The process's pool for these settings; one pool serves all threads."""
    with _pools.lock:
        if settings not in _pools.by_settings:
            _pools.by_settings[settings] = WorkerPool(settings)
        return _pools.by_settings[settings]


def pool_counters() -> dict[str, int]:
    """Counters of all pools of this process, summed."""
    with _pools.lock:
        counters = [vars(pool.counters) for pool in _pools.by_settings.values()]
    return {name: sum(counter[name] for counter in counters) for name in vars(PoolCounters())}


def close_pools() -> None:
    """End all workers of this process; the next answer that needs a worker starts new ones."""
    with _pools.lock:
        pools = list(_pools.by_settings.values())
        _pools.by_settings.clear()
    for pool in pools:
        pool.close()


def _forget_pools() -> None:
    for pool in _pools.by_settings.values():
        pool.forget()
    _pools.lock = threading.Lock()
    _pools.by_settings = {}


atexit.register(close_pools)
os.register_at_fork(after_in_child=_forget_pools)
