"""Versions: an old verl, a missing engine, too few GPUs; and the doctor's command on a machine that is not the job's.

Not exercised: machines with GPUs.
"""

from __future__ import annotations

import shlex

import pytest

from tests.preflight.set_ups import BASE_7B, COMMON, composed, data_settings, with_settings
from verl_ispo import doctor
from verl_ispo.cli import build_parser
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding, as_notes, survived
from verl_ispo.preflight.packages import check_engine_packages, check_gpu_count, check_requirements


@pytest.mark.parametrize(
    ("version", "level"), [("0.9.1", OK), ("0.9.4", OK), ("0.8.2", PROBLEM), ("0.10.0", PROBLEM), (None, PROBLEM)]
)
def test_an_old_verl(version, level):
    lines = ["verl<0.10,>=0.9.1", "matplotlib; extra == 'plot'"]
    findings = list(check_requirements(lines, {"verl": version}.get))
    assert [(finding.subject, finding.level) for finding in findings] == [("verl", level)]
    if level == PROBLEM:
        assert "pip install" in findings[0].text
        assert (version or "not installed") in findings[0].text


@pytest.mark.parametrize(
    ("name", "settings", "installed", "level", "text"),
    [
        ("ispo_trainer", (), {}, PROBLEM, "vllm is not installed; pip install 'verl_ispo[gpu]'"),
        ("ispo_trainer", (), {"vllm": "0.8.5"}, NOTE, "0.8.5, while verl tests with vllm=="),
        ("ispo_trainer", ("actor_rollout_ref.rollout.name=sglang",), {}, PROBLEM, "sglang is not installed"),
        (
            "ispo_megatron_trainer",
            (),
            {"vllm": "0.24.0"},
            PROBLEM,
            "megatron-core is not installed; train in verl",
        ),
    ],
)
def test_engines(name, settings, installed, level, text):
    findings = list(check_engine_packages(with_settings(settings, composed(name)), installed.get))
    assert [finding.level for finding in findings] == [level]
    assert text in findings[0].text


def test_too_few_gpus():
    config = with_settings([])
    assert [finding.level for finding in check_gpu_count(config, 4)] == [PROBLEM]
    assert list(check_gpu_count(config, 8)) == []
    assert list(check_gpu_count(config, 0)) == []  # a login node; check_devices notes it


def test_another_machines_faults_are_notes():
    findings = [Finding(PROBLEM, "vllm", "missing"), Finding(OK, "python", "3.11")]
    assert [finding.level for finding in as_notes(iter(findings))] == [NOTE, OK]


def test_a_check_that_breaks_is_a_problem_and_keeps_what_it_had_found():
    def check():
        yield Finding(OK, "before", "fine")
        raise TypeError("not a number")

    assert [(finding.subject, finding.level) for finding in survived("sizes", check)] == [
        ("before", OK),
        ("sizes", PROBLEM),
    ]


def test_a_dry_run_prints_the_command_and_forgives_this_machine(tmp_path, capsys, monkeypatch):
    """vLLM and GPUs are missing here, and the job is sound."""
    monkeypatch.setattr(doctor, "check_ray_worker", lambda: pytest.fail("a dry run starts no Ray"))
    overrides = [*COMMON, *BASE_7B, *data_settings(tmp_path), "trainer.experiment_name=a run"]
    assert doctor.run("ispo_trainer", overrides, dry_run=True) == 0
    printed = capsys.readouterr().out
    assert "PROBLEM" not in printed
    command = shlex.split(printed.strip().splitlines()[-1])
    assert command == ["python", "-m", "verl.trainer.main_ppo", "--config-name=ispo_trainer", *overrides]


def test_a_job_that_cannot_be_right_is_refused_also_in_a_dry_run(tmp_path, capsys):
    overrides = [*COMMON, *BASE_7B, *data_settings(tmp_path), "actor_rollout_ref.rollout.max_model_len=4096"]
    assert doctor.run("ispo_trainer", overrides, dry_run=True) == 1
    assert "PROBLEM  actor_rollout_ref.rollout.max_model_len" in capsys.readouterr().out
    assert doctor.run("ispo_trainer", ["algorithm.ispo.ifd_weigth=1"], dry_run=True) == 1
    assert "does not compose" in capsys.readouterr().out


def test_changes_against_the_paper_are_listed(tmp_path, capsys):
    overrides = [*COMMON, *BASE_7B, *data_settings(tmp_path), "data.train_batch_size=256", "method=ispo_no_hinge"]
    assert doctor.run("ispo_trainer", [*overrides, "actor_rollout_ref.actor.optim.lr=3e-6"], dry_run=True) == 0
    printed = capsys.readouterr().out
    assert "data.train_batch_size: is 256; the paper's, or the preset's, is 512" in printed
    assert "actor_rollout_ref.actor.optim.lr: is 3e-06; the paper's, or the preset's, is 1e-06" in printed
    assert "algorithm.ispo: {'hinge_weight': 0.0}" in printed
    assert "algorithm.ispo.hinge_weight: is" not in printed  # the preset's own


def test_arguments():
    options = build_parser().parse_args(["doctor", "--dry-run", "--gpu-memory-gib", "40", "a=1", "b=2"])
    assert (options.dry_run, options.gpu_memory_gib, options.overrides) == (True, 40.0, ["a=1", "b=2"])
    assert build_parser().parse_args(["doctor"]).gpu_memory_gib == 80.0
