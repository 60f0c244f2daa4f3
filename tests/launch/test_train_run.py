"""What ``verl-ispo train`` does around a training: one writer per folder, one log per start, resuming, signals.

The training is a small program that notes its calls (fake_training.py); all around it is real, the lock, the process
and the signals included. Not exercised: verl's own resuming (tests/training).
"""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from tests.launch.conftest import composed_quickly
from tests.launch.fake_training import FakeTraining
from verl_ispo.launch import start_training, training_settings
from verl_ispo.launch.longer_context import ContextError
from verl_ispo.launch.run_folder import FolderBusyError, locked
from verl_ispo.launch.stop_reason import find_reason
from verl_ispo.launch.training_options import TrainingOptions
from verl_ispo.launch.training_process import call, killed_by
from verl_ispo.launch.training_progress import show_bar

Command = Callable[..., tuple[int, str, str]]
Train = Callable[..., tuple[int, str, str]]


@pytest.fixture
def train(command: Command, data: Path, fake: FakeTraining) -> Train:
    def run(more: Sequence[str] = (), **options: str) -> tuple[int, str, str]:
        given = {"model": "qwen2_5_7b", "method": "grpo", "data": str(data), "out": "run", "steps": "5", **options}
        return command("train", *(f"--{name.replace('_', '-')}={value}" for name, value in given.items()), *more)

    return run


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"no {what}"
        time.sleep(0.02)


def test_a_start_leaves_its_log_its_command_and_its_settings(train: Train, fake: FakeTraining, tmp_path: Path) -> None:
    fake.says = "step:1 - critic"
    status, out, _ = train(ray_address="head:1")
    assert status == 0
    run = tmp_path / "run"
    (call,) = fake.commands()
    assert call[:3] == ["-m", "verl.trainer.main_ppo", "--config-name=ispo_trainer"]
    logger = f"VERL_FILE_LOGGER_PATH='{run}/metrics.1.jsonl'"
    assert f"+ray_kwargs.ray_init.runtime_env.env_vars.{logger}" in call
    assert fake.noted()[0]["environment"]["VERL_FILE_LOGGER_PATH"] == f"{run}/metrics.1.jsonl"
    assert (run / "train.1.log").read_text() == "step:1 - critic\n"
    assert out.splitlines() == [
        f"qwen2_5_7b grpo seed 1: start 1, log {run}/train.1.log",
        "step:1 - critic",
        f"qwen2_5_7b grpo seed 1: done ({run})",
    ]
    assert "main_ppo" in (run / "command.1.txt").read_text()
    assert set((run / "run.txt").read_text().split()) == {
        *("MODEL=qwen2_5_7b", "METHOD=grpo", "SEED=1", "RESPONSE_LENGTH=8192", "STEPS=5")
    }
    assert (run / "done").read_text() == "5\n"


def test_a_failed_start_says_where_to_look_and_the_next_one_goes_on(
    train: Train, fake: FakeTraining, tmp_path: Path
) -> None:
    fake.says, fake.status = "made to fail", 3
    status, out, err = train()
    assert status == 1
    assert "status 3" in err
    assert "train.1.log" in err
    assert "made to fail" in out, "the log is on the screen too"
    assert "made to fail" in (tmp_path / "run/train.1.log").read_text()

    fake.status = 0
    assert train()[0] == 0
    assert (tmp_path / "run/train.2.log").exists()

    status, out, _ = train()
    assert status == 0
    assert "5 steps are done" in out
    assert len(fake.commands()) == 2

    assert train(steps="6")[0] == 0
    assert len(fake.commands()) == 3, "more steps than were done go on"


def test_a_folder_that_cannot_be_written_is_one_sentence(train: Train, fake: FakeTraining, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    status, _, err = train()
    assert status == 2
    assert str(tmp_path / "run") in err
    assert "set another OUT" in err
    assert not fake.commands()


def test_a_command_is_composed_without_torch_and_verl(data: Path) -> None:
    """Which take seconds to import, and the launcher stays as long as its training."""
    code = "import sys; from verl_ispo import cli; status = cli.main(sys.argv[1:]); "
    code += "assert not {'torch', 'verl', 'transformers'} & set(sys.modules); sys.exit(status)"
    given = ["train", "--print-only", "--model", "qwen2_5_math_7b", "--data", str(data)]
    found = subprocess.run([sys.executable, "-c", code, *given], cwd=data.parent, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "verl.trainer.main_ppo" in found.stdout


def test_two_do_not_write_one_folder(train: Train, fake: FakeTraining, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, _, err = train()
    assert status == 1
    assert "another process works in" in err
    assert not fake.commands()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_does_not_stop_a_start(
    train: Train, fake: FakeTraining, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def without_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without_locks)
    status, _, err = train()
    assert status == 0
    assert "this file system has no locks" in err
    assert len(fake.commands()) == 1


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("screen", ["log", "progress"])
def test_a_signal_ends_the_training_with_the_launcher(
    train: Train, fake: FakeTraining, tmp_path: Path, screen: str, asked: signal.Signals
) -> None:
    fake.stays = True
    # a shell that starts the tests in the background has Ctrl-C ignored, which a launcher heeds
    given = signal.signal(asked, signal.default_int_handler)
    before = signal.getsignal(asked)

    def ask() -> None:
        wait_until(fake.commands, "start")
        os.kill(os.getpid(), asked)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        status, _, _ = train(screen=screen)
        asking.join()
        assert signal.getsignal(asked) is before
    finally:
        signal.signal(asked, given)
    assert status == {signal.SIGTERM: 143, signal.SIGINT: 130}[asked]
    assert fake.ended() == 1
    assert not (tmp_path / "run/done").exists()
    fake.stays = False
    assert train()[0] == 0, "the folder is free again"


def test_a_training_that_outlives_its_launcher_holds_the_folder_and_writes_its_log(
    fake: FakeTraining, tmp_path: Path
) -> None:
    launcher = f"""
import itertools, os, sys
from pathlib import Path
from tests.launch.fake_training import FakeTraining
from verl_ispo.launch.run_folder import locked
fake = FakeTraining(Path({str(tmp_path)!r}), says="going on", stays=True)
with locked(Path({str(tmp_path / "run")!r})) as lock:
    fake.run_process(["python"], os.environ, Path({str(tmp_path / "log")!r}), (None for _ in itertools.count()), [lock])
"""
    process = subprocess.Popen([sys.executable, "-c", launcher], cwd=Path(__file__).parents[2], start_new_session=True)
    try:
        wait_until(lambda: (tmp_path / "log").exists() and "going on" in (tmp_path / "log").read_text(), "training")
        process.kill()
        process.wait()
        with pytest.raises(FolderBusyError), locked(tmp_path / "run"):
            pass
    finally:
        os.killpg(process.pid, signal.SIGTERM)
    wait_until(fake.ended, "end of the training")

    def is_free() -> bool:
        try:
            with locked(tmp_path / "run"):
                return True
        except FolderBusyError:
            return False

    # it says that it ends before its process is gone, and the lock goes with the process
    wait_until(is_free, "free folder")


def test_a_folder_of_another_run_is_not_resumed(train: Train, fake: FakeTraining) -> None:
    assert train()[0] == 0
    for other in ({"method": "ispo"}, {"seed": "2"}, {"model": "qwen2_5_math_7b"}):
        status, _, err = train(steps="9", **other)
        assert status == 2
        assert "contains another run (MODEL=qwen2_5_7b METHOD=grpo SEED=1)" in err
    assert len(fake.commands()) == 1


def test_the_name_on_the_hub_goes_on_from_the_presets_run(train: Train, fake: FakeTraining) -> None:
    assert train()[0] == 0
    status, _, err = train(steps="6", model="Qwen/Qwen2.5-7B")
    assert status == 0
    assert "Qwen/Qwen2.5-7B has the name of preset qwen2_5_7b and gets its settings" in err
    first, second = fake.commands()
    assert [word.replace("=6", "=5") for word in second] == first


def test_a_preset_with_a_longer_context_trains_from_the_copy(
    train: Train, fake: FakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple] = []

    def copied(*arguments: object) -> tuple[Path, str]:
        asked.append(arguments)
        return Path("/the/copy"), ""

    def missing(*_: object) -> tuple[Path, str]:
        raise ContextError("the hub does not have it")

    checked: list[dict] = []

    def doctor_run(config_name: str, overrides: list[str], **options: object) -> int:
        checked.append({"overrides": overrides, **options})
        return 0

    monkeypatch.setattr("verl_ispo.doctor.run", doctor_run)
    monkeypatch.setattr(start_training, "extend", copied)
    assert train(model="qwen2_5_math_7b")[0] == 0
    copy = tmp_path / "runs/models/Qwen2.5-Math-7B-6144"
    assert asked == [("Qwen/Qwen2.5-Math-7B", copy, 6144, 15000.0, False)]
    (call,) = fake.commands()
    path, override = "actor_rollout_ref.model.path", "actor_rollout_ref.model.override_config"
    assert call[-3:] == [f"~{override}.max_position_embeddings", f"~{override}.rope_theta", f"{path}='/the/copy'"]
    # the preflight sees the same, and downloads nothing
    options = TrainingOptions(model="qwen2_5_math_7b", method="grpo", data=Path("data"), dry_run=True)
    assert start_training.train(options) == 0
    assert asked[1][-1] is True
    assert checked[0]["overrides"][-3:] == call[-3:]
    assert OmegaConf.select(checked[0]["config"], path) == "/the/copy"
    # and is told of the copy where the weights are not on this machine
    monkeypatch.setattr(start_training, "extend", missing)
    assert start_training.train(options) == 0
    assert checked[1]["context_positions"] == 6144
    assert checked[1]["overrides"][-2:] == [f"~{override}.max_position_embeddings", f"~{override}.rope_theta"]
    status, _, err = train(model="qwen2_5_math_7b", steps="9")
    assert status == 2, "a start does not"
    assert "the hub does not have it" in err


def test_a_dry_run_gives_the_preflight_the_same_settings_and_writes_nothing(
    command: Command, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[tuple] = []

    def doctor_run(config_name: str, overrides: list[str], **options: object) -> int:
        checked.append((config_name, overrides, options))
        return 0

    composed: list[str] = []
    compose = training_settings.compose_config
    monkeypatch.setattr(training_settings, "compose_config", lambda *a: composed.append("once") or compose(*a))
    monkeypatch.setattr("verl_ispo.doctor.run", doctor_run)
    given = ("--model", "qwen2_5_7b", "--method", "dapo", "--data", data, "+a=b")
    _, printed, _ = command("train", "--print-only", *given)
    composed.clear()
    before = set(tmp_path.rglob("*"))
    assert command("train", "--dry-run", *given)[0] == 0
    ((config_name, overrides, options),) = checked
    assert config_name == "ispo_trainer"
    assert shlex.split(printed)[4:] == overrides
    assert (options["check_ray"], options["dry_run"], options["config"].a) == (False, True, "b")
    assert composed == ["once"], "one composition"
    assert set(tmp_path.rglob("*")) == before, "nothing is written"


DEATH = """\
ray.exceptions.ActorDiedError: The actor died unexpectedly
\tclass_name: create_colocated_worker_cls.<locals>.WorkerDict
\tpid: 47
\tip: 10.0.0.2
RuntimeError: connection closed"""


def test_a_failed_start_says_why_and_what_the_next_one_does(train: Train, fake: FakeTraining, tmp_path: Path) -> None:
    """A dead worker, as reported by Ray, comes before the errors that it caused in others."""
    fake.says, fake.status = DEATH, 3
    _, _, err = train()
    first, second = err.splitlines()
    assert first.endswith("stopped with status 3: WorkerDict (pid 47 on 10.0.0.2) died")
    assert second.endswith("train.1.log; there is no checkpoint yet, the same command starts from the beginning")

    (tmp_path / "run/checkpoints").mkdir()
    (tmp_path / "run/checkpoints/latest_checkpointed_iteration.txt").write_text("50")
    fake.says = DEATH.replace("ray.exceptions.ActorDiedError", "ValueError")
    _, _, err = train()
    first, second = err.splitlines()
    assert first.endswith("stopped with status 3: ValueError: The actor died unexpectedly")
    assert second.endswith("the same command resumes from the checkpoint of step 50")


def test_the_trainers_own_message_comes_first_without_rays_colors_and_prefixes() -> None:
    named = "\033[36m(TaskRunner pid=7)\033[0m verl_ispo.DeadWorkerError: agent-loop worker 0 died"
    assert find_reason([*DEATH.splitlines(), named]) == "agent-loop worker 0 died"
    assert find_reason(["(A pid=1) ray.exceptions.RayTaskError(ValueError): no"]) == (
        "ray.exceptions.RayTaskError(ValueError): no"
    )
    assert find_reason(["all went well", "no Error: here"]) == ""


def test_a_killed_driver_is_named(train: Train, fake: FakeTraining) -> None:
    fake.stays = True

    def kill() -> None:
        wait_until(fake.commands, "start")
        os.kill(fake.noted()[0]["pid"], signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    status, _, err = train()
    killing.join()
    assert status == 1
    assert "stopped with status 137: verl's driver was ended by SIGKILL" in err


def test_only_a_status_above_128_is_a_signal() -> None:
    assert killed_by(134) == "verl's driver was ended by SIGABRT"
    assert [killed_by(status) for status in (0, 1, 128, 255)] == [""] * 4


def test_with_a_bar_the_log_file_has_everything_and_a_failure_shows_its_end(
    train: Train, fake: FakeTraining, tmp_path: Path
) -> None:
    fake.says, fake.status = "made to fail", 3
    status, out, err = train(screen="progress")
    assert status == 1
    assert "grpo seed 1: starting" in err, "a bar"
    assert "made to fail" not in out
    assert "made to fail" in err
    assert "made to fail" in (tmp_path / "run/train.1.log").read_text()


def test_the_bar_follows_the_metrics_of_a_run_that_was_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = tmp_path / "metrics.2.jsonl"
    bar = show_bar(metrics, 10, "grpo seed 1")
    next(bar)
    metrics.write_text('{"step": 4, "data": {"critic/score/mean": 0.25}}\n{"step": 5, "da')
    next(bar)
    with metrics.open("a") as file:
        file.write('ta": {"critic/score/mean": null}}\n')
    next(bar)
    bar.close()
    shown = capsys.readouterr().err.split("\r")
    assert "grpo seed 1: starting" in shown[1]
    assert any("4/10" in line and "score=0.25" in line for line in shown)
    assert "5/10" in shown[-1]


def test_a_command_that_is_called_ends_with_the_signal_and_its_output_goes_where_it_should(tmp_path: Path) -> None:
    assert call([sys.executable, "-IS", "-c", "import os; os.kill(os.getpid(), 9)"]) == 137
    log = tmp_path / "log"
    waits = "import sys, time; print('out', flush=True); print('err', file=sys.stderr, flush=True); time.sleep(60)"

    def ask() -> None:
        wait_until(lambda: log.exists() and "err" in log.read_text(), "start")
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    with log.open("wb") as output:
        assert call([sys.executable, "-IS", "-c", waits], output=output) == 143
    asking.join()
    assert sorted(log.read_text().split()) == ["err", "out"]


def test_a_run_with_other_settings_is_refused_before_it_is_called_done(
    train: Train, fake: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same folder with another weight went on as another method in silence, or was called done."""

    def composed_with_weight(config_name: str, overrides: list[str]) -> DictConfig:
        config = composed_quickly(config_name, overrides)
        for override in overrides:
            if override.startswith("algorithm.ispo."):
                key, value = override.split("=")
                OmegaConf.update(config, key, float(value))
        return config

    monkeypatch.setattr(training_settings, "compose_config", composed_with_weight)
    weights = [f"algorithm.ispo.ifd_weight={weight}" for weight in (0.5, 0.25)]
    assert train(more=weights[:1])[0] == 0
    status, out, err = train(more=weights[1:])
    assert status == 2
    assert "algorithm.ispo.ifd_weight: 0.5 -> 0.25" in err
    assert "done" not in out
    assert len(fake.commands()) == 1
    assert train(more=["--change", *weights[1:]], steps="6")[0] == 0
    assert len(fake.commands()) == 2


def test_done_is_what_was_trained(train: Train, fake: FakeTraining, tmp_path: Path) -> None:
    """A training that ends before its steps, with status 0, left all of them as done."""
    fake.metrics = [{"step": 0, "data": {"val-core/a/acc/mean@1": 0.1}}, {"step": 1, "data": {"training/x": 1.0}}]
    status, out, _ = train()
    assert status == 0
    assert "ended after step 1 of 5: the data end" in out
    assert (tmp_path / "run/done").read_text() == "1\n"
    fake.metrics = [{"step": step, "data": {"training/x": 1.0}} for step in range(2, 6)]
    status, out, _ = train()
    assert status == 0
    assert (tmp_path / "run/done").read_text() == "5\n"
    assert "done" in out
    assert len(fake.commands()) == 2


def test_only_validating_trains_nothing(
    train: Train, fake: FakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def validates(config_name: str, overrides: list[str]) -> DictConfig:
        config = composed_quickly(config_name, overrides)
        config.trainer.val_only = True
        return config

    monkeypatch.setattr(training_settings, "compose_config", validates)
    status, out, _ = train()
    assert status == 0
    assert "trainer.val_only=true only validates" in out
    assert (tmp_path / "run/done").read_text() == "0\n"
