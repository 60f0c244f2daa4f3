"""vLLM on a CPU: the settings and the build that it needs, and the launcher's choice of them.

What goes wrong in general: one of the settings that a GPU does without is left out, and the training hangs or dies
minutes after its start; or the environment has the other build of vLLM.
"""

from __future__ import annotations

import pytest

from tests.preflight.set_ups import all_findings, composed, with_settings
from verl_ispo.launch.training_options import ROLLOUTS
from verl_ispo.preflight.finding import NOTE, PROBLEM
from verl_ispo.preflight.packages import check_engine_packages
from verl_ispo.preflight.vllm_on_cpu import EXTENSION, RELOADABLE, ROLLOUT, THREADS_BIND, check_vllm_on_cpu

ENVIRONMENT = f"ray_kwargs.ray_init.runtime_env.env_vars.{THREADS_BIND}"


def test_the_backend_is_all_that_it_needs() -> None:
    assert list(check_vllm_on_cpu(composed("ispo_trainer", "backend=cpu_vllm"))) == []
    assert list(check_vllm_on_cpu(composed("ispo_trainer", "backend=cpu"))) == []
    assert list(check_vllm_on_cpu(composed())) == []  # a GPU


def test_the_backend_is_the_cpus_but_for_the_rollout() -> None:
    cpu, vllm = (composed("ispo_trainer", f"backend={name}") for name in ("cpu", "cpu_vllm"))
    for section in ("trainer", "data", "algorithm", "reward", "transfer_queue"):
        assert cpu[section] == vllm[section]
    for section in ("model", "actor", "ref"):
        assert cpu.actor_rollout_ref[section] == vllm.actor_rollout_ref[section]
    assert set(ROLLOUTS) >= {"cpu", "cpu_vllm"}


@pytest.mark.parametrize(
    ("setting", "subject", "level", "text"),
    [
        (f"{EXTENSION}=null", EXTENSION, PROBLEM, f"set +{EXTENSION}={RELOADABLE}"),
        (f"{EXTENSION}=my.Extension", EXTENSION, NOTE, "is my.Extension, which has to keep the weights loadable"),
        (f"{ROLLOUT}.free_cache_engine=true", f"{ROLLOUT}.free_cache_engine", PROBLEM, "can sleep on a GPU alone"),
        (f"{ROLLOUT}.enable_sleep_mode=true", f"{ROLLOUT}.enable_sleep_mode", PROBLEM, "can sleep on a GPU alone"),
        (f"{ENVIRONMENT}=auto", ENVIRONMENT, NOTE, f"set +{ENVIRONMENT}=nobind"),
    ],
)
def test_each_setting_that_is_left_out_is_named(setting: str, subject: str, level: str, text: str) -> None:
    config = with_settings([setting], composed("ispo_trainer", "backend=cpu_vllm"))
    [finding] = check_vllm_on_cpu(config)
    assert (finding.subject, finding.level) == (subject, level)
    assert text in finding.text
    assert finding in all_findings(config)


@pytest.mark.parametrize(
    ("backend", "version", "level", "text"),
    [
        (
            "backend=cpu_vllm",
            None,
            PROBLEM,
            "vllm is not installed; its CPU build has an environment of its own: source",
        ),
        ("backend=cpu_vllm", "0.24.0", PROBLEM, "0.24.0 is a build for GPUs, and trainer.device=cpu"),
        ("backend=cpu_vllm", "0.27.1+cpu", NOTE, "0.27.1+cpu, while verl tests with vllm=="),
        ("method=ispo", "0.27.1+cpu", PROBLEM, "0.27.1+cpu is the CPU build, and the training is for cuda"),
    ],
)
def test_the_build_is_for_the_device(backend: str, version: str | None, level: str, text: str) -> None:
    [finding] = check_engine_packages(composed("ispo_trainer", backend), {"vllm": version}.get)
    assert finding.level == level
    assert text in finding.text
