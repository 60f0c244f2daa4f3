r"""The worker pool: limits, recycling, and what is left behind.

What has to hold, and how it is provoked. The pool starts its real server; a fault is put into the *worker's* symbolic
check by a few lines before the server's own, so that the pool, the protocol and the kernel's limits are the real ones.

- An answer that hangs, in Python or in a C call that no signal handler interrupts, ends as ``timeout``; others go on.
- The limit counts from when a worker starts on the answer: answers that wait for a worker do not time out.
- A memory bomb ends as ``error``, whether its `MemoryError` reaches us or is swallowed on the way (as sympy does).
- A worker that crashes ends as ``error``; one that dies while idle affects no answer; the server may be
  killed at any time.
- Workers are replaced after the set number of answers.
- When the caller exits or is killed, nothing is left running beyond one time limit.

Not exercised: Ray (``test_grading_in_verl.py``), and platforms without ``/proc`` or ``RLIMIT_AS``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from verl_ispo.grading import GraderUnavailableError, compute_score, grading_stats, worker_pool
from verl_ispo.grading.ground_truth_reading import read_ground_truth
from verl_ispo.grading.settings import PoolSettings, pool_settings, time_limit_s
from verl_ispo.grading.worker_pool import WorkerPool

FAULTS = r"""
import os, signal, time
from verl_ispo.grading import symbolic
real = symbolic.MathVerifyComparer.expressions_equal
kept = []
def faulty(self, gold, answer):
    if "H_{ang}" in answer: time.sleep(600)
    if "C_{all}" in answer: 7 ** 7 ** 9
    if "S_{low}" in answer: time.sleep(0.5)
    if "M_{ore}" in answer: bytearray(400 << 20)
    if "M_{ost}" in answer:
        kept.append(b"x" * (60 << 20))
        return False
    if "D_{ead}" in answer: os.kill(os.getpid(), signal.SIGSEGV)
    if "E_{xit}" in answer: os._exit(3)
    if "R_{aise}" in answer: raise ZeroDivisionError
    return real(self, gold, answer)
symbolic.MathVerifyComparer.expressions_equal = faulty
"""
GOLD = read_ground_truth("2x")


HEAD, SERVER = worker_pool._SERVER.split("from verl_ispo", 1)
FAULTY_SERVER = f"{HEAD}\nexec({FAULTS!r})\nfrom verl_ispo{SERVER}"


@pytest.fixture
def make_pool(monkeypatch):
    """Makes pools whose workers can be made to fail; each has its own server."""
    pools = []
    monkeypatch.setattr(worker_pool, "_SERVER", FAULTY_SERVER)

    def make(workers=1, memory_mb=128, answers_per_worker=1000) -> WorkerPool:
        pools.append(WorkerPool(PoolSettings(workers, memory_mb << 20, answers_per_worker)))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.fixture(scope="module")
def shared():
    """One such pool, with one worker, for the tests that do not break it. Its counters only grow."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(worker_pool, "_SERVER", FAULTY_SERVER)
        pool = WorkerPool(PoolSettings(1, 128 << 20, 1000))
        assert pool.check(GOLD, "x+x", 5.0).status == "correct"
    yield pool
    pool.close()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_verdicts_come_from_the_worker(shared):
    assert shared.check(GOLD, "x+x", 5.0).status == "correct"
    assert shared.check(GOLD, "x+1", 5.0).status == "wrong"


@pytest.mark.parametrize("answer", ["H_{ang}", "C_{all}"], ids=["sleeps", "inside a C call"])
def test_a_hung_worker_is_ended_and_replaced(shared, answer):
    assert shared.check(GOLD, "x+x", 5.0).status == "correct"
    before = shared.counters.workers_timed_out, shared.counters.workers_started
    outcome = shared.check(GOLD, answer, 0.5)
    assert outcome.status == "timeout"
    assert outcome.elapsed_s >= 0.5
    assert shared.check(GOLD, "x+x", 5.0).status == "correct"
    assert (shared.counters.workers_timed_out, shared.counters.workers_started) == (before[0] + 1, before[1] + 1)


def test_others_go_on_while_one_worker_hangs(make_pool):
    pool = make_pool(workers=2)
    hung = threading.Thread(target=pool.check, args=(GOLD, "H_{ang}", 60.0), daemon=True)
    hung.start()
    assert [pool.check(GOLD, "x+x", 5.0).status for _ in range(20)] == ["correct"] * 20
    assert hung.is_alive(), "the hung answer is still within its limit"


def test_the_limit_counts_from_the_start_and_not_from_the_wait(shared):
    """Eight answers of 0.5 s on one worker: the last waits 3.5 s, more than its limit of 2 s, and is graded."""
    shared.check(GOLD, "x+x", 5.0)
    started, timed_out = time.monotonic(), shared.counters.workers_timed_out
    with ThreadPoolExecutor(6) as executor:
        outcomes = list(executor.map(lambda index: shared.check(GOLD, f"S_{{low}}+{index}", 2.0), range(8)))
    assert [outcome.status for outcome in outcomes] == ["wrong"] * 8
    assert time.monotonic() - started >= 8 * 0.5, "one worker takes them one by one"
    assert shared.counters.workers_timed_out == timed_out


@pytest.mark.parametrize("answer", ["M_{ore}", "M_{ost}"], ids=["raised", "swallowed"])
def test_a_memory_bomb_is_an_error_and_not_wrong(shared, answer):
    outcome = shared.check(GOLD, answer, 10.0)
    assert outcome.status == "error"
    assert "memory" in outcome.reason
    assert shared.check(GOLD, "x+x", 5.0).status == "correct"


@pytest.mark.parametrize(("answer", "cause"), [("D_{ead}", "SIGSEGV"), ("E_{xit}", "exit code 3")])
def test_a_crashed_worker_is_an_error_that_names_its_end(shared, answer, cause):
    outcome = shared.check(GOLD, answer, 10.0)
    assert outcome.status == "error"
    assert cause in outcome.reason
    assert shared.check(GOLD, "x+x", 5.0).status == "correct"


def test_an_exception_in_the_check_is_an_error_and_keeps_the_worker(shared):
    started = shared.counters.workers_started
    assert shared.check(GOLD, "R_{aise}", 5.0).status == "error"
    assert shared.check(GOLD, "x+x", 5.0).status == "correct"
    assert shared.counters.workers_started == started


def test_workers_are_recycled(make_pool):
    pool = make_pool(answers_per_worker=5)
    assert all(pool.check(GOLD, f"x+x+0\\cdot{index}", 5.0).status == "correct" for index in range(20))
    assert (pool.counters.workers_started, pool.counters.workers_recycled) == (4, 4)


def test_a_worker_that_dies_idle_harms_no_answer(shared):
    shared.check(GOLD, "x+x", 5.0)
    os.kill(shared._idle[0].pid, signal.SIGKILL)
    assert wait_until(lambda: not is_running(shared._idle[0].pid))
    assert shared.check(GOLD, "x+x", 5.0).status == "correct"


def test_the_server_may_be_killed(make_pool):
    pool = make_pool(answers_per_worker=1)
    pool.check(GOLD, "x+x", 5.0)
    pool._server.kill()
    pool._server.wait()
    assert pool.check(GOLD, "x+x", 5.0).status == "correct"
    assert pool.counters.servers_started == 2


def test_a_server_that_never_starts_stops_the_run_and_says_what_to_check(monkeypatch):
    monkeypatch.setattr(worker_pool, "_SERVER", "raise SystemExit(7)")
    with pytest.raises(GraderUnavailableError, match=r"exit code 7.*math-verify"):
        compute_score("", r"\boxed{x+x}", "2x", workers=7)
    assert compute_score("", r"\boxed{42}", "42", workers=7)["acc"], "the exact path needs no worker"


def test_closing_ends_every_process(make_pool):
    pool = make_pool(workers=2)
    with ThreadPoolExecutor(2) as executor:
        list(executor.map(lambda answer: pool.check(GOLD, answer, 5.0), ["S_{low}", "S_{low}+1"]))
    pids = [pool._server.pid, *(worker.pid for worker in pool._idle)]
    assert len(pids) == 3
    pool.close()
    assert wait_until(lambda: not any(is_running(pid) for pid in pids))


GRADE_A_HUNG_ANSWER = r"""
import sys, threading, time
from verl_ispo.grading import GraderUnavailableError, compute_score, worker_pool
compute_score("", r"\boxed{x+x}", "2x")  # no __main__ guard, on purpose
pool = next(iter(worker_pool._pools.by_settings.values()))
pids = [pool._server.pid, *(worker.pid for worker in pool._idle)]
hang = r"\boxed{\sum_{k=1}^{99999} k! \cdot x}"
threading.Thread(target=compute_score, args=("", hang, "2x"), kwargs={"timeout_s": 3.0}, daemon=True).start()
time.sleep(0.5)
print(*pids, flush=True)
if sys.argv[1] == "stay": time.sleep(60)
"""


@pytest.mark.parametrize("end", ["exit", "stay"], ids=["exits", "is killed"])
def test_nothing_outlives_the_caller(end):
    """The caller exits, or is killed with SIGKILL as Ray does, while one of its workers hangs."""
    caller = subprocess.Popen([sys.executable, "-c", GRADE_A_HUNG_ANSWER, end], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in caller.stdout.readline().split()]
    assert len(pids) == 2
    if end == "stay":
        caller.kill()
    caller.wait(timeout=30)
    assert wait_until(lambda: not any(is_running(pid) for pid in pids))


def test_a_forked_child_starts_its_own_pool():
    """A caller that forks (a data loader, say) does not share its workers' sockets with the child."""
    code = r"""
import os
from verl_ispo.grading import GraderUnavailableError, compute_score
assert compute_score("", r"\boxed{x+x}", "2x")["acc"]
pid = os.fork()
correct = all(compute_score("", rf"\boxed{{x+x+0\cdot{i}}}", "2x")["acc"] for i in range(5))
if pid == 0: os._exit(0 if correct else 1)
assert correct and os.waitpid(pid, 0)[1] == 0
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=120, check=False).returncode == 0


def test_many_threads_get_their_own_verdicts():
    def grade(index: int) -> bool:
        correct = compute_score("", rf"\boxed{{{index}x+x}}", f"{index + 1}x")
        incorrect = compute_score("", rf"\boxed{{{index}x-x}}", f"{index + 1}x")
        return (correct["status"], incorrect["status"]) == ("correct", "wrong")

    with ThreadPoolExecutor(24) as executor:
        assert all(executor.map(grade, range(2, 122)))


def test_a_real_hang_is_a_timeout_and_is_counted_and_logged(caplog):
    before = grading_stats()["statuses"]["timeout"]
    result = compute_score("hang", r"\boxed{\sum_{k=1}^{99999} k! \cdot x}", "2x", timeout_s=0.5)
    assert (result["status"], result["score"]) == ("timeout", 0.0)
    assert grading_stats()["statuses"]["timeout"] == before + 1


def test_text_is_never_run_as_code(tmp_path):
    target = tmp_path / "pwned"
    for text in (
        f"__import__('os').system('touch {target}')",
        rf"\text{{}}__import__('os').system('touch {target}')",
        f"open('{target}','w')",
        f"$exec(\"open('{target}','w')\")$+x",
        f"(lambda: open('{target}','w'))()",
    ):
        for gold in ("42", "2x", text):
            compute_score("code", rf"\boxed{{{text}}}", gold)
            compute_score("code", f"Answer: {text}", gold)
    assert not target.exists()


def test_settings_come_from_the_environment_and_name_what_is_wrong(monkeypatch):
    monkeypatch.setenv("VERL_ISPO_GRADING_TIMEOUT_S", "2.5")
    monkeypatch.setenv("VERL_ISPO_GRADING_WORKERS", "3")
    monkeypatch.setenv("VERL_ISPO_GRADING_MEMORY_MB", "256")
    assert time_limit_s() == 2.5
    assert pool_settings() == PoolSettings(3, 256 << 20, 1000)
    assert pool_settings(workers=1, memory_mb=64) == PoolSettings(1, 64 << 20, 1000)
    monkeypatch.setenv("VERL_ISPO_GRADING_TIMEOUT_S", "soon")
    with pytest.raises(ValueError, match=r"VERL_ISPO_GRADING_TIMEOUT_S is 'soon'"):
        compute_score("", r"\boxed{1}", "1")
