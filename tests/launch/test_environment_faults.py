"""What may be wrong with a machine: a full disk, a clock that jumps, two starts at once, a home that cannot be used,
paths with any characters. Nothing that was there is lost, and a message names value, place and remedy.

The training is a small program (fake_training.py). Not exercised here: a disk that fills up inside verl's own save, and
another user than root with a real training, which were tried by hand (docs/cluster.md).
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.launch.fake_training import FakeTraining
from verl_ispo.atomic_file import write_text
from verl_ispo.launch import start_training, training_progress
from verl_ispo.launch.ray_cluster import passed_variable, use_token
from verl_ispo.preflight.hydra_overrides import quoted

Train = Callable[..., tuple[int, str, str]]


@pytest.fixture
def train(command: Callable, data: Path, fake: FakeTraining) -> Train:
    def run(*more: str, out: str | Path = "run", steps: int = 5) -> tuple[int, str, str]:
        return command(
            "train", "--model=qwen2_5_7b", "--method=grpo", f"--data={data}", f"--out={out}", f"--steps={steps}", *more
        )

    return run


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes reach no disk from here on."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)


def test_a_full_disk_keeps_what_was_there_and_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails says only "No space left on device", on which disk it was is for its reader to guess."""
    file = tmp_path / "file"
    write_text(file, "old")
    fill_the_disk(monkeypatch)
    with pytest.raises(OSError, match="No space left on device") as error:
        write_text(file, "new")
    assert str(file) in str(error.value)
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_start_on_a_full_disk_is_one_sentence_and_starts_nothing(
    train: Train, fake: FakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(steps=4)[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    fill_the_disk(monkeypatch)
    status, _, err = train()
    assert status == 2
    assert "No space left on device" in err
    assert str(tmp_path / "run") in err
    assert "free space" in err
    assert len(fake.commands()) == 1
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_training_that_ends_on_a_full_disk_says_so(
    train: Train, fake: FakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log lies on the same disk, so its last line there is an old one, or half a line."""
    fake.says, fake.status = "ValueError: of a step before", 120
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 4096))
    status, _, err = train()
    assert status == 1
    assert f"the disk of {tmp_path / 'run'} is full (4096 bytes are free); free some space there" in err
    assert "the same command" in err
    assert "ValueError" not in err


def test_a_screen_on_a_full_disk_does_not_end_the_training(
    train: Train, fake: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher's output is often a file (nohup, Slurm), and a failure to show a line killed what trained."""
    fake.says = "a line"
    with open("/dev/full", "w") as full:

        def shown(log: Path) -> Iterator[None]:
            for line in training_progress.show_log(log):
                full.write("x")
                full.flush()
                yield line

        monkeypatch.setattr(start_training, "show_log", shown)
        assert train()[0] == 0
        with suppress(OSError):
            full.close()


def test_a_line_that_was_cut_off_does_not_end_the_progress_bar(tmp_path: Path) -> None:
    """A line of the metrics that met a full disk has its next one glued to it; the bar's reader raised."""
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step":1,"data":{"critic/sc{"step":2,"data":{}}\n{"step":3,"data":{"critic/score/mean":null}}\n')
    bar = training_progress.show_bar(file, 5, "run")
    next(bar)
    next(bar)
    bar.close()


@pytest.mark.parametrize("jump", [-1e6, 1e9, -2e9])
def test_a_clock_that_jumps_changes_nothing(
    train: Train, fake: FakeTraining, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    real, calls = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: max(0.0, real() + jump * (next(calls) % 2)))
    status, out, err = train(f"--screen={'log' if jump > 0 else 'progress'}")
    assert status == 0, err
    assert "done" in out


TWO = """
import sys
from pathlib import Path
from tests.launch.conftest import composed_quickly
from tests.launch.fake_training import FakeTraining
from verl_ispo import cli
from verl_ispo.launch import start_training, training_settings
training_settings.compose_config = composed_quickly
start_training.run_process = FakeTraining(Path(sys.argv[1]), stays=Path(sys.argv[2])).run_process
print("ready", flush=True)
sys.stdin.readline()
sys.exit(cli.main(["train", *sys.argv[3:]]))
"""


def test_two_starts_at_once_are_one(data: Path, tmp_path: Path) -> None:
    """The folder is not there yet, so both make it."""
    end = tmp_path / "end"
    words = [str(tmp_path), str(end), "--model=qwen2_5_7b", "--method=grpo", f"--data={data}", f"--out={tmp_path}/run"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [
        subprocess.Popen([sys.executable, "-c", TWO, *words], cwd=Path(__file__).parents[2], text=True, **pipes)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    refused = next(process for process in waited(both))
    said = refused.communicate()[1]
    end.touch()
    (other,) = [process for process in both if process is not refused]
    _, errors = other.communicate(timeout=60)
    assert (refused.returncode, other.returncode) == (1, 0), said + errors
    assert "another process works in" in said
    assert len(FakeTraining(tmp_path).commands()) == 1
    assert sorted(path.name for path in (tmp_path / "run").glob("*.1.*")) == ["command.1.txt", "train.1.log"]


def waited(processes: list[subprocess.Popen[str]], timeout_s: float = 60.0) -> list[subprocess.Popen[str]]:
    """Those that have ended, as soon as there is one."""
    end = time.monotonic() + timeout_s
    while not (ended := [process for process in processes if process.poll() is not None]):
        assert time.monotonic() < end
        time.sleep(0.05)
    return ended


@pytest.mark.parametrize("home", ["/proc/1/nothing", "/nonexistent", None])
def test_a_home_that_cannot_be_used_does_not_matter(
    train: Train, fake: FakeTraining, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    if home is None:  # and no line in /etc/passwd, as in a container that runs under any number
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    else:
        monkeypatch.setenv("HOME", home)
    assert train("--ray-address=head:1")[0] == 0
    assert len(fake.commands()) == 1


def test_a_home_that_may_not_be_looked_into_has_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of root's, for a user who got the HOME of the shell that started the container."""

    def denied(path: object, **_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    environment = {"HOME": "/root"}
    with monkeypatch.context() as context:
        context.setattr(os, "stat", denied)
        use_token(environment)
    assert environment == {"HOME": "/root"}


@pytest.mark.parametrize("home", ["read-only", "not there", "writable"])
def test_a_start_does_not_need_a_home_that_can_be_written(
    train: Train, fake: FakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    """Ray writes ``~/.ray/auth_token``, datasets ``~/.cache/huggingface``, and both failed where they could not."""
    folder = tmp_path / "home"
    if home != "not there":
        folder.mkdir()
    monkeypatch.setenv("HOME", str(folder) if home != "not there" else "/nonexistent/home")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "XDG_CACHE_HOME", "HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    allowed = os.access
    # root may write everywhere, whatever the permissions say
    monkeypatch.setattr(os, "access", lambda path, mode: home == "writable" and allowed(path, mode))
    assert train()[0] == 0
    environment = fake.noted()[0]["environment"]
    caches = {"XDG_CACHE_HOME": "cache", "HF_DATASETS_CACHE": "cache/datasets"}
    expected = {} if home == "writable" else {name: f"{tmp_path}/run/{part}" for name, part in caches.items()}
    assert {name: environment[name] for name in caches if name in environment} == expected
    if home == "read-only":
        assert environment["HF_HOME"] == f"{folder}/.cache/huggingface", "models there are still found"
    token = environment.get("RAY_AUTH_TOKEN")
    assert (token is None) == (home == "writable")
    assert token is None or len(token) == 64
    assert token is None or token not in " ".join(fake.commands()[0])


NAME = "a b,c=d é'\"[x]{y}$z"


def test_paths_with_any_characters(train: Train, fake: FakeTraining, data: Path, tmp_path: Path) -> None:
    out, new_data = tmp_path / NAME / "run", tmp_path / f"data {NAME}"
    data.rename(new_data)
    status, _, err = train(f"--data={new_data}", out=out)
    assert status == 0, err
    (command,) = fake.commands()
    assert f"hydra.run.dir={quoted(out)}" in command
    assert (out / "train.1.log").exists()
    assert train(f"--data={new_data}", out=out)[1].startswith(f"{out}: its 5 steps are done")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r/$"), min_size=1, max_size=12))
@settings(max_examples=examples(40))
def test_any_path_is_read_back_from_an_override(name: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for override in (f"a={quoted(f'/x/{name}')}", passed_variable("A", f"/x/{name}")):
        assert str(OverridesParser.create().parse_override(override).value()) == f"/x/{name}"
