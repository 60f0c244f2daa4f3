"""Starting on several nodes: the order of steps in the Slurm job, its end, and the wait until all nodes have joined.

Slurm's programs and python only record their calls, which show what would run where; srun runs its command here. Not
exercised: a real Slurm, a real Ray over several machines. What a node tells Ray is in tests/launch/test_ray_node.py.
"""

from __future__ import annotations

import runpy
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.scripts.launchers import NOTING, SCRIPTS, NotingPrograms, clean_environment, launch

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

# a node is 10.0.0.N by its name, or what $ADDRESS says
GETENT = r"""#!/usr/bin/env bash
found="${ADDRESS-10.0.0.${2#n}}"
if [ -n "$found" ]; then echo "$found STREAM"; else exit 2; fi
"""

# as the real one, which returns when all nodes have joined
WAITING = r"""
case "$call" in *wait_for_nodes*)
    until [ "$(grep -c '^-m verl_ispo.launch.ray_node' "$NOTES")" = 3 ]; do sleep 0.1; done ;;
esac
"""


@pytest.fixture
def slurm(tmp_path: Path, programs: NotingPrograms) -> dict[str, str]:
    """The environment of a job on three nodes."""
    programs.add("python", NOTING + WAITING)
    programs.add("srun", SRUN)
    programs.add("scontrol", SCONTROL)
    programs.add("getent", GETENT)
    base = clean_environment()
    return {
        **base,
        **programs.variables,
        **{"PATH": f"{programs.folder}:{base['PATH']}", "RAY_PORT": "20077", "REPOSITORY": str(SCRIPTS.parent)},
        **{"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "n[1-3]"},
        **{"SLURM_GPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "16"},
        **{"MODEL": "qwen2_5_7b", "METHOD": "ispo", "DATA": str(tmp_path), "OUT": str(tmp_path / "run"), "STEPS": "5"},
        "HANG": "*ray_node*",
    }


def job(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(SCRIPTS / "slurm/train.sbatch"), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_slurm_job_starts_all_nodes_trains_and_ends_them(slurm: dict[str, str], programs: NotingPrograms) -> None:
    process = job(slurm, "data.train_batch_size=64")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    address = "10.0.0.1:20077"
    assert [call.split(":")[0][-2:] for call in sorted(programs.calls("srun on"))] == ["n1", "n2", "n3"]
    sizes = "--num-gpus 8 --num-cpus 16 --block"
    assert sorted(call for call in programs.calls("launch.ray_node") if call.startswith("-m")) == [
        f"-m verl_ispo.launch.ray_node head --port 20077 --node-ip 10.0.0.1 {sizes}",
        f"-m verl_ispo.launch.ray_node worker --ray-address {address} --node-ip 10.0.0.2 {sizes}",
        f"-m verl_ispo.launch.ray_node worker --ray-address {address} --node-ip 10.0.0.3 {sizes}",
    ]
    (waited,) = programs.calls("wait_for_nodes")
    assert waited.endswith(f"--address {address} --nodes 3 --gpus 24 --timeout-s 600")
    tokens = programs.calls("token ")
    assert len(tokens) == 3
    assert len(set(tokens)) == 1, "the nodes of a job share a token of its own"
    assert len(tokens[0].removeprefix("token token ")) == 64
    (trained,) = programs.calls("cli train")
    for part in ("--nnodes 3", "--gpus-per-node 8", f"--ray-address {address}", "-- data.train_batch_size=64"):
        assert part in trained
    assert programs.calls().index(waited) < programs.calls().index(trained)
    assert len(programs.calls("ended: -m verl_ispo.launch.ray_node")) == 3, "no node's Ray outlives the job"


def test_a_node_that_does_not_join_ends_the_job_before_the_training(
    slurm: dict[str, str], programs: NotingPrograms
) -> None:
    process = job({**slurm, "FAIL": "*wait_for_nodes*"})
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0, output
    assert not programs.calls("cli train")
    assert not any("train.sh" in line for line in programs.calls())


def test_the_time_limit_ends_the_training_and_requeues_if_asked(
    slurm: dict[str, str], programs: NotingPrograms
) -> None:
    process = job({**slurm, "HANG": "-m verl_ispo*", "REQUEUE_AT_LIMIT": "1"})
    for _ in range(600):
        if programs.calls("cli train"):
            break
        time.sleep(0.1)
    time.sleep(0.3)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert programs.calls("scontrol requeue 77")
    ends = [call for call in programs.calls() if call.startswith(("ended:", "scontrol requeue"))]
    assert "-m verl_ispo.cli train" in ends[0], (
        "it saves, for which it needs its nodes and a job that is not killed yet"
    )
    assert ends[1] == "scontrol requeue 77"
    assert sum("ray_node" in call for call in ends) == 3
    (grace,) = [
        call.partition("--grace-s ")[2].split()[0] for call in programs.calls("cli train") if "ended" not in call
    ]
    assert 0 < int(grace) < 180, "less than what --signal leaves before the limit"


@pytest.mark.parametrize("address", ["127.0.1.1", "127.0.0.1", ""])
def test_a_node_that_the_others_cannot_reach_is_refused_at_once(
    slurm: dict[str, str], programs: NotingPrograms, address: str
) -> None:
    """A name that resolves to the machine itself, as Debian writes it into /etc/hosts, was ten minutes of waiting."""
    process = job({**slurm, "ADDRESS": address})
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert f"n1 has the address '{address}'" in output
    assert "set RAY_INTERFACE" in output
    assert not programs.calls("ray_node")


def test_a_job_on_one_node_may_use_its_own_address(slurm: dict[str, str], programs: NotingPrograms) -> None:
    programs.add("scontrol", "#!/usr/bin/env bash\necho n1\n")
    programs.add("python", NOTING)
    process = job({**slurm, "ADDRESS": "127.0.1.1"})
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert programs.calls("cli train")


def test_a_node_without_the_package_is_named(programs: NotingPrograms, tmp_path: Path) -> None:
    run = launch("ray/start_head.sh", cwd=tmp_path, FAIL="-c *", **programs.variables)
    assert run.returncode == 2
    assert "verl_ispo or ray is not installed" in run.stderr
    assert not programs.calls("ray_node")


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
