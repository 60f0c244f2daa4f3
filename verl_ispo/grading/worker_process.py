"""The processes that run sympy: a server that imports it once, and the workers that it forks.

The server is a fresh, single-threaded interpreter, so that forking it is safe where forking a Ray actor is not. A fork
starts in milliseconds with sympy imported and the parser warm. Each worker answers over a socket of its own.

The kernel keeps the limits, so that they hold in the middle of a C call and after the caller has died:

- time: an interval timer whose ``SIGALRM`` has its default action ends the worker; it is set when an answer starts;
- memory: ``RLIMIT_AS``. Sympy and math-verify swallow `MemoryError`, so an answer that comes out unequal after it took
  a quarter of the limit is reported as an error.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import resource
import signal
import socket
import struct
import sys
import warnings
from multiprocessing.connection import Connection
from typing import Any

SPAWN, REAP = b"S", b"R"
"""Requests to the server: fork a worker for the socket that comes along; collect the exit status of a worker."""

STATUS = struct.Struct("!ii")
"""The server's answers: (process id, wait status)."""

_WARM_UP = (
    (r"\frac{\sqrt{3}}{4}+\pi x^{2}", r"\frac{\sqrt{3}}{4}+x^{2}\cdot\pi"),
    (r"\log_{2}{8}+\sin(x)", r"3+\sin(x)"),
    (r"2^{n-1}-\binom{n}{2}", r"(n-1)!"),
    (r"\lfloor\frac{n}{2}\rfloor+e^{i\theta}", r"|x-1|"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"2\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"\sqrt[3]{a b}-\cos^{2}\alpha", r"\frac{1-p^{2}}{3}\cdot k(k+1)"),
)


def serve(control_fd: int, memory_bytes: int) -> None:
    """Run the server until the caller's end of the control socket closes; then kill the workers that are left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller handles Ctrl-C
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(6_000)
    control = socket.socket(fileno=control_fd)
    _warm_up()
    gc.collect()
    gc.freeze()
    control.sendall(STATUS.pack(os.getpid(), 0))
    workers: set[int] = set()
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 1 + STATUS.size, 1)
        if not request:
            break
        if request[:1] == SPAWN:
            pid = os.fork()
            if pid == 0:
                control.close()
                _run_worker(descriptors[0], memory_bytes)
            os.close(descriptors[0])
            workers.add(pid)
            control.sendall(STATUS.pack(pid, 0))
        elif request[:1] == REAP:
            pid, _ = STATUS.unpack(request[1:])
            status = os.waitpid(pid, 0)[1] if pid in workers else 0
            workers.discard(pid)
            control.sendall(STATUS.pack(pid, status))
    for pid in workers:
        os.kill(pid, signal.SIGKILL)


def _warm_up() -> None:
    """Import what grading needs and fill the parser's caches, so that the first answers are not slower."""
    from .expression_guard import GoldNotUnderstood
    from .symbolic import MathVerifyComparer

    comparer = MathVerifyComparer()
    for gold, answer in _WARM_UP:
        with contextlib.suppress(GoldNotUnderstood):  # the warm-up may fail on a text; the worker still works
            comparer.expressions_equal(gold, answer)
    comparer.equations_equal(("y", "2x"), ("2x-y", "0"))


def _run_worker(descriptor: int, memory_bytes: int) -> None:
    """Answer requests until the caller closes the socket. Never returns."""
    try:
        limit_memory(memory_bytes)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # a worker has nothing to write
        connection = Connection(descriptor)
        while True:
            task = json.loads(connection.recv_bytes())
            signal.setitimer(signal.ITIMER_REAL, task["timeout_s"])
            reply = _grade(task, memory_bytes)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send_bytes(json.dumps(reply).encode())
    except (EOFError, OSError):
        os._exit(0)
    except BaseException:
        os._exit(1)


def limit_memory(memory_bytes: int) -> None:
    """Bound what this process may allocate beyond what it has; does nothing where the platform has no such limit."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            mapped = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes, mapped + memory_bytes))
    except (OSError, ValueError):
        pass


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _grade(task: dict[str, Any], memory_bytes: int) -> dict[str, Any]:
    from verl_ispo.answers.ground_truth import GroundTruth

    from .answer_check import AnswerTooLarge, check_answer
    from .expression_guard import GoldNotUnderstood, RefusedExpression
    from .symbolic import MathVerifyComparer

    gold = GroundTruth(
        task["gold"], task["multiple_answers"], task["unit"], task["tolerance"], log_base=task["log_base"]
    )
    before = _peak_bytes()
    reason = ""
    try:
        equal = check_answer(gold, task["answer"], MathVerifyComparer())
        status = "correct" if equal else "wrong"
    except (AnswerTooLarge, RefusedExpression, GoldNotUnderstood) as error:
        status, reason = "error", f"{type(error).__name__}: {error}"
    except MemoryError:
        status, reason = "error", "memory limit reached"
    except Exception as error:
        status, reason = "error", f"{type(error).__name__} in the symbolic check"
    taken = _peak_bytes() - before
    if status == "wrong" and taken > memory_bytes // 4:
        status, reason = "error", f"took {taken >> 20} MiB, so that a memory error may be behind the difference"
    return {"status": status, "reason": reason, "taken_bytes": taken}
