"""A signal leaves a training time to save, where there is something to save; a second one ends it at once.

The training is a small program (fake_training.py); the launcher, the signals and the request are real. That a real
trainer saves is in tests/training/test_launcher.py.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests.launch.conftest import composed_quickly
from tests.launch.fake_training import FakeTraining
from verl_ispo.launch import training_settings
from verl_ispo.runs.checkpoint_folder import STOP_FILE

STEP = [{"step": 1, "data": {"training/x": 1.0}}]
Asked = Callable[..., tuple[int, str, float]]


@pytest.fixture
def stop_file(fake: FakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the request appears. The training has logged a step, saves now and then, and ends when it is asked to."""
    folder = tmp_path / "run/checkpoints"

    def saving(config_name: str, overrides: list[str]) -> DictConfig:
        config = composed_quickly(config_name, overrides)
        config.trainer.default_local_dir, config.trainer.logger = str(folder), ["console", "file"]
        config.trainer.save_freq = next(int(word.split("=")[1]) for word in overrides if "save_freq" in word)
        return config

    monkeypatch.setattr(training_settings, "compose_config", saving)
    fake.metrics, fake.stays = STEP, folder / STOP_FILE
    return folder / STOP_FILE


@pytest.fixture
def asked(command: Callable, data: Path, fake: FakeTraining) -> Asked:
    """Start, send signals once it runs, and return status, messages, and seconds from the first signal to the end."""

    def run(signals: Sequence[signal.Signals] = (signal.SIGTERM,), *more: str) -> tuple[int, str, float]:
        first = [0.0]

        def ask() -> None:
            end = time.monotonic() + 60
            while not fake.commands() and time.monotonic() < end:
                time.sleep(0.02)
            first[0] = time.monotonic()
            for number in signals:
                os.kill(os.getpid(), number)
                time.sleep(0.5)

        asking = threading.Thread(target=ask)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        asking.start()
        try:
            given = ["--model=qwen2_5_7b", "--method=grpo", f"--data={data}", "--out=run", "--steps=5", *more]
            status, _, said = command("train", *given)
            took = time.monotonic() - first[0]
            asking.join()
        finally:
            signal.signal(signal.SIGINT, before)
        return status, said, took

    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_the_training_save(
    asked: Asked, fake: FakeTraining, stop_file: Path, number: signal.Signals
) -> None:
    """It ended at once, and the steps since the last checkpoint were trained again."""
    status, said, _ = asked([number])
    assert status == 128 + number
    assert (fake.saved(), fake.ended()) == (1, 0)
    assert "saving at the end of this step, for at most 20 s (GRACE_S)" in said
    assert "the same command" in said
    assert not stop_file.exists(), "the next start is not asked to end"


def test_a_step_that_takes_longer_is_ended(asked: Asked, fake: FakeTraining, stop_file: Path) -> None:
    fake.stays = True
    status, _, took = asked([signal.SIGTERM], "--grace-s=1")
    assert status == 143
    assert 1 <= took < 20
    assert fake.ended() == 1
    assert not stop_file.exists()


def test_a_second_signal_does_not_wait(asked: Asked, fake: FakeTraining, stop_file: Path) -> None:
    fake.stays = True
    status, _, took = asked([signal.SIGINT, signal.SIGINT], "--grace-s=60")
    assert status == 130
    assert took < 20
    assert fake.ended() == 1


@pytest.mark.parametrize("why", ["grace", "never saves", "no step yet"])
def test_where_nothing_would_be_saved_it_ends_at_once(
    asked: Asked, fake: FakeTraining, stop_file: Path, why: str
) -> None:
    fake.stays = True
    if why == "no step yet":
        fake.metrics = ()
    more = {"grace": ["--grace-s=0"], "never saves": ["--save-freq=-1"]}.get(why, [])
    status, said, took = asked([signal.SIGTERM], *more)
    assert status == 143
    assert took < 15
    assert "saving" not in said
    assert not stop_file.exists()


def test_a_request_that_was_left_behind_does_not_end_the_next_start(
    asked: Asked, fake: FakeTraining, stop_file: Path
) -> None:
    stop_file.parent.mkdir(parents=True)
    stop_file.touch()
    asked([signal.SIGTERM], "--grace-s=0")
    assert (fake.saved(), fake.ended()) == (0, 1)
