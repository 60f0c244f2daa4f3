"""A node of a Ray cluster: what ``ray start`` is told, and waiting for the head.

Not exercised: a Ray over several machines; two nodes on this one are in tests/training/test_launcher.py.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from verl_ispo.launch import ray_node
from verl_ispo.launch.ray_cluster import use_token


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """What the process would have become."""
    calls: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda _, words, environment: calls.append((words, environment)))
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    return calls


def test_a_worker_without_a_head_gives_up_with_a_remedy(became: list, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        assert ray_node.main(["worker", "--ray-address", address, "--tries", "1"]) == 1
    assert f"no answer from {address} after 1 tries" in capsys.readouterr().err
    assert not became


def test_a_worker_waits_until_the_head_answers(became: list, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        given = ["--node-ip", "1.2.3.4", "--num-gpus", "8", "--num-cpus", "16", "--block"]
        ray_node.main(["worker", "--ray-address", address, *given])
    ((words, environment),) = became
    sizes = ["--node-ip-address=1.2.3.4", "--num-gpus=8", "--num-cpus=16", "--block"]
    assert words == [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={address}", "--disable-usage-stats"),
        *sizes,
    ]
    assert "RAY_worker_niceness" not in environment


def test_logical_sizes_on_a_cpu_and_no_joining_of_another_cluster(
    became: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setenv("RAY_ADDRESS", "other:1")
    ray_node.main(["head"])
    ((words, environment),) = became
    sizes = "--num-gpus=1 --num-cpus=32"
    assert " ".join(words[1:]) == f"-m ray.scripts.scripts start --head --port=6379 --disable-usage-stats {sizes}"
    assert "RAY_ADDRESS" not in environment
    assert environment["RAY_worker_niceness"] == "0", "workers do not starve beside other work"


def test_a_token_is_brought_along_where_there_is_one(tmp_path: Path) -> None:
    there = tmp_path / "token"
    there.touch()
    for environment, mode in (
        ({"RAY_AUTH_TOKEN": "secret"}, "token"),
        ({"RAY_AUTH_TOKEN_PATH": str(there)}, "token"),
        ({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}, None),
        ({"RAY_AUTH_TOKEN": "secret", "RAY_AUTH_MODE": "disabled"}, "disabled"),
    ):
        use_token(environment)
        assert environment.get("RAY_AUTH_MODE") == mode


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["worker", "--ray-address", "http://head:8265"], ("RAY_ADDRESS=http://head:8265", "host:port")),
        (["worker"], ("RAY_ADDRESS=", "host:port of the head", "start_head.sh prints")),
        (["worker", "--ray-address", "head:1", "--tries", "0"], ("TRIES=0", "whole number")),
        (["head", "--port", "0"], ("PORT=0", "whole number")),
        (
            ["worker", "--ray-address", "10.0.0.1:6379", "--node-ip", "127.0.1.1"],
            ("NODE_IP=127.0.1.1", "does not reach this node", "RAY_INTERFACE"),
        ),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], parts: tuple[str, ...], became: list, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ray_node.main(arguments) == 2
    said = capsys.readouterr().err
    for part in parts:
        assert part in said
    assert not became
