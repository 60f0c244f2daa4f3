"""Starting on several nodes: the order of things in the Slurm job, its end, and the wait until all nodes have joined.

Slurm and Ray are stand-ins: srun runs its command here, and noted calls tell what would run where. Not exercised: a
real Slurm, and a real Ray over several machines.
"""

from __future__ import annotations

import runpy
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.scripts.launchers import SCRIPTS, StandIn, clean_environment, launch

WAIT = runpy.run_path(str(SCRIPTS / "ray/wait_for_nodes.py"))
SRUN = r"""#!/usr/bin/env bash
where=""
while [ $# -gt 0 ]; do
    case "$1" in -w) where="$2"; shift 2 ;; -*) shift ;; *) break ;; esac
done
printf 'srun on %s: %s\n' "$where" "$*" >>"$NOTES"
printf 'token %s %s\n' "$RAY_AUTH_MODE" "$RAY_AUTH_TOKEN" >>"$NOTES"
exec "$@"
"""
SCONTROL = r"""#!/usr/bin/env bash
echo "scontrol $*" >>"$NOTES"
if [ "$1" = show ]; then printf '%s\n' n1 n2 n3; fi
"""


@pytest.fixture
def slurm(tmp_path: Path, stand_in: StandIn, data: Path) -> dict[str, str]:
    """The environment of a job on three nodes whose programs are stand-ins."""
    programs = tmp_path / "bin"
    programs.mkdir()
    written = {
        "srun": SRUN,
        "scontrol": SCONTROL,
        "getent": "#!/usr/bin/env bash\necho 127.0.0.1 STREAM\n",
    }
    for name, text in written.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    base = clean_environment()
    return {
        **base,
        **stand_in.variables,
        **{"PATH": f"{programs}:{base['PATH']}", "RAY_PORT": str(port), "REPOSITORY": str(SCRIPTS.parent)},
        **{"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "n[1-3]"},
        **{"SLURM_GPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "16"},
        **{"MODEL": "qwen2_5_7b", "METHOD": "ispo", "DATA": str(data), "OUT": str(tmp_path / "run"), "STEPS": "5"},
        "HANG": "*ray.scripts*",
    }


def job(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(SCRIPTS / "slurm/train.sbatch"), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_slurm_job_starts_all_nodes_trains_and_ends_them(slurm: dict[str, str], stand_in: StandIn) -> None:
    with socket.create_server(("127.0.0.1", int(slurm["RAY_PORT"]))):  # what start_worker.sh waits for
        process = job(slurm, "data.train_batch_size=64")
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    address = f"127.0.0.1:{slurm['RAY_PORT']}"
    assert [call.split(":")[0][-2:] for call in sorted(stand_in.calls("srun on"))] == ["n1", "n2", "n3"]
    sizes = "--disable-usage-stats --node-ip-address=127.0.0.1 --num-gpus=8 --num-cpus=16 --block"
    assert sorted(call for call in stand_in.calls("ray.scripts") if call.startswith("-m")) == [
        f"-m ray.scripts.scripts start --address={address} {sizes}",
        f"-m ray.scripts.scripts start --address={address} {sizes}",
        f"-m ray.scripts.scripts start --head --port={slurm['RAY_PORT']} {sizes}",
    ]
    (waited,) = stand_in.calls("wait_for_nodes")
    assert waited.endswith(f"--address {address} --nodes 3 --gpus 24 --timeout-s 600")
    tokens = stand_in.calls("token ")
    assert len(tokens) == 3
    assert len(set(tokens)) == 1, "the nodes of a job share a token of its own"
    assert len(tokens[0].removeprefix("token token ")) == 64
    (trained,) = stand_in.calls("main_ppo")
    for part in ("nnodes=3", "n_gpus_per_node=8", f"ray_init.address='{address}'", "train_batch_size=64"):
        assert part in trained
    assert stand_in.calls().index(waited) < stand_in.calls().index(trained)
    assert len(stand_in.calls("ended: -m ray.scripts")) == 3, "no node's Ray outlives the job"


def test_a_node_that_does_not_join_ends_the_job_before_the_training(slurm: dict[str, str], stand_in: StandIn) -> None:
    with socket.create_server(("127.0.0.1", int(slurm["RAY_PORT"]))):
        process = job({**slurm, "FAIL": "*wait_for_nodes*"})
        output, _ = process.communicate(timeout=120)
    assert process.returncode != 0, output
    assert not stand_in.calls("main_ppo")
    assert not any("train.sh" in line for line in stand_in.calls())


def test_the_time_limit_ends_the_training_and_requeues_if_asked(slurm: dict[str, str], stand_in: StandIn) -> None:
    with socket.create_server(("127.0.0.1", int(slurm["RAY_PORT"]))):
        process = job({**slurm, "HANG": "*main_ppo*", "REQUEUE_AT_LIMIT": "1"})
        for _ in range(600):
            if stand_in.calls("main_ppo"):
                break
            time.sleep(0.1)
        time.sleep(0.3)
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert stand_in.calls("scontrol requeue 77")
    assert stand_in.calls("ended: -m verl.trainer.main_ppo")


def test_a_worker_without_a_head_gives_up_with_a_remedy(stand_in: StandIn, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        run = launch("ray/start_worker.sh", cwd=tmp_path, RAY_ADDRESS=address, TRIES="1", **stand_in.variables)
    assert run.returncode == 1
    assert f"no answer from {address} after 1 tries" in run.stderr


def test_a_node_without_the_package_is_named(stand_in: StandIn, tmp_path: Path) -> None:
    run = launch("ray/start_head.sh", cwd=tmp_path, FAIL_CHECK="1", **stand_in.variables)
    assert run.returncode == 2
    assert "verl_ispo or ray is not installed" in run.stderr
    assert not stand_in.calls("ray.scripts")


def test_logical_sizes_on_a_cpu_and_no_joining_of_another_cluster(stand_in: StandIn, tmp_path: Path) -> None:
    run = launch("ray/start_head.sh", cwd=tmp_path, VERL_PLATFORM="cpu", RAY_ADDRESS="other:1", **stand_in.variables)
    assert run.returncode == 0, run.stderr
    (call,) = stand_in.calls("ray.scripts")
    assert call == "-m ray.scripts.scripts start --head --port=6379 --disable-usage-stats --num-gpus=1 --num-cpus=32"


def node(gpus: float, alive: bool = True) -> dict[str, object]:
    return {"Alive": alive, "Resources": {"CPU": 4.0, "GPU": gpus} if gpus else {"CPU": 4.0}}


def test_waiting_ends_when_nodes_and_gpus_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    views = iter([[node(8)], [node(8), node(8, alive=False)], [node(8), node(0)], [node(8), node(8)]])
    slept: list[float] = []
    missing = WAIT["wait"](lambda: next(views), 2, 16, 60.0, clock=lambda: 0.0, sleep=slept.append)
    assert missing is None
    assert len(slept) == 3
    assert capsys.readouterr().out.splitlines() == [
        "1 of 2 nodes, 8 of 16 GPUs", "2 of 2 nodes, 8 of 16 GPUs", "2 of 2 nodes, 16 of 16 GPUs",
    ]  # fmt: skip


def test_waiting_gives_up_and_says_what_is_missing() -> None:
    clock = iter([0.0, 30.0, 60.0])
    missing = WAIT["wait"](lambda: [node(8)], 2, 16, 60.0, clock=lambda: next(clock), sleep=lambda _: None)
    assert missing == "1 of 2 nodes and 8 of 16 GPUs after 60 s"
