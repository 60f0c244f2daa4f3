"""``python`` for programs that import verl: asks a running fork server for the process instead of starting one.

    python -IS forked_python.py -m verl.trainer.main_ppo ...
    python -IS forked_python.py script.py ...

The process has this one's arguments, environment, folder, open files and priority. This one waits for it, passes
signals on, and ends with its status. If this one is killed, so is the other; both end with the raylet if Ray started
this one. Where the server could not start (an import that begins a thread cannot be forked), this process becomes
Python itself. Standard library alone, since it is there for a start without imports. See `verl_ispo.cpu.fork_server`.
"""

import array
import json
import os
import select
import signal
import socket
import struct
import sys

SOCKET_VARIABLE = "VERL_ISPO_FORK_SERVER"
"""Path of the server's socket."""
PASSED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
REASON_FILE = "reason"
"""Beside the socket, where the server could not start."""
READY = b"."
"""What the server says first."""
LENGTH = struct.Struct("!I")
RAYLET_CHECK_S = 1.0


def ask(connection: socket.socket, arguments: list[str]) -> None:
    """Send what the new process needs: a length, and with it the open files; then as many bytes of JSON."""
    own = {connection.fileno()}
    files = []
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            os.fstat(number)
        except OSError:  # the listing's own
            continue
        if number not in own:
            files.append(number)
    request = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "files": files,
    }
    body = json.dumps(request).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
    connection.sendmsg([LENGTH.pack(len(body))], rights)
    connection.sendall(body)


def wait_for(connection: socket.socket) -> int:
    """The status of the process, as `os.waitstatus_to_exitcode` gives it."""
    pid = _next_number(connection, "it ended before it made the process")

    def pass_on(number: int, _: object) -> None:
        os.kill(pid, number)

    for number in PASSED_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    raylet = os.environ.get("RAY_RAYLET_PID", "")
    while raylet.isdigit() and not select.select([connection], [], [], RAYLET_CHECK_S)[0]:
        if not os.path.exists(f"/proc/{raylet}"):
            return 1
    return _next_number(connection, f"it ended before its process {pid}")


def _next_number(connection: socket.socket, otherwise: str) -> int:
    line = b""
    while not line.endswith(b"\n"):
        piece = connection.recv(1)
        if not piece:
            raise ConnectionError(otherwise)
        line += piece
    return int(line)


def start_python(path: str) -> None:
    """Become a Python of one's own where the server has said why there are no forks; return where it has not."""
    try:
        with open(os.path.join(os.path.dirname(path), REASON_FILE), encoding="utf-8") as file:
            reason = file.read()
    except OSError:
        return
    print(f"no forks of one process, so each start takes seconds of imports: {reason}", file=sys.stderr, flush=True)
    environment = {name: value for name, value in os.environ.items() if name != SOCKET_VARIABLE}
    os.execve(sys.executable, [sys.executable, *sys.argv[1:]], environment)


def main() -> int:
    path = os.environ[SOCKET_VARIABLE]
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    asked = False
    try:
        connection.connect(path)
        # files that are sent stay open until they are received, a lock among them, and the server may still import
        if connection.recv(len(READY)) != READY:
            raise ConnectionError("it ended before it was asked")
        asked = True
        ask(connection, sys.argv[1:])
        status = wait_for(connection)
    except OSError as error:
        if not asked:
            start_python(path)
        print(f"the fork server at {path} ({SOCKET_VARIABLE}) does not answer: {error}", file=sys.stderr)
        return 1
    if status < 0:
        if -status in PASSED_SIGNALS:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main())
