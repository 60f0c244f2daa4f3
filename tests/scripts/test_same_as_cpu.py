"""scripts/gpu/same_as_cpu.py: that it passes on one device, sees a difference, and says so where there is no GPU.

Not exercised: the comparison that it is for, which needs a GPU; that no tensors of two devices are mixed is checked in
tests/signals/test_one_device.py.
"""

from __future__ import annotations

import runpy

import pytest
import torch

from tests.scripts.launchers import SCRIPTS

SAME_AS_CPU = runpy.run_path(str(SCRIPTS / "gpu/same_as_cpu.py"))
MADE = SAME_AS_CPU["made_batch"](24, 40, True, 0)
CONFIG = SAME_AS_CPU["ispo_presets"]()["ispo"]


def results(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return SAME_AS_CPU["results"]({**MADE, **changes}, CONFIG, torch.device("cpu"))


def test_a_device_is_the_same_as_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert SAME_AS_CPU["main"](["--device", "cpu", "--sizes", "16x64", "8x1"]) == 0
    assert capsys.readouterr().out.endswith("the same\n")


def test_it_runs_all_presets_that_train_on_the_signals() -> None:
    presets = SAME_AS_CPU["ispo_presets"]()
    assert {"ispo", "ispo_guarded", "ispo_capped_ifd", "ispo_reference_std", "ispo_dr_grpo"} <= presets.keys()
    assert not presets.keys() & {"grpo", "gtpo"}
    assert presets["ispo_guarded"].all_wrong_groups == "informative"


def test_the_batches_have_the_cases_that_they_should() -> None:
    batch = SAME_AS_CPU["made_batch"](1024, 64, True, 0)
    lengths = batch["response_mask"].sum(dim=-1)
    answered = batch["answer_mask"].any(dim=-1)
    assert lengths.min() == 0
    assert lengths.max() == 64
    assert 0 < answered.float().mean() < 1
    assert not (answered & (lengths <= 12)).any(), "an answer lies in its response"
    found = SAME_AS_CPU["results"](batch, CONFIG, torch.device("cpu"))
    assert found["critical_mask"].any()
    assert (found["critical_mask"] != found["entropy_mask"]).any()
    assert all(batch["score"][:16] == torch.tensor([0.0] * 8 + [1.0] * 8))


@pytest.mark.parametrize(
    ("change", "blamed"),
    [
        ({"log_prob": MADE["log_prob"] - 1e-3}, "token_reward"),
        ({"ablated_answer_log_prob": MADE["ablated_answer_log_prob"] - 1e-3}, "measured_ifd"),
        ({"entropy": MADE["entropy"].flip(-1)}, "entropy_mask"),
        ({"correct": ~MADE["correct"]}, "training_reward"),
    ],
)
def test_a_difference_is_named(change: dict[str, torch.Tensor], blamed: str) -> None:
    faults = SAME_AS_CPU["differences"](results(), results(**change))
    assert any(fault.startswith(f"{blamed}: ") for fault in faults)
    assert SAME_AS_CPU["differences"](results(), results()) == []


def test_a_difference_is_exit_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real, calls = SAME_AS_CPU["results"], []

    def second_is_off(batch, config, device):
        calls.append(device)
        found = real(batch, config, device)
        return {**found, "total": found["total"] + 1e-3} if len(calls) % 2 == 0 else found

    monkeypatch.setitem(SAME_AS_CPU["main"].__globals__, "results", second_is_off)
    assert SAME_AS_CPU["main"](["--device", "cpu", "--sizes", "8x4", "--presets", "ispo"]) == 1
    assert "DIFFERENT  ispo: total: 8 of 8 differ, by up to 0.001" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert SAME_AS_CPU["main"]([]) == 2
    assert "no CUDA GPU" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["9x4", "8x0", "0x8"])
def test_a_size_that_makes_no_groups_is_refused(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        SAME_AS_CPU["main"](["--device", "cpu", "--sizes", size])
    assert stopped.value.code == 2
    assert size in capsys.readouterr().err
