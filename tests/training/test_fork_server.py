"""A program started through the fork server is the program that Python would have started.

What a process may depend on, and whether a fork has it as an ordinary process would: arguments, ``__main__``,
environment, folder, open files, priority, random numbers of its own, its status (an exit, an exception, a signal), the
signals that are sent to it, and its end with whoever waits for it. With what the trainings check through it (Ray's
workers, sockets, checkpoints) that is all that the CPU back end asks of it.

Not exercised: a fork server in an environment for GPUs, where a CPU training may be started. One failed to start there;
that it would have been by a thread of its imports is a guess, which one test simulates.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from verl_ispo.cpu.fork_server import fork_server, forked_python_command
from verl_ispo.cpu.forked_python import SOCKET_VARIABLE

pytestmark = pytest.mark.trainer

SAYS_ALL = """
import json, os, random, sys
import numpy
print(json.dumps({
    "arguments": sys.argv[1:], "name": __name__, "file": __file__, "folder": os.getcwd(),
    "variable": os.environ.get("OF_THIS"), "of_the_server": os.environ.get("RAY_RAYLET_PID"),
    "priority": os.getpriority(os.PRIO_PROCESS, 0),
    "random": [random.random(), float(numpy.random.rand())], "input": sys.stdin.read(),
    "imported": "verl" in sys.modules, "path": sys.path[0], "group": os.getpgrp() == os.getpid(),
}))
"""


@pytest.fixture
def script(tmp_path: Path):
    """Write a program; returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "a program.py"
        path.write_text(text)
        return path

    return write


def start(forking: dict[str, str], *words: object, **options: object) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [*forked_python_command(), *map(str, words)]
    return subprocess.Popen(command, text=True, **{"env": forking, **pipes, **options})


def test_it_is_the_program_that_was_asked_for(forking, script, tmp_path) -> None:
    """Everything that a program can see of how it was started is of whoever asked, and nothing is the server's."""
    path = script(SAYS_ALL)
    environment = {**forking, "OF_THIS": "a,b=é"}
    found = []
    for _ in range(2):
        process = start(environment, "-u", path, "an argument", "--option", cwd=tmp_path, preexec_fn=lambda: os.nice(3))
        output, errors = process.communicate("read by it")
        assert (process.returncode, errors) == (0, "")
        found.append(json.loads(output))
    random = [each.pop("random") for each in found]
    expected = {
        "arguments": ["an argument", "--option"],
        "name": "__main__",
        "file": str(path),
        "folder": str(tmp_path),
        "variable": "a,b=é",
        "of_the_server": None,
        "priority": os.getpriority(os.PRIO_PROCESS, 0) + 3,
        "input": "read by it",
        "imported": True,
        "path": str(tmp_path),
        "group": True,
    }
    assert found == [expected, expected]
    assert random[0] != random[1], "two forks draw the same numbers"


def test_a_module_runs_as_with_dash_m(forking, tmp_path) -> None:
    (tmp_path / "document.json").write_text('{"b": 1, "a": [2]}')
    process = start(forking, "-m", "json.tool", "--compact", "--sort-keys", "document.json", cwd=tmp_path)
    assert process.communicate()[0].strip() == '{"a":[2],"b":1}'
    process = start(forking, "-m", "no_such_module")
    assert "no module named no_such_module" in process.communicate()[1]
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("import sys; sys.exit(7)", 7),
        ("raise ValueError('why it ended')", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os; os._exit(9)", 9),
        ("import sys; sys.exit('why it ended')", 1),
    ],
)
def test_its_status_is_the_programs(forking, script, text, status) -> None:
    process = start(forking, script(text))
    errors = process.communicate()[1]
    assert process.returncode == status
    assert ("why it ended" in errors) == ("why" in text)


def test_open_files_keep_their_numbers(forking, script, tmp_path) -> None:
    """A lock that the launcher holds must be the training's too."""
    with (tmp_path / "held").open("w") as held:
        number = held.fileno()
        process = start(forking, script(f"import os; os.write({number}, b'written')"), pass_fds=[number])
        process.communicate()
    assert (tmp_path / "held").read_text() == "written"


WAITS = """
import os, signal, sys, time
def ended(*_):
    os.write(1, b"asked to end\\n")  # print could be interrupted by itself
    sys.exit(5)
signal.signal(signal.SIGTERM, ended)
os.write(1, b"%d\\n" % os.getpid())
time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ends_within(pid: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not is_alive(pid)


def test_signals_reach_it(forking, script) -> None:
    process = start(forking, script(WAITS))
    process.stdout.readline()
    process.terminate()
    assert (process.communicate()[0], process.returncode) == ("asked to end\n", 5)


def test_it_ends_with_whoever_waits_for_it(forking, script) -> None:
    """Ray kills a worker's first process, and a worker that outlives its raylet would hold its memory for ever."""
    process = start(forking, script(WAITS))
    pid = int(process.stdout.readline())
    process.kill()
    process.wait()
    assert ends_within(pid, 20)

    raylet = subprocess.Popen(["sleep", "60"])
    process = start({**forking, "RAY_RAYLET_PID": str(raylet.pid)}, script(WAITS))
    pid = int(process.stdout.readline())
    raylet.kill()
    raylet.wait()
    assert ends_within(pid, 20)


def test_a_server_ends_after_its_last_process_and_leaves_nothing(forking, script, monkeypatch) -> None:
    """A training outlives a launcher that was killed, so the server must too; if it is killed, so are its forks."""
    environment = {**forking, SOCKET_VARIABLE: ""}
    with fork_server(environment) as own:
        folder = Path(own[SOCKET_VARIABLE]).parent
        process = start(own, script(WAITS))
        pid = int(process.stdout.readline())
    time.sleep(0.5)
    assert is_alive(pid)
    assert folder.exists()
    process.terminate()
    process.wait()
    until = time.monotonic() + 20
    while folder.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not folder.exists()

    with fork_server(environment) as own:
        process = start(own, script(WAITS))
        pid = int(process.stdout.readline())
        server = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(server, signal.SIGKILL)
        assert ends_within(pid, 20)
        assert "ended before its process" in process.communicate()[1]
        assert process.returncode == 1


def test_threads_are_those_of_the_fork_and_keep_no_server_from_forking(forking, script) -> None:
    """An environment for several threads made the server's imports start some, and then it could not fork."""
    many = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "3")
    path = script("import torch; torch.randn(300, 300) @ torch.randn(300, 300); print(torch.get_num_threads())")
    with fork_server({**forking, SOCKET_VARIABLE: "", **many}) as own:
        for threads in ("3", "2", "1"):
            output, errors = start({**own, "OMP_NUM_THREADS": threads}, path).communicate()
            assert (output.strip(), errors) == (threads, "")


def test_without_a_server_the_error_names_it(script) -> None:
    process = start({**os.environ, SOCKET_VARIABLE: "/nowhere/socket"}, script(""))
    assert "/nowhere/socket (VERL_ISPO_FORK_SERVER) does not answer" in process.communicate()[1]
    assert process.returncode == 1


def test_where_the_server_cannot_fork_python_itself_is_started_and_says_why(script, tmp_path) -> None:
    """In an environment for GPUs it could not start, and nothing but a lost connection was said."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, threading, time\n"
        "if 'verl_ispo.cpu.forking_process' in sys.orig_argv:\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    with fork_server({**os.environ, SOCKET_VARIABLE: "", "PYTHONPATH": str(tmp_path)}) as environment:
        folder = Path(environment[SOCKET_VARIABLE]).parent
        process = start(environment, script("import os, sys; print(sys.argv[1]); sys.exit(3)"), "given")
        output, errors = process.communicate()
    assert (output, process.returncode) == ("given\n", 3)
    assert "no forks of one process" in errors
    assert "after its imports the fork server has the threads" in errors
    assert not folder.exists()
