"""A stand-in for python that need not start: each call runs in a fork of a process that has verl loaded already.

Through the launchers' PYTHON variable it lets a test run many of them from beginning to end. `WarmPython` starts that
process (``python tests/scripts/warm_python.py SOCKET``) and writes the stand-in.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

# Arguments, folder and environment go over as one message, with the caller's standard streams.
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
    link.connect({address!r})
    socket.send_fds(link, [json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()], [0, 1, 2])
    sys.exit(int(link.recv(8) or b"70"))
"""
MESSAGE_BYTES = 2**17


class WarmPython:
    """The process, for the length of a ``with``; `path` is the stand-in."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "warm-python"
        self._address = str(folder / "socket")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> WarmPython:
        self.path.write_text(CLIENT.format(python=sys.executable, address=self._address), encoding="utf-8")
        self.path.chmod(0o755)
        # the hub's client reads this once, when it is imported
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen([sys.executable, __file__, self._address], env=environment)
        while not Path(self._address).exists():
            if self._process.poll() is not None:
                raise RuntimeError(f"{__file__} ended with status {self._process.returncode}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


def serve(address: str) -> None:
    """Load what a dry run loads, then fork for each call."""
    from verl_ispo import doctor

    with contextlib.redirect_stdout(io.StringIO()):
        doctor.run("ispo_trainer", [], check_ray=False, dry_run=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(f"{address}.new")
    server.listen(64)
    os.rename(f"{address}.new", address)
    while True:
        link, _ = server.accept()
        if os.fork() == 0:
            server.close()
            answer(link)
        link.close()


def answer(link: socket.socket) -> None:
    """Run one call with the caller's streams, folder and environment, and send its status."""
    message, streams, _, _ = socket.recv_fds(link, MESSAGE_BYTES, 3)
    arguments, folder, environment = json.loads(message)
    for stream, number in enumerate(streams):
        os.dup2(number, stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    status = status_of(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    link.send(str(status).encode())
    os._exit(0)


def status_of(arguments: list[str]) -> int:
    """The status with which ``python ARGUMENTS`` would end: a script, or ``-m`` and a module."""
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            sys.path.insert(0, str(Path(arguments[0]).parent))
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])
    serve(sys.argv[1])
