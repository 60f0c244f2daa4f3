from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests.launch.fake_training import FakeTraining
from verl_ispo import cli
from verl_ispo.launch import start_training, training_settings
from verl_ispo.preflight.composition import compose_config


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with the names that data_prep gives; the launcher does not read them."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("dapo_math", "aime24", "aime25", "amc23", "math500", "olympiadbench"):
        (folder / f"{name}.parquet").touch()
    return folder


@cache
def composed_choices(config_name: str, *choices: str) -> DictConfig:
    return compose_config(config_name, choices)


KEPT = ("method=", "base_model=", "backend=", "~", "actor_rollout_ref.model.path=")


def composed_quickly(config_name: str, overrides: list[str]) -> DictConfig:
    """Composed once per process for each choice of files and model: all that a start reads follows from these.

    That the whole command composes is checked in test_train_command.py.
    """
    return composed_choices(config_name, *(override for override in overrides if override.startswith(KEPT))).copy()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    """What trains is a small program that notes how it was called."""
    training = FakeTraining(tmp_path)
    monkeypatch.setattr(training_settings, "compose_config", composed_quickly)
    monkeypatch.setattr(start_training, "run_process", training.run_process)
    return training


@pytest.fixture(autouse=True)
def its_own_folder_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are written below tmp_path, and a command's settings for verl end with its test."""
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_worker_niceness", "VERL_FILE_LOGGER_PATH", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TQ_NUM_THREADS", "1")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]):
    """``verl-ispo ...`` in this process: exit status, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse's own errors
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run
