"""scripts/gpu/same_attention.py on the CPU: packed rows pass, and rows that see one another do not."""

from __future__ import annotations

import runpy

import pytest
import torch

from tests.scripts.launchers import SCRIPTS
from verl_ispo import varlen_attention

SAME_ATTENTION = runpy.run_path(str(SCRIPTS / "gpu/same_attention.py"))
ARGUMENTS = ["--device", "cpu", "--tokens", "24"]


@pytest.fixture(autouse=True)
def one_timed_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAME_ATTENTION["pass_time_s"].__globals__, "TIMED_PASSES", 1)


def test_packed_rows_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert SAME_ATTENTION["main"](ARGUMENTS) == 0
    assert "rows of 24, 1, 9, 13 tokens" in capsys.readouterr().out


def test_rows_that_see_one_another_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_row(position_ids: torch.Tensor) -> tuple[torch.Tensor, int]:
        tokens = position_ids.numel()
        return torch.tensor([0, tokens], dtype=torch.int32), tokens

    monkeypatch.setattr(varlen_attention, "_row_starts", one_row)
    assert SAME_ATTENTION["main"](ARGUMENTS) == 1
