"""Two trainings with a Ray cluster each have the same job id, and with it verl's same sockets: the second is refused.

Another id, a training that has ended and one that was killed stand in nobody's way.

Not exercised: two clusters on GPUs, where it was seen; the socket's name is verl's (tests/verl_contract).
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from verl_ispo.trainer.verl_workarounds import weight_sockets
from verl_ispo.trainer.verl_workarounds.weight_sockets import take_weight_sockets
from verl_ispo.user_error import UserError


@pytest.fixture
def job_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setattr(weight_sockets, "FOLDER", tmp_path)
    return uuid.uuid4().hex[:8]


def test_one_training_at_a_time_has_a_job_ids_sockets(job_id: str) -> None:
    with take_weight_sockets(job_id):
        with pytest.raises(UserError, match=f"rl-colocate-zmq-{job_id}.*one cluster .*RAY_ADDRESS"):
            take_weight_sockets(job_id)
        with take_weight_sockets(job_id + "1"):
            pass
    with take_weight_sockets(job_id):
        pass


def test_a_killed_training_leaves_them_free(job_id: str, tmp_path: Path) -> None:
    code = (
        "import pathlib, time; from verl_ispo.trainer.verl_workarounds import weight_sockets as w; "
        f"w.FOLDER = pathlib.Path({str(tmp_path)!r}); held = w.take_weight_sockets({job_id!r}); "
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="mix the weights"):
            take_weight_sockets(job_id)
        process.kill()
    with take_weight_sockets(job_id):
        pass
