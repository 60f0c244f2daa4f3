"""``verl-ispo eval --server`` against a real ``vllm serve``, beside the CPU sampler.

Derivation: a server gets the prompt as token ids, or makes the same ids from the messages by the served chat template;
greedy responses depend on the model alone, so they are the CPU sampler's, tokens, ends and log-probs (float32 beside
float64: 1e-4).

Not exercised: a server on a GPU, and other servers (tests/evaluation/test_server.py has a stand-in).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from tests.training.conftest import ENVIRONMENT, TinyTask
from verl_ispo import cli
from verl_ispo.evaluation.results import SAMPLES_NAME

pytestmark = pytest.mark.trainer

QUESTIONS, START_LIMIT_S = 60, 300


@pytest.fixture(scope="module")
def server(tiny_task: TinyTask) -> Iterator[str]:
    """The address of a server of the tiny model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("vllm")),
        "serve",
        str(tiny_task.model),
        "--served-model-name",
        "tiny",
    ]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", "128", "--kv-cache-memory-bytes", str(1 << 28)]
    environment = {**os.environ, **ENVIRONMENT, "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + START_LIMIT_S
    try:
        while not answers(f"{address}/health"):
            assert process.poll() is None, "vllm serve has ended"
            assert time.monotonic() < end, "vllm serve does not start"
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except (OSError, urllib.error.URLError):
        return False


@pytest.fixture(scope="module")
def problems(tiny_task: TinyTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = pyarrow.parquet.read_table(tiny_task.data / "heldout.parquet").to_pylist()
    path = tmp_path_factory.mktemp("problems") / "heldout.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[:: max(1, len(rows) // QUESTIONS)]), path)
    return path


def evaluated(task: TinyTask, problems: Path, out: Path, *more: str) -> list[dict[str, Any]]:
    arguments = ["eval", "--model", str(task.model), "--benchmarks", str(problems), "--out", str(out), "--n", "1"]
    arguments += ["--max-new-tokens", "48", "--reward-function", "pkg://verl_ispo.tiny_task.reward", *more]
    assert cli.main(arguments) == 0
    return [json.loads(line) for line in (out / SAMPLES_NAME).read_text().splitlines()]


def test_greedy_responses_are_the_cpu_samplers_and_seeds_repeat(
    tiny_task: TinyTask, problems: Path, server: str, tmp_path: Path
) -> None:
    of_cpu = evaluated(tiny_task, problems, tmp_path / "cpu", "--sampler", "cpu")
    by_prompts = {}
    for prompts in ("token-ids", "chat"):
        out = tmp_path / prompts
        served = by_prompts[prompts] = evaluated(
            tiny_task, problems, out, "--server", server, "--server-prompts", prompts
        )
        assert json.loads((out / "manifest.json").read_text())["sampler"]["missing"] == []
        for theirs, ours in zip(served, of_cpu, strict=True):
            if ours["mode"] != "greedy":
                continue
            assert {name: theirs[name] for name in ("text", "tokens", "finish_reason", "correct")} == {
                name: ours[name] for name in ("text", "tokens", "finish_reason", "correct")
            }
            for name in ("response_log_prob", "answer_log_prob"):
                assert theirs[name] == pytest.approx(ours[name], abs=1e-4)
    # one server, one seed each: the two ways of asking for a prompt draw the same responses
    texts = [[sample["text"] for sample in samples] for samples in by_prompts.values()]
    assert texts[0] == texts[1]
    assert sum(a["text"] != b["text"] for a, b in zip(by_prompts["chat"], of_cpu, strict=True)) > 0, "samples differ"
