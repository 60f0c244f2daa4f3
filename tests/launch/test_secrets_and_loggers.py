"""What a start gives its training beside the command: secrets, and the places of the loggers.

No secret is on a command line, in a file of OUT or on the screen; the processes of a running cluster get them from a
file. Loggers write into OUT and know the run again at its next start. The training is a small program
(fake_training.py). Not exercised: W&B, SwanLab and mlflow on a network.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests.launch.conftest import composed_quickly
from tests.launch.fake_training import FakeTraining
from verl_ispo import doctor
from verl_ispo.launch import training_settings
from verl_ispo.launch.start_training import SECRETS_FILE
from verl_ispo.preflight.finding import PROBLEM, Finding

KEY, TOKEN, OTHER = "key-of-wandb-0123456789", "token-of-hf-0123456789", "value-of-mine-0123456789"
OVERRIDE = f"+ray_kwargs.ray_init.runtime_env.env_vars.HF_TOKEN={TOKEN}"
Train = Callable[..., tuple[int, str, str]]


@pytest.fixture
def train(command: Callable, data: Path, fake: FakeTraining, monkeypatch: pytest.MonkeyPatch) -> Train:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("MY_SECRET", OTHER)
    monkeypatch.setenv("HF_TOKEN", "")  # the launcher sets it; the test's end takes that back

    def run(*more: str) -> tuple[int, str, str]:
        return command(
            "train", "--model=qwen2_5_7b", "--method=grpo", f"--data={data}", "--out=run", "--steps=5", *more
        )

    return run


@pytest.fixture
def loggers(fake: FakeTraining, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The loggers of the composed config, to be filled in."""
    chosen: list[str] = []

    def logging(config_name: str, overrides: list[str]) -> DictConfig:
        config = composed_quickly(config_name, overrides)
        config.trainer.logger = chosen
        return config

    monkeypatch.setattr(training_settings, "compose_config", logging)
    for name in ("TENSORBOARD_DIR", "WANDB_DIR", "WANDB_RUN_ID", "WANDB_RESUME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return chosen


def written(folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("more", [(), ("--ray-address=head:1", "--ray-env", "MY_SECRET", "--")])
def test_no_secret_is_on_a_command_line_in_out_or_on_the_screen(
    train: Train, fake: FakeTraining, tmp_path: Path, more: tuple[str, ...]
) -> None:
    status, out, err = train(*more, OVERRIDE)
    assert status == 0, err
    (noted,) = fake.noted()
    for secret in (KEY, TOKEN, OTHER):
        assert secret not in " ".join(noted["command"])
        assert secret not in written(tmp_path / "run") + out + err
    # and the training has them
    assert (noted["environment"]["WANDB_API_KEY"], noted["environment"]["HF_TOKEN"]) == (KEY, TOKEN)
    assert "HF_TOKEN: taken from the overrides into the environment" in err
    if more:
        assert json.loads(noted["secrets"]) == {"WANDB_API_KEY": KEY, "HF_TOKEN": TOKEN, "MY_SECRET": OTHER}
        assert noted["mode"] == 0o600
        file = f"{tmp_path}/run/{SECRETS_FILE}"
        assert f"VERL_ISPO_ENVIRONMENT_FILE='{file}'" in " ".join(noted["command"])
        assert not Path(file).exists(), "it goes with the start"


def test_a_printed_command_shows_none(train: Train, fake: FakeTraining) -> None:
    status, out, _ = train("--print-only", "--ray-address=head:1", "--ray-env", "MY_SECRET", "--", OVERRIDE)
    assert status == 0
    assert "main_ppo" in out
    for secret in (KEY, TOKEN, OTHER):
        assert secret not in out


def test_the_preflight_shows_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own command line takes any override, and findings quote them."""
    monkeypatch.setattr(os, "environ", os.environ.copy())  # as datasets.map with num_proc leaves it
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    finding = Finding(PROBLEM, "some key", f"{OVERRIDE} is not known, nor is {KEY}")
    monkeypatch.setattr(doctor, "machine_checks", lambda _: [])
    monkeypatch.setattr(doctor, "config_checks", lambda *_: [("some key", lambda: iter([finding]))])
    monkeypatch.setattr(doctor, "config_checks_of_this_machine", lambda _: [])
    overrides = [OVERRIDE, f"+a.api_key='two words {OTHER}'"]
    assert doctor.run("ispo_trainer", overrides, dry_run=True, config=composed_quickly("ispo_trainer", [])) == 1
    said = capsys.readouterr().out
    assert "env_vars.HF_TOKEN=***" in said
    for secret in (KEY, TOKEN, OTHER):
        assert secret not in said


def test_a_secret_in_another_override_is_refused(train: Train, fake: FakeTraining) -> None:
    status, out, err = train(f"+reward.custom_reward_function.reward_kwargs.api_key={TOKEN}")
    assert status == 2
    assert "reward_kwargs.api_key" in err
    assert "RAY_ENV" in err
    assert TOKEN not in out + err
    assert not fake.commands()


def test_a_launcher_of_cells_gets_secrets_in_its_environment(
    command: Callable, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    notes = tmp_path / "notes"
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        f"open({str(notes)!r}, 'a').write(' '.join(sys.argv) + '|' + os.environ['HF_TOKEN'] + '|'"
        " + os.environ['RAY_ENV'])\nsys.exit(3)\n"
    )
    monkeypatch.setattr("verl_ispo.launch.reproduce_table.eval_command", lambda _: [sys.executable, "-c", ""])
    given = [f"--data={data}", "--models=qwen2_5_7b", "--methods=grpo", "--seeds=1", "--out=table"]
    status, out, err = command("reproduce-table", *given, f"--launcher={sys.executable} {program}", "--", OVERRIDE)
    assert status == 1, err
    arguments, token, passed = notes.read_text().split("|")
    assert (token, passed) == (TOKEN, "HF_TOKEN")
    assert TOKEN not in arguments + out + err


def test_loggers_write_into_out_and_know_the_run_again(
    train: Train, fake: FakeTraining, loggers: list[str], tmp_path: Path
) -> None:
    """They wrote where the command was called, and each start was a run of its own."""
    loggers += ["console", "tensorboard", "wandb", "mlflow", "swanlab"]
    fake.status = 3
    assert train()[0] == 1
    assert train("--ray-address=head:1")[0] == 1
    first, second = fake.noted()
    run, ids = tmp_path / "run", set()
    for noted in (first, second):
        environment = noted["environment"]
        assert environment["TENSORBOARD_DIR"] == f"{run}/tensorboard"
        assert environment["WANDB_DIR"] == str(run)
        assert (environment["WANDB_RESUME"], environment["SWANLAB_RESUME"]) == ("allow", "allow")
        assert environment["SWANLAB_LOG_DIR"] == f"{run}/swanlab"
        assert environment["MLFLOW_TRACKING_URI"] == f"sqlite:///{run}/mlflow.db"
        ids |= {environment["WANDB_RUN_ID"], environment["SWANLAB_RUN_ID"]}
    assert len(ids) == 1
    (run_id,) = ids
    assert len(run_id) == 21
    passed = "+ray_kwargs.ray_init.runtime_env.env_vars."
    assert f"{passed}WANDB_RUN_ID='{run_id}'" in second["command"]
    assert f"{passed}TENSORBOARD_DIR='{run}/tensorboard'" in second["command"]


def test_a_users_own_places_stay_and_are_passed_once(
    train: Train, fake: FakeTraining, loggers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loggers += ["tensorboard", "wandb"]
    monkeypatch.setenv("TENSORBOARD_DIR", "/mine")
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    assert train("--ray-address=head:1")[0] == 0
    (noted,) = fake.noted()
    assert (noted["environment"]["TENSORBOARD_DIR"], noted["environment"]["WANDB_RUN_ID"]) == ("/mine", "mine")
    keys = [word.partition("=")[0] for word in noted["command"]]
    for name in ("TENSORBOARD_DIR", "WANDB_RUN_ID", "WANDB_DIR"):
        assert sum(key.endswith(f".{name}") for key in keys) == 1, name


def test_other_loggers_get_no_variables(train: Train, fake: FakeTraining, loggers: list[str], tmp_path: Path) -> None:
    loggers += ["console", "file"]
    assert train()[0] == 0
    (noted,) = fake.noted()
    assert not {"TENSORBOARD_DIR", "WANDB_DIR", "WANDB_RUN_ID"} & set(noted["environment"])
    assert not (tmp_path / "run/run_id").exists()
