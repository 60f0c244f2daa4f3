"""What scripts/train.sh does around a training: one writer a folder, a log a start, going on, ending with its signal.

The interpreter is a stand-in that notes its calls, so no training runs. Not exercised: verl's own resuming
(tests/training).
"""

from __future__ import annotations

import fcntl
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.scripts.launchers import SCRIPTS, StandIn, clean_environment, launch


def train(stand_in: StandIn, data: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    given = {"MODEL": "qwen2_5_7b", "METHOD": "grpo", "DATA": str(data), "OUT": "run", "STEPS": "5"}
    return launch("train.sh", cwd=data.parent, **{**given, **stand_in.variables, **variables})


def test_a_start_leaves_its_log_its_command_and_its_settings(stand_in: StandIn, data: Path) -> None:
    assert train(stand_in, data, RAY_ADDRESS="head:1").returncode == 0
    run = data.parent / "run"
    (call,) = stand_in.calls("main_ppo")
    assert f"env_vars.VERL_FILE_LOGGER_PATH='{run}/metrics.1.jsonl'" in call
    assert (run / "train.1.log").exists()
    assert "main_ppo" in (run / "command.1.txt").read_text()
    assert set((run / "run.txt").read_text().split()) == {
        *("MODEL=qwen2_5_7b", "METHOD=grpo", "SEED=1", "RESPONSE_LENGTH=4096", "STEPS=5")
    }


def test_a_failed_start_says_where_to_look_and_the_next_one_goes_on(stand_in: StandIn, data: Path) -> None:
    failed = train(stand_in, data, FAIL="*main_ppo*")
    assert failed.returncode == 1
    assert "status 3" in failed.stderr
    assert "train.1.log" in failed.stderr
    assert "made to fail" in failed.stdout, "the log is on the screen too"
    assert "made to fail" in (data.parent / "run/train.1.log").read_text()

    assert train(stand_in, data).returncode == 0
    assert (data.parent / "run/train.2.log").exists()

    again = train(stand_in, data)
    assert again.returncode == 0
    assert "5 steps are done" in again.stdout
    assert len(stand_in.calls("main_ppo")) == 2

    assert train(stand_in, data, STEPS="6").returncode == 0
    assert len(stand_in.calls("main_ppo")) == 3, "more steps than were done go on"


def test_two_do_not_write_one_folder(stand_in: StandIn, data: Path) -> None:
    run = data.parent / "run"
    run.mkdir()
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = train(stand_in, data)
    assert refused.returncode == 1
    assert "another process works in" in refused.stderr
    assert not stand_in.calls("main_ppo")


@pytest.mark.parametrize("screen", ["log", "progress"])
def test_a_signal_ends_the_training_with_the_launcher(stand_in: StandIn, data: Path, screen: str) -> None:
    variables = {"MODEL": "qwen2_5_7b", "METHOD": "grpo", "DATA": str(data), "OUT": "run", "STEPS": "5"}
    variables |= {"HANG": "-m *", "SCREEN": screen, **stand_in.variables}
    process = subprocess.Popen(["bash", str(SCRIPTS / "train.sh")], cwd=data.parent, env=clean_environment(**variables))
    try:
        for _ in range(600):
            if stand_in.calls("main_ppo"):
                break
            time.sleep(0.1)
        time.sleep(0.3)  # until the stand-in has set its trap
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    finally:
        process.kill()
    assert stand_in.calls("ended: -m verl.trainer.main_ppo")
    assert len(stand_in.calls("ended: -m verl_ispo.training_progress")) == (screen == "progress")
    assert not (data.parent / "run/done").exists()
    assert train(stand_in, data).returncode == 0, "the folder is free again"


def test_a_folder_of_another_run_is_not_gone_on_from(stand_in: StandIn, data: Path) -> None:
    assert train(stand_in, data).returncode == 0
    for other in ({"METHOD": "ispo"}, {"SEED": "2"}, {"MODEL": "qwen2_5_math_7b"}):
        refused = train(stand_in, data, STEPS="9", **other)
        assert refused.returncode == 2
        assert "holds another run (MODEL=qwen2_5_7b METHOD=grpo SEED=1)" in refused.stderr
    assert len(stand_in.calls("main_ppo")) == 1


def test_a_preset_with_a_longer_context_trains_from_the_copy(stand_in: StandIn, data: Path) -> None:
    """The stand-in says which settings the config has; here, positions and theta."""
    text = stand_in.path.read_text().replace('some/model "" "" "" 4096', "some/model 6144 15000.0 '' 4096")
    text = text.replace("esac\nif", "    *extend_context.py*) echo /the/copy ;;\nesac\nif", 1)
    stand_in.path.write_text(text)
    assert train(stand_in, data).returncode == 0
    (made,) = stand_in.calls("extend_context")
    options = "--model some/model --max-position-embeddings 6144 --rope-theta 15000.0"
    assert made.endswith(f"{options} --out {data.parent}/runs/models/model-6144")
    (call,) = stand_in.calls("main_ppo")
    path, override = "actor_rollout_ref.model.path", "actor_rollout_ref.model.override_config"
    assert call.endswith(f"~{override}.max_position_embeddings ~{override}.rope_theta {path}='/the/copy'")
    # the preflight sees the same
    assert train(stand_in, data, DRY_RUN="1").returncode == 0
    assert stand_in.calls("doctor")[0].split()[-3:] == call.split()[-3:]
    # and is told of the copy where the weights are not on this machine
    assert train(stand_in, data, DRY_RUN="1", FAIL="*extend_context*").returncode == 0
    without = stand_in.calls("doctor")[1]
    assert "--context-positions 6144" in without
    assert without.split()[-2:] == [f"~{override}.max_position_embeddings", f"~{override}.rope_theta"]
    assert train(stand_in, data, STEPS="9", FAIL="*extend_context*").returncode == 2, "a start does not"


def test_the_reason_of_the_end_is_the_last_word(stand_in: StandIn, data: Path) -> None:
    """A dead worker, as Ray tells of it, comes before the errors that others had for it."""
    died = "\\tclass_name: create_colocated_worker_cls.<locals>.WorkerDict\\n\\tpid: 47\\n\\tip: 10.0.0.2\\n"
    said = f"ray.exceptions.ActorDiedError: The actor died unexpectedly\\n{died}RuntimeError: connection closed\\n"
    text = stand_in.path.read_text().replace('echo "made to fail"', f"printf '{said}'")
    stand_in.path.write_text(text)
    failed = train(stand_in, data, FAIL="*main_ppo*")
    first, second = failed.stderr.splitlines()
    assert first.endswith("stopped with status 3: WorkerDict (pid 47 on 10.0.0.2) died")
    assert second.endswith("train.1.log; there is no checkpoint yet, the same command starts anew")

    checkpoints = data.parent / "run/checkpoints"
    checkpoints.mkdir()
    (checkpoints / "latest_checkpointed_iteration.txt").write_text("50")
    stand_in.path.write_text(text.replace("ray.exceptions.ActorDiedError", "ValueError"))
    failed = train(stand_in, data, FAIL="*main_ppo*")
    first, second = failed.stderr.splitlines()
    assert first.endswith("stopped with status 3: RuntimeError: connection closed")
    assert second.endswith("the same command goes on from the checkpoint of step 50")


def test_with_a_bar_the_log_file_has_everything_and_a_failure_shows_its_end(stand_in: StandIn, data: Path) -> None:
    failed = train(stand_in, data, SCREEN="progress", FAIL="*main_ppo*")
    assert failed.returncode == 1
    assert len(stand_in.calls("verl_ispo.training_progress")) == 1
    assert "made to fail" not in failed.stdout
    assert "made to fail" in failed.stderr
    assert "made to fail" in (data.parent / "run/train.1.log").read_text()
