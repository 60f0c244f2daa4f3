"""Half-written files never get a final name, whatever stops the run, and two runs do not mix.

Derivation. A run can be stopped by a kill, a signal, a full disk or an exception, at any moment. After each, the folder
must hold either the old output whole or the new one whole, and the next run must succeed and clean up. Kills are tried
at chosen moments (a stand-in announces the moment and waits), and at moments spread over a whole run. The full disk is
a real one, a file system of 256 KiB, where this user may mount it; elsewhere a file that refuses to grow.

Not exercised: a power cut, for which the files and the folder are flushed to the disk before and after renaming.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_problems import REPOSITORY, command, made_benchmark, made_rows, result_of, write_jsonl

from data_prep.atomic_output import OutputFiles, exclusive_output
from verl_ispo.user_error import UserError

# More than one batch, so that there is a second one to be killed in.
ROWS = 9_000
ENDINGS = ["card.json", "card.md", "dropped.jsonl", "near_duplicates.jsonl", "parquet"]

# Runs the generic command, but says so and waits when the named method is reached for the given time.
STOPPING = """
import signal, sys, time
from importlib import import_module
# a background job of a script ignores it from the start, and so would all processes that the tests start there
signal.signal(signal.SIGINT, signal.default_int_handler)
module, holder, method, call = sys.argv[1:5]
holder = getattr(import_module(module), holder)
original, calls = getattr(holder, method), [0]
def stop(*arguments, **options):
    calls[0] += 1
    if calls[0] == int(call):
        print("here", flush=True)
        time.sleep(600)
    return original(*arguments, **options)
setattr(holder, method, stop)
from data_prep.preparation_command import run_training_set
from data_prep.generic import SOURCE
raise SystemExit(run_training_set(SOURCE, sys.argv[5:]))
"""
MOMENTS = [
    ("data_prep.spool", "SpoolWriter", "append", 2),
    ("data_prep.row_writer", "RowWriter", "write", 2),
    ("data_prep.atomic_output", "OutputFiles", "publish", 1),
]


@pytest.fixture
def arguments(tmp_path):
    source = write_jsonl(tmp_path / "train.jsonl", made_rows(ROWS))
    options = ["--data_source", "made", "--no_decontaminate", "--local_save_dir", tmp_path / "out"]
    return [str(argument) for argument in ["--local_dataset_path", source, *options]]


@pytest.fixture
def previous(arguments, tmp_path):
    """Bytes of an output that exists already, by ending."""
    assert command("generic", *arguments) == 0
    return {name: (tmp_path / "out" / f"made.{name}").read_bytes() for name in ENDINGS}


def finals(folder: Path) -> list[str]:
    return sorted(path.name.removeprefix("made.") for path in folder.glob("made.*"))


def temporaries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*.tmp"))


def started(arguments: list[str], *moment: object) -> subprocess.Popen:
    code = [sys.executable, "-c", STOPPING, *map(str, moment), *arguments]
    process = subprocess.Popen(code, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "here\n"
    return process


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment[2])
def test_a_kill_leaves_nothing_under_a_final_name_and_the_next_run_succeeds(tmp_path, arguments, moment):
    process = started(arguments, *moment)
    process.kill()
    process.communicate()
    folder = tmp_path / "out"
    assert finals(folder) == []
    assert temporaries(folder)
    assert command("generic", *arguments) == 0
    assert finals(folder) == ENDINGS
    assert temporaries(folder) == []
    assert len(result_of(folder, "made").rows) == ROWS


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cleans_up_and_leaves_the_old_output(tmp_path, arguments, previous, stop):
    folder = tmp_path / "out"
    process = started([*arguments, "--template", "plain"], *MOMENTS[1])
    process.send_signal(stop)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "python -m data_prep.generic: interrupted; nothing was changed"
    assert {name: (folder / f"made.{name}").read_bytes() for name in finals(folder)} == previous
    assert temporaries(folder) == []


@pytest.mark.volume
def test_kills_at_any_time_leave_old_or_new_output_whole(tmp_path, arguments):
    folder = tmp_path / "out"
    start = time.perf_counter()
    run = [sys.executable, "-m", "data_prep.generic", *arguments]
    subprocess.run(run, cwd=REPOSITORY, check=True, capture_output=True)
    whole_run_s = time.perf_counter() - start
    old = (folder / "made.parquet").read_bytes()
    seen = set()
    for step in range(6):
        process = subprocess.Popen(
            [*run, "--template", "plain"], cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(whole_run_s * (step + 3) / 8)
        process.kill()
        process.wait()
        is_old = (folder / "made.parquet").read_bytes() == old
        seen.add(is_old)
        assert pq.ParquetFile(folder / "made.parquet").metadata.num_rows == ROWS
        assert is_old or result_of(folder, "made").card["output"]["template"] == "plain"
    assert True in seen


def test_two_preparations_of_one_output_exclude_each_other(tmp_path, arguments, capsys):
    process = started(arguments, *MOMENTS[1])
    assert command("generic", *arguments) == 2
    message = capsys.readouterr().err
    assert "made.parquet: another process is preparing it" in message
    assert str(tmp_path / "out") in message
    # Another output of the same folder is free.
    source = made_benchmark("aime25", tmp_path / "aime25.jsonl")
    assert command("aime25", "--local_dataset_path", source, "--local_save_dir", tmp_path / "out") == 0
    # The lock ends with its holder.
    process.kill()
    process.communicate()
    assert command("generic", *arguments) == 0


def test_the_first_of_two_preparations_is_not_disturbed(tmp_path):
    with exclusive_output(tmp_path, "made") as output:
        output.write_text("card.md", "mine")
        with pytest.raises(UserError, match="another process"), exclusive_output(tmp_path, "made"):
            pass
        assert temporaries(tmp_path) == [".made.card.md.tmp"]
        output.publish()
    assert (tmp_path / "made.card.md").read_text() == "mine"


def test_an_exception_leaves_nothing(tmp_path):
    def fails():
        with exclusive_output(tmp_path, "made") as output:
            output.write_text("card.md", "half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_the_temporaries_of_other_outputs_are_left_alone(tmp_path):
    (tmp_path / ".other.parquet.tmp").write_text("someone else's")
    (tmp_path / ".made.parquet.tmp").write_text("a dead run's")
    with exclusive_output(tmp_path, "made"):
        assert temporaries(tmp_path) == [".other.parquet.tmp"]


@pytest.fixture
def tiny_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_and_the_old_output_stays(tiny_disk, arguments, tmp_path, capsys):
    small = write_jsonl(tmp_path / "small.jsonl", made_rows(10))
    arguments = [*arguments, "--local_save_dir", str(tiny_disk)]
    assert command("generic", *arguments, "--local_dataset_path", small) == 0
    before = (tiny_disk / "made.parquet").read_bytes()
    capsys.readouterr()
    assert command("generic", *arguments) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"--local_save_dir {tiny_disk}: no space left on the device; free some" in message
    assert (tiny_disk / "made.parquet").read_bytes() == before
    assert temporaries(tiny_disk) == []


class RefusesToGrow:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file, free_bytes):
        self.file, self.free_bytes = file, free_bytes

    def write(self, data):
        self.free_bytes -= len(data)
        if self.free_bytes < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("free_bytes", [0, 10, 5_000])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_disk_that_fills_up_while_any_file_is_written(tmp_path, capsys, monkeypatch, ending, free_bytes):
    source = tmp_path / "train.jsonl"
    near = [{"question": row["question"] + " again", "answer": row["answer"]} for row in made_rows(30, first=10)]
    write_jsonl(source, [*made_rows(2000), *near, *({"question": f"Q{i}", "answer": ""} for i in range(100))])
    original = OutputFiles.create

    def create(self, name):
        file = original(self, name)
        return RefusesToGrow(file, free_bytes) if name == ending else file

    monkeypatch.setattr(OutputFiles, "create", create)
    arguments = ["--local_dataset_path", source, "--data_source", "made", "--no_decontaminate"]
    if command("generic", *arguments, "--local_save_dir", tmp_path / "out") == 0:
        assert ending.startswith("card")  # cards are smaller than the largest limit
        assert free_bytes == 5_000
        return
    assert "no space left on the device" in capsys.readouterr().err
    assert finals(tmp_path / "out") == temporaries(tmp_path / "out") == []


@pytest.mark.parametrize("kind", ["a file", "below a file", "the parquet is a folder"])
def test_an_output_folder_that_cannot_be_used_is_named(tmp_path, capsys, kind):
    source = write_jsonl(tmp_path / "train.jsonl", made_rows(3))
    folder = tmp_path / "out"
    if kind == "the parquet is a folder":
        (folder / "made.parquet").mkdir(parents=True)
    else:
        folder.write_text("I am a file")
    target = folder / "deeper" if kind == "below a file" else folder
    arguments = ["--local_dataset_path", source, "--data_source", "made", "--no_decontaminate"]
    assert command("generic", *arguments, "--local_save_dir", target) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert str(target) in message
    assert "move it away" in message
    assert kind == "the parquet is a folder" or folder.read_text() == "I am a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(tmp_path, capsys):
    source = write_jsonl(tmp_path / "train.jsonl", made_rows(3))
    (tmp_path / "out").mkdir(mode=0o500)
    arguments = ["--local_dataset_path", source, "--data_source", "made", "--no_decontaminate"]
    assert command("generic", *arguments, "--local_save_dir", tmp_path / "out") == 2
    assert "no permission to write" in capsys.readouterr().err
