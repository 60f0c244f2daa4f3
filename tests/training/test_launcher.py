"""``scripts/train.sh`` on the CPU, started as a user starts it, killed as machines and workers die, and started again.

What is checked, and where it comes from:
- what the help says of the run folder is there after a training;
- one run that is killed while a checkpoint is written, between a checkpoint and its line in the log, and at a moment
  that ``scripts/kills/kill_loop.py`` draws (three in ``scripts/test.sh all``), and is started again each time by the
  same command, ends with the metrics of an undisturbed run, up to the order of floating-point sums (fifty kills: that
  script);
- so does one that loses a training worker during a step, an agent-loop worker while the trainer waits for rollouts, and
  its driver while it starts (only in ``scripts/test.sh all``, like the next items: each start takes about 40 s);
- a dead worker ends the script with an error that names it, and the last checkpoint holds;
- asked to end it saves the step that it is in, and where its data end first it saves their last step;
- two Ray nodes, two processes on this machine, get one of two workers each, and their run has the metrics of two
  workers on one node.

Not exercised: several machines, a network that fails, GPUs, disks that lose what was written, other trainer modes.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.scripts.launchers import SCRIPTS, clean_environment
from tests.training.conftest import TinyTask
from tests.training.launched import START_TIMEOUT_S, LaunchedTraining, assert_same_metrics, kill_loop, launched_training

pytestmark = pytest.mark.trainer

STEPS = 7
# after two kills in chosen moments
RANDOM_KILLS = (1, pytest.param(3, marks=pytest.mark.volume))
# Rollouts, their metrics and the update are the same except for the order of sums.
TOLERANCE = 1e-4
LAST_TWO = [f"global_step_{step}" for step in (STEPS - 1, STEPS)]
# The titles of the processes.
DRIVER, TASK_RUNNER = "-m verl.trainer.main_ppo", "ray::TaskRunner"
TRAINING_WORKER, AGENT_LOOP_WORKER, ROLLOUT_SERVER = "ray::WorkerDict", "ray::AgentLoopWorker", "ray::CPURolloutServer"


TOKEN = Path.home() / ".ray/auth_token"
# Prints the nodes of the living actors of each class, from Ray's own state.
NODES_OF_ACTORS = """
import json, sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False)
from ray._private.state import actors
alive = [actor for actor in actors().values() if actor["State"] == "ALIVE"]
print(json.dumps({kind: [actor["Address"]["NodeID"] for actor in alive if kind in actor["ActorClassName"]]
                  for kind in sys.argv[2:]}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def undisturbed(tiny_task: TinyTask, folder: Path) -> Iterator[LaunchedTraining]:
    """Two workers on one node."""
    run = LaunchedTraining(tiny_task, folder / "undisturbed", STEPS, GPUS_PER_NODE="2")
    run.start()
    try:
        assert run.end() == 0, run.screen()[-3000:]
        yield run
    finally:
        run.kill()


@dataclass(frozen=True)
class Death:
    """How a start with a killed process ended: status, screen, and the step from which the next start resumes."""

    status: int
    screen: str
    checkpoint: int


@dataclass(frozen=True)
class Killed:
    """A run that was killed several times, and what was seen on the way; ``loop`` has made the last kills."""

    run: LaunchedTraining
    half_written: bool
    unfinished_line: bool
    loop: Any


@dataclass(frozen=True)
class Disturbed:
    """A run of four starts, three of which lost a process."""

    run: LaunchedTraining
    training_worker: Death
    agent_loop_worker: Death
    driver: Death


def death(run: LaunchedTraining) -> Death:
    """The end of a start after one of its processes was killed."""
    return Death(run.end(), run.screen(), run.latest_checkpoint())


def leave_half_a_checkpoint(run: LaunchedTraining) -> bool:
    """Whether a kill left half a checkpoint. After one that came too late, what is saved last is removed."""
    if run.latest_checkpoint() == 1:
        (run.out / "checkpoints/latest_checkpointed_iteration.txt").unlink()
        (run.out / "checkpoints/global_step_1/data.pt").unlink(missing_ok=True)
    return run.latest_checkpoint() == 0


def kill_several_times(run: LaunchedTraining, folder: Path, random_kills: int) -> Killed:
    """Kill everything in two moments, then what a seed chooses at moments that it chooses; the last start ends."""
    run.start()
    run.kill_at((run.out / "checkpoints/global_step_1").exists, "the first checkpoint")
    half_written = leave_half_a_checkpoint(run)

    run.start()
    run.kill_at(lambda: run.latest_checkpoint() == 2, "the second checkpoint")
    unfinished_line = run.steps_logged() == 1

    settings = kill_loop.Settings(
        kills=random_kills, seed=1, tolerance=TOLERANCE, patience_s=START_TIMEOUT_S, linger_s=120, fatal_only=True
    )
    folder.mkdir()
    loop = kill_loop.KillLoop(folder, run.training.task, settings)
    loop.durations = kill_loop.Durations(start_up=20, step=1.5, checkpoint=0.1)
    loop.kill_until_done(run.training)
    return Killed(run, half_written, unfinished_line, loop)


@pytest.fixture(scope="module", params=RANDOM_KILLS)
def killed(request: pytest.FixtureRequest, tiny_task: TinyTask, folder: Path) -> Iterator[Killed]:
    run = LaunchedTraining(tiny_task, folder / f"killed{request.param}", STEPS, GPUS_PER_NODE="2")
    try:
        yield kill_several_times(run, folder / f"kills{request.param}", request.param)
    finally:
        run.kill()


def disturb(run: LaunchedTraining) -> Disturbed:
    """Kill one process in three moments; the fourth start runs to its end."""
    run.start()
    run.run_until(lambda: run.steps_logged() == 1, "the first step")
    assert run.kill_one(TRAINING_WORKER)
    training_worker = death(run)

    run.start()
    run.run_until(lambda: "Training Progress" in run.screen(), "the training loop")
    # rollouts that do not end, so that the trainer is certain to wait for them
    assert run.stop(ROLLOUT_SERVER)
    run.run_until(lambda: run.processes(AGENT_LOOP_WORKER), "an agent-loop worker")
    time.sleep(5)
    assert run.kill_one(AGENT_LOOP_WORKER)
    agent_loop_worker = death(run)
    run.kill()

    run.start()
    run.run_until(lambda: run.processes(TASK_RUNNER), "the trainer")
    assert run.kill_one(DRIVER)
    driver = death(run)

    run.start()
    assert run.end() == 0, run.screen()[-3000:]
    return Disturbed(run, training_worker, agent_loop_worker, driver)


@pytest.fixture(scope="module")
def disturbed(tiny_task: TinyTask, folder: Path) -> Iterator[Disturbed]:
    run = LaunchedTraining(tiny_task, folder / "disturbed", STEPS, GPUS_PER_NODE="2")
    try:
        yield disturb(run)
    finally:
        run.kill()


def kept(run: LaunchedTraining) -> list[str]:
    """Checkpoints that have their weights."""
    return sorted(path.parent.name for path in run.out.glob("checkpoints/*/actor"))


def test_the_run_folder_holds_what_the_help_says(undisturbed: LaunchedTraining) -> None:
    out = undisturbed.out
    assert (out / "done").read_text().strip() == str(STEPS)
    assert (out / "run.txt").read_text().splitlines()[1:3] == ["METHOD=ispo", "SEED=1"]
    assert sorted(undisturbed.metrics()) == [*range(1, STEPS + 1)]
    assert (out / "dump/run.json").exists()
    assert undisturbed.latest_checkpoint() == STEPS
    assert kept(undisturbed) == LAST_TWO, "KEEP=2"
    screen = undisturbed.screen()
    assert screen.splitlines()[0].endswith(f"start 1, log {out}/train.1.log")
    assert screen.splitlines()[-1].endswith(f"done ({out})")
    for step in range(1, STEPS + 1):
        assert f"step:{step} - " in screen

    undisturbed.start()
    assert undisturbed.end() == 0
    assert f"its {STEPS} steps are done" in undisturbed.screen()


def test_killed_again_and_again_it_ends_with_the_same_metrics(killed: Killed, undisturbed: LaunchedTraining) -> None:
    assert killed.half_written, "the first kill was meant to leave half a checkpoint"
    assert killed.unfinished_line, "the second was meant to come before the line of the step that was saved"
    assert killed.loop.findings == [], "an end without a reason, processes that stay, a start that should be refused"
    kills = killed.loop.settings.kills
    assert killed.loop.kills == kills
    assert_same_metrics(killed.run.metrics(), undisturbed.metrics(), TOLERANCE)
    assert kept(killed.run) == LAST_TWO, "KEEP=2, over all starts"
    # the starts that were refused beside a running training have no log
    assert kills + 2 <= len(list(killed.run.out.glob("train.*.log"))) <= kills + 3


@pytest.mark.volume
def test_with_one_process_killed_it_ends_with_the_same_metrics(
    disturbed: Disturbed, undisturbed: LaunchedTraining
) -> None:
    assert len(list(disturbed.run.out.glob("train.*.log"))) == 4
    assert_same_metrics(disturbed.run.metrics(), undisturbed.metrics(), TOLERANCE)
    assert kept(disturbed.run) == LAST_TWO, "KEEP=2, over all starts"


@pytest.mark.volume
@pytest.mark.parametrize(
    ("which", "reason", "checkpoint"),
    [
        ("training_worker", r"WorkerDict \(pid \d+ on \S+\) died", 1),
        ("agent_loop_worker", "(agent-loop worker 0|AgentLoopWorkerTQ .*) died", 1),
        ("driver", "with status 137: verl's driver was ended by SIGKILL", 1),
    ],
)
def test_a_dead_process_is_named_and_the_checkpoint_holds(
    disturbed: Disturbed, which: str, reason: str, checkpoint: int
) -> None:
    end: Death = getattr(disturbed, which)
    assert end.status == 1
    assert end.checkpoint == checkpoint
    said, remedy = end.screen.splitlines()[-2:]
    assert re.search(reason, said)
    assert f"the same command resumes from the checkpoint of step {checkpoint}" in remedy


@pytest.mark.volume  # the launcher and verl's loop apart: tests/launch/test_asked_to_end.py, test_last_checkpoint.py
def test_it_saves_whatever_ends_it(tiny_task: TinyTask, folder: Path) -> None:
    rows = tiny_task.data.parent / "twelve.parquet"
    pd.read_parquet(tiny_task.data / "train.parquet").head(12).to_parquet(rows)
    run = LaunchedTraining(tiny_task, folder / "asked", 9)
    run.environment |= {"TRAIN_FILES": str(rows), "VAL_FILES": str(tiny_task.data / "heldout.parquet")}
    run.environment |= {"SAVE_FREQ": "50", "GRACE_S": "300", "LOGGERS": "console,file,tensorboard"}
    run.arguments += ["trainer.total_epochs=1", "trainer.val_before_train=false"]
    try:
        run.start()
        run.run_until(lambda: run.steps_logged() == 1, "the first step")
        run.process.terminate()
        assert run.end() == 143, run.screen()[-3000:]
        saved = run.latest_checkpoint()
        assert saved in (2, 3)
        assert f"the same command resumes from the checkpoint of step {saved}" in run.screen()
        run.start()
        assert run.end() == 0, run.screen()[-3000:]
    finally:
        run.kill()
    assert run.latest_checkpoint() == 3, "three steps of data"
    assert "ended after step 3 of 9: the data end" in run.screen()
    events = EventAccumulator(str(run.out / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("critic/score/mean")] == [1, 2, 3]


@pytest.fixture
def two_nodes(folder: Path) -> Iterator[str]:
    """host:port of a Ray of two nodes, started by the launchers, each of which offers one logical GPU."""
    variables = {"VERL_PLATFORM": "cpu", "NUM_CPUS": "8", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    sessions = []

    def start(launcher: str, **more: str) -> str:
        process = subprocess.Popen(
            ["bash", str(SCRIPTS / "ray" / launcher)],
            env=clean_environment(**variables, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        sessions.append(process.pid)
        output, _ = process.communicate(timeout=START_TIMEOUT_S)
        assert process.returncode == 0, output
        return output

    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as sockets:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        try:
            # a path of a socket is at most 107 characters, which pytest's folders leave no room for
            said = start("start_head.sh", PORT=port, TEMP_DIR=sockets)
            address = re.search(rf"[0-9.]+:{port}", said)
            assert address is not None, said
            start("start_worker.sh", RAY_ADDRESS=address[0])
            yield address[0]
        finally:
            for session in sessions:
                launched_training.kill_session(session)


def wait_for_nodes(address: str, nodes: int, timeout_s: int) -> subprocess.CompletedProcess[str]:
    wanted = ["--nodes", str(nodes), "--gpus", str(nodes), "--timeout-s", str(timeout_s)]
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "ray/wait_for_nodes.py"), "--address", address, *wanted],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
    )


@pytest.mark.volume
def test_two_nodes_train_as_one_does(
    two_nodes: str, undisturbed: LaunchedTraining, tiny_task: TinyTask, folder: Path
) -> None:
    waited = wait_for_nodes(two_nodes, nodes=2, timeout_s=120)
    assert waited.returncode == 0, waited.stderr
    waited = wait_for_nodes(two_nodes, nodes=3, timeout_s=1)
    assert waited.returncode == 1
    assert "2 of 3 nodes and 2 of 3 GPUs after 1 s" in waited.stderr

    variables = {"NNODES": "2", "GPUS_PER_NODE": "1", "RAY_ADDRESS": two_nodes}
    run = LaunchedTraining(tiny_task, folder / "two_nodes", 2, **variables)
    try:
        run.start()
        run.run_until(lambda: "Training Progress" in run.screen(), "the training loop")
        nodes_of_actors = json.loads(
            subprocess.run(
                [sys.executable, "-c", NODES_OF_ACTORS, two_nodes, "WorkerDict", "CPURolloutServer"],
                env=clean_environment(RAY_AUTH_MODE="token") if TOKEN.exists() else clean_environment(),
                check=True,
                capture_output=True,
                text=True,
                timeout=START_TIMEOUT_S,
            ).stdout.splitlines()[-1]
        )
        assert run.end() == 0, run.screen()[-3000:]
    finally:
        run.kill()
    for kind, nodes in nodes_of_actors.items():
        assert len(nodes) == len(set(nodes)) == 2, f"{kind}: one on each node"
    expected = {step: metrics for step, metrics in undisturbed.metrics().items() if step <= 2}
    assert_same_metrics(run.metrics(), expected, TOLERANCE)
