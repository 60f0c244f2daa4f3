"""What the launcher says or refuses before a start: data that end before the steps, loggers without a package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests.launch.conftest import composed_quickly
from tests.launch.fake_training import FakeTraining
from tests.preflight.set_ups import math_row, write_rows
from verl_ispo.launch import training_settings
from verl_ispo.preflight import loggers

Command = Callable[..., tuple[int, str, str]]
GIVEN = ("train", "--model", "qwen2_5_7b", "--method", "grpo", "--out", "run", "--steps", "5")


def test_data_that_end_before_the_steps_are_announced(
    command: Command, data: Path, fake: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a training ended with status 0 after some hours, and only then said so."""
    file = write_rows(data / "short.parquet", [math_row()] * 20)

    def one_epoch(config_name: str, overrides: list[str]) -> DictConfig:
        config = composed_quickly(config_name, overrides)
        config.data.train_files, config.data.train_batch_size = str(file), 8
        config.trainer.total_epochs, config.trainer.total_training_steps = 1, 5
        return config

    monkeypatch.setattr(training_settings, "compose_config", one_epoch)
    _, _, err = command(*GIVEN, "--data", data)
    assert "the training will end after step 2" in err
    assert "20 rows" in err
    assert "set trainer.total_epochs=3" in err
    assert len(fake.commands()) == 1, "it starts all the same"


def test_a_logger_without_its_package_is_refused_at_a_start_only(
    command: Command, data: Path, fake: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """verl imports it when the workers are up. A printed command may be for another machine, and so may a cluster's."""
    given = (*GIVEN, "--data", data, "--loggers", "console,swanlab")
    monkeypatch.setitem(loggers.IMPORTED, "swanlab", "a_module_that_nobody_has")
    status, _, err = command(*given)
    assert status == 2
    assert "swanlab needs the package a_module_that_nobody_has" in err
    assert fake.commands() == []
    assert command(*given, "--print-only")[0] == 0
    assert command(*given, "--ray-address", "head:1")[0] == 0
