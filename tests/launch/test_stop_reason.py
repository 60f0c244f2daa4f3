"""What ends a training is named by its first cause: in logs as Ray, Hydra and verl write them, to their last line.

The logs of a task that fails, that wraps an error, and of an actor that fails at its start are Ray 2's own, shortened;
so is that of a worker that was killed. Not exercised: errors whose message has no line of its own.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_ispo.launch.stop_reason import find_reason

STEP = "(TaskRunnerV1 pid=45) step:3 - actor/loss:0.03 - timing_s/step:8.4"
LAST_WORDS = "Error executing job with overrides: ['method=ispo', 'trainer.logger=[console,file]']"
DRIVER = """\
Traceback (most recent call last):
  File "/env/verl/trainer/main_ppo.py", line 93, in run_ppo
    ray.get(runner.run.remote(config))
    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"""
RUNNER = "\033[36mray::TaskRunnerV1.run()\033[39m (pid=45, ip=10.0.0.1, actor_id=6c, repr=<TaskRunnerV1 object>)"
WORKER = "\033[36mray::WorkerDict.update_actor()\033[39m (pid=47, ip=10.0.0.2, actor_id=dd, repr=<WorkerDict object>)"
TEARDOWN = """\
Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.
(AgentLoopWorker pid=51) Traceback (most recent call last):
(AgentLoopWorker pid=51)   File "/env/verl/agent_loop.py", line 8, in generate
(AgentLoopWorker pid=51) ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.
Exception ignored in: <function Tracking.__del__ at 0x7f>
Traceback (most recent call last):
  File "/env/verl/utils/tracking.py", line 60, in __del__
AttributeError: 'Tracking' object has no attribute 'logger'
Traceback (most recent call last):
  File "/usr/lib/python3.11/multiprocessing/queues.py", line 6, in get
_queue.Empty
(raylet) ConnectionResetError: [Errno 104] Connection reset by peer"""


def quoted(task: str, error: str, kind: str = "ValueError") -> str:
    """An error of a task, as Ray repeats it where its result is fetched."""
    return f"""ray.exceptions.RayTaskError({kind}): {task}
           ^^^^^^^^^^^^^^^^^^^
  File "/env/verl/workers/engine_workers.py", line 11, in update
    raise something
{error}
"""


def ended(*parts: str) -> list[str]:
    return "\n".join([STEP, LAST_WORDS, DRIVER, *parts, TEARDOWN]).splitlines()


def test_the_innermost_task_is_the_cause() -> None:
    log = ended(quoted(RUNNER, quoted(WORKER, "ValueError: micro batch 48 does not divide 100")))
    assert find_reason(log) == "ValueError: micro batch 48 does not divide 100"


def test_the_first_of_a_chain_is_the_cause_and_what_it_became_is_told_too() -> None:
    chain = (
        "KeyError: 'ground_truth'\n\nThe above exception was the direct cause of the following exception:\n\n"
        f'{WORKER}\n  File "x.py", line 3, in update\nValueError: a row has no answer\n\n'
        f"The above exception was the direct cause of the following exception:\n\n{RUNNER}\n"
        "RuntimeError: step 4 failed"
    )
    log = ended(quoted(RUNNER, quoted(WORKER, chain), "RuntimeError"))
    assert find_reason(log) == "KeyError: 'ground_truth' (which led to RuntimeError: step 4 failed)"


def test_an_error_while_another_was_handled_is_its_consequence() -> None:
    error = (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n\n"
        "During handling of the above exception, another exception occurred:\n\n"
        'Traceback (most recent call last):\n  File "x.py", line 9, in close\nConnectionResetError: [Errno 104] gone'
    )
    assert find_reason(ended(quoted(RUNNER, error))).startswith("torch.OutOfMemoryError: CUDA out of memory.")


def test_an_actor_that_fails_at_its_start() -> None:
    died = (
        "ray.exceptions.ActorDiedError: The actor died because of an error raised in its creation task, "
        f'{WORKER.replace("update_actor", "__init__")}\n  File "x.py", line 6, in __init__\n'
        "RuntimeError: no space on device"
    )
    assert find_reason(ended(quoted(RUNNER, died, "ActorDiedError"))) == "RuntimeError: no space on device"


DIED = """\
ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.
\tclass_name: create_colocated_worker_cls.<locals>.WorkerDict
\tactor_id: dd
\tpid: 47
\tname: RQrBIHWorkerDict_0:0
\tip: 10.0.0.2
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"""


@pytest.mark.parametrize(
    "known",
    [
        quoted(RUNNER, DIED, "ActorDiedError"),
        quoted(RUNNER, "ray.exceptions.GetTimeoutError: Get timed out: some object(s) not ready.", "GetTimeoutError"),
        quoted(RUNNER, "torch.distributed.DistBackendError: NCCL error: remote process exited", "DistBackendError"),
        quoted(
            RUNNER,
            "RuntimeError: Sync replay buffer selected terminal groups with no materializable trajectories. Enable "
            "trainer.v1.sampler.sync_refill_failed_groups to replace failed groups.",
            "RuntimeError",
        ),
    ],
)
def test_where_the_driver_knows_only_of_an_end_a_worker_says_why(known: str) -> None:
    """verl's own advice for a step without rollouts does not help where every rollout failed in its worker."""
    worker = [
        "(AgentLoopWorker pid=51, ip=10.0.0.2) ERROR:Error in _run_prompt for uid=8",
        "(AgentLoopWorker pid=51, ip=10.0.0.2) Traceback (most recent call last):",
        '(AgentLoopWorker pid=51, ip=10.0.0.2)   File "/env/verl/agent_loop.py", line 7, in run',
        "(AgentLoopWorker pid=51, ip=10.0.0.2) ValueError: chat_template is not set [repeated 8x across cluster]",
    ]
    handled = ["(TaskRunnerV1 pid=45) Traceback (most recent call last):", "(TaskRunnerV1 pid=45) OSError: tried again"]
    log = [*handled, STEP, *worker, *ended(known)[1:]]
    assert find_reason(log) == "ValueError: chat_template is not set"


def test_what_failed_inside_vllm_is_why_its_weight_sync_did() -> None:
    """The engine's processes log with a prefix of their own, behind Ray's for the server."""
    engine = """\
ERROR 11-26 15:48:20 [multiproc_executor.py:1018] WorkerProc hit an exception.
ERROR 11-26 15:48:20 [multiproc_executor.py:1018] Traceback (most recent call last):
ERROR 11-26 15:48:20 [multiproc_executor.py:1018]     param.weight_loader(param, loaded_weight, shard_id)
ERROR 11-26 15:48:20 [multiproc_executor.py:1018] AttributeError: 'Parameter' object has no attribute 'weight_loader'
ERROR 11-26 15:48:20 [multiproc_executor.py:1018]
ERROR 11-26 15:48:20 [multiproc_executor.py:1018] During handling of the above exception, another exception occurred:
ERROR 11-26 15:48:20 [multiproc_executor.py:1018]
ERROR 11-26 15:48:20 [multiproc_executor.py:1018] Traceback (most recent call last):
ERROR 11-26 15:48:20 [multiproc_executor.py:1018]     self._mmap.close()
ERROR 11-26 15:48:20 [multiproc_executor.py:1018] BufferError: cannot close exported pointers exist"""
    worker = [f"(vLLMHttpServer pid=71) (Worker pid=89) {line}" for line in engine.splitlines()]
    own = "rollout engine 0 has failed to load the weights that the trainer sends it"
    log = ended(quoted(RUNNER, DIED, "ActorDiedError"))
    watched = [STEP, f"(TaskRunnerV1 pid=45) WeightSyncError: {own}", *log[1:]]
    assert find_reason(watched) == own
    assert find_reason([STEP, *worker, *watched[1:]]) == (
        "AttributeError: 'Parameter' object has no attribute 'weight_loader' (which led to BufferError: cannot close "
        "exported pointers exist)"
    )


def test_a_worker_that_only_died_is_named() -> None:
    log = ended(quoted(RUNNER, DIED, "ActorDiedError"))
    assert find_reason(log) == "WorkerDict (pid 47 on 10.0.0.2) died"
    killed = "(raylet) 1 Workers (tasks / actors) killed due to memory pressure (OOM), 0 Workers crashed"
    assert find_reason([STEP, killed, *log[1:]]) == f"WorkerDict (pid 47 on 10.0.0.2) died: {killed[9:]}"


def test_the_trainers_own_word_stands_where_no_cause_is_known() -> None:
    own = (
        f"{DIED}\n\nThe above exception was the direct cause of the following exception:\n\n{RUNNER}\n"
        "verl_ispo.trainer.verl_workarounds.dead_workers.DeadWorkerError: agent-loop worker 0 died while the trainer "
        "waited for rollouts"
    )
    reason = find_reason(ended(quoted(RUNNER, own, "DeadWorkerError")))
    assert reason == "agent-loop worker 0 died while the trainer waited for rollouts"


def test_an_error_before_ray_and_one_without_hydras_words() -> None:
    log = [
        *DRIVER.splitlines(),
        "omegaconf.errors.ConfigAttributeError: Key 'x' is not in struct",
        *TEARDOWN.splitlines(),
    ]
    assert find_reason(log) == "omegaconf.errors.ConfigAttributeError: Key 'x' is not in struct"
    bare = [*DRIVER.splitlines(), "AssertionError", *TEARDOWN.splitlines()]
    assert find_reason(bare) == "AssertionError"


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (
            "[2026-11-26 13:28:07,118 E 9389 9565] rpc_client.h:204: Failed to connect to GCS within 60 seconds.",
            "Failed to connect to GCS within 60 seconds.",
        ),
        (
            "[2026-11-26 13:20:57,943 E 32029 32408] core_worker_process.cc:1029: Failed to get the system config from "
            "raylet because it is dead.",
            "Failed to get the system config from raylet because it is dead.",
        ),
        (
            "the fork server at /tmp/a/socket does not answer: it ended before its process 7249",
            "the fork server at /tmp/a/socket does not answer: it ended before its process 7249",
        ),
    ],
)
def test_a_driver_that_ends_without_an_exception_has_last_words(last: str, reason: str) -> None:
    """Ray's C++ part ends a process with a line of its own, and a killed fork server takes its forks with it."""
    log = [STEP, last]
    assert find_reason(log) == reason
    assert find_reason([STEP, f"(raylet) {last}"]) == "", "it is not the driver's"
    assert find_reason([*log, LAST_WORDS, *DRIVER.splitlines(), "ValueError: the cause"]) == "ValueError: the cause"


def test_a_log_without_an_error_has_no_reason() -> None:
    assert find_reason([]) == ""
    assert find_reason([STEP, "(raylet) all is well", "no Error: here"]) == ""


ERRORS = st.sampled_from(["ValueError: a", "KeyError: 'b'", "torch.OutOfMemoryError: c", "AssertionError: d: e"])
LINKS = st.sampled_from(["The above exception was the direct cause of the following exception:",
                         "During handling of the above exception, another exception occurred:"])  # fmt: skip


@given(cause=ERRORS, later=st.lists(st.tuples(LINKS, ERRORS), max_size=3), tasks=st.integers(0, 3), handled=ERRORS)
def test_however_deep_and_however_wrapped(cause: str, later: list[tuple[str, str]], tasks: int, handled: str) -> None:
    """Any chain within any number of tasks, after errors that earlier steps survived and before any teardown."""
    text = cause + "".join(f"\n\n{link}\n\n{WORKER}\n{error}" for link, error in later)
    for _ in range(tasks):
        text = quoted(WORKER, text)
    log = ["Traceback (most recent call last):", handled, *ended(text if tasks else f"{text}\n")]
    reason = find_reason(log)
    assert reason.split(" (which led to ")[0] == cause
    if later:
        assert reason.endswith(f"(which led to {later[-1][1]})")
