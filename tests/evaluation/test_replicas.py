"""Several engines at once: what they draw does not depend on how many there are, nor on which of them dies.

- Two and three replicas give the files of an evaluation without any, byte for byte.
- A replica that is killed with SIGKILL in the middle (a real Ray actor) is started again and named, and nothing shows
  in the files; one that dies each time ends the evaluation with a sentence, and what was drawn is kept.
- Work: every request is given out once, whole prompts together, in fewer at a time towards the end.

Not exercised: replicas on GPUs and on other machines, and vLLM in them.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.test_run import final_bytes
from tests.examples import examples
from verl_ispo.cpu.sampling import SampleRequest
from verl_ispo.evaluation import replicas
from verl_ispo.evaluation.evaluation_options import EvaluationOptions
from verl_ispo.evaluation.replicas import default_replicas, load_replicas
from verl_ispo.evaluation.run import LOG_NAME, evaluate
from verl_ispo.user_error import UserError


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray for the tests of this file; an evaluation that finds it running leaves it so."""
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    yield
    ray.shutdown()


@settings(max_examples=examples(100), deadline=None)
@given(
    prompts=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=40),
    count=st.integers(1, 5),
    most=st.sampled_from([64, 2048]),
)
def test_every_request_is_given_out_once_with_its_prompt(prompts: list[tuple[int, int]], count: int, most: int) -> None:
    requests = [SampleRequest((index, token), 1) for index, (token, times) in enumerate(prompts) for _ in range(times)]
    work = replicas._Work(requests)
    given_out = []
    while work.waiting:
        given_out.append(work.take(count, most))
        if len(given_out) == 2:
            work.give_back(given_out.pop())
            given_out.append(work.take(count, most))
    assert [index for indices in given_out for index in indices] == list(range(len(requests)))
    for earlier, later in pairwise(given_out):
        assert requests[earlier[-1]].prompt_ids != requests[later[0]].prompt_ids
    for indices in given_out:
        one_prompt = len({requests[index].prompt_ids for index in indices}) == 1
        assert len(indices) <= most or one_prompt


def _is_engine(command_line: list[str] | None) -> bool:
    return bool(command_line) and command_line[0].startswith("ray::_Engine")


@pytest.mark.trainer
def test_a_killed_replica_is_started_again_and_shows_in_no_file(
    options: EvaluationOptions, tmp_path: Path, cluster: None, capfd: pytest.CaptureFixture[str]
) -> None:
    options = dataclasses.replace(options, method="same", n=60, max_new_tokens=60)
    evaluate(options)
    out = tmp_path / "killed"
    killed = []

    def kill_one() -> None:
        log = out / LOG_NAME
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (log.exists() and log.stat().st_size):
            time.sleep(0.002)
        # Ray names a worker after what runs in it
        engine = next(one for one in psutil.process_iter(["cmdline"]) if _is_engine(one.info["cmdline"]))
        engine.kill()
        killed.append(engine.pid)

    killer = threading.Thread(target=kill_one)
    killer.start()
    evaluate(dataclasses.replace(options, out=out, replicas=3))
    killer.join()
    said = capfd.readouterr().err
    assert killed, "the evaluation ended before the kill"
    assert f"(process {killed[0]}) died" in said
    assert "responses are drawn again (restart 1 of 3)" in said
    assert final_bytes(out) == final_bytes(options.out)


class _DiesOnOnePrompt:
    def __call__(self, requests: list[SampleRequest]) -> Iterator[list[tuple[int, object]]]:
        if any(request.prompt_ids == (7,) for request in requests):
            os._exit(1)
        yield [(index, request.seed) for index, request in enumerate(requests)]


@pytest.fixture
def one_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As each start of an engine takes seconds."""
    monkeypatch.setattr(replicas, "MAX_RESTARTS", 1)


@pytest.mark.trainer
@pytest.mark.volume
def test_one_that_dies_each_time_ends_the_evaluation(
    cluster: None, one_restart: None, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = [SampleRequest((token,), 1, seed=token) for token in range(8) for _ in range(40)]
    drawn: list[int] = []
    batches = load_replicas(_DiesOnOnePrompt, 2, 0)(requests)
    with pytest.raises(UserError, match=r"replica \d .* died: .*That is 2 times"):
        drawn.extend(index for batch in batches for index, _ in batch)
    assert drawn
    assert len(set(drawn)) == len(drawn)
    assert capsys.readouterr().err.count("responses are drawn again (restart 1 of 1)") == 1


@pytest.mark.trainer
@pytest.mark.volume
def test_an_engine_that_does_not_load_says_why(
    cluster: None, one_restart: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> None:
        raise OSError("no weights in /models/x")

    with pytest.raises(UserError, match=r"no weights in /models/x"):
        list(load_replicas(load, 2, 0)([SampleRequest((1,), 1)]))
    assert "that has not started" in capsys.readouterr().err


def test_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(replicas, "available_gpus", lambda: 4)
    assert default_replicas(2) == 2
    assert default_replicas(0) == 1
    with pytest.raises(
        UserError, match=r"--replicas 3 of 2 GPU\(s\) need 6, and this machine has 4; give --replicas 2"
    ):
        load_replicas(lambda: None, 3, 2)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(UserError, match=r"--tensor-parallel-size 8: 4 GPU\(s\) in the cluster at 10\.0\.0\.1:6379"):
        default_replicas(8)


@pytest.mark.trainer
def test_the_commands_own_ray_ends_with_it_and_sigterm_keeps_what_is_drawn(
    options: EvaluationOptions, tmp_path: Path
) -> None:
    """As a user runs it: no Ray is there before, and a scheduler's SIGTERM gives 130 and a run that resumes."""
    out = tmp_path / "own"
    alone = dataclasses.replace(options, method="own", n=60, max_new_tokens=60)
    evaluate(alone)
    command = [sys.executable, "-m", "verl_ispo.cli", "eval", "--model", options.model, "--out", str(out)]
    command += ["--benchmarks", str(options.benchmarks[0]), "--n", "60", "--max-new-tokens", "60", "--method", "own"]
    command += ["--reward-function", options.reward_function, "--sampler", "cpu", "--replicas", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    log = out / LOG_NAME
    deadline = time.monotonic() + 180
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command resumes" in said
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert finished.returncode == 0, finished.stderr
    assert "Resuming:" in finished.stdout
    assert "2 replicas" in finished.stdout
    assert final_bytes(out) == final_bytes(alone.out)
