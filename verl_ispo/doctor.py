"""``verl-ispo doctor``: says in plain words whether this installation can train ISPO, and what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

OK, NOTE, PROBLEM = "ok", "note", "PROBLEM"

# Beside the package's own requirements: what a GPU run uses, and what for.
OPTIONAL_PACKAGES = {
    "vllm": "rollouts on GPUs (pip install 'verl_ispo[gpu]')",
    "sglang": "rollouts on GPUs, instead of vllm (pip install 'verl_ispo[sglang]')",
    "flash-attn": "packed sequences on GPUs; without it set attn_implementation=sdpa",
    "megatron-core": "Megatron training (pip install 'verl_ispo[megatron]')",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report: how bad it is, what it is about, and what to do."""

    level: str
    subject: str
    text: str


def run(config_name: str, overrides: Sequence[str], check_ray: bool = True) -> int:
    """Run every check, print the findings, and return 1 if one of them would stop a training."""
    findings: list[Finding] = []

    def report(checks: Iterator[Finding]) -> None:
        for finding in checks:
            print(f"{finding.level:>8}  {finding.subject}: {finding.text}", flush=True)
            findings.append(finding)

    report(check_versions())
    report(check_devices())
    report(check_registrations())
    if check_ray:
        report(check_ray_worker())
    report(check_config(config_name, overrides))
    problems = sum(finding.level == PROBLEM for finding in findings)
    print(f"\n{problems} problem(s)" if problems else "\nNothing stands in the way of a training.")
    return 1 if problems else 0


def check_versions() -> Iterator[Finding]:
    """Installed versions against the ranges of this package, and the optional packages."""
    yield Finding(OK, "python", platform.python_version())
    for line in importlib.metadata.requires("verl_ispo") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _installed(requirement.name)
        if version is None:
            yield Finding(PROBLEM, requirement.name, f"not installed; pip install '{requirement}'")
        elif version not in requirement.specifier:
            yield Finding(PROBLEM, requirement.name, f"{version}, but {requirement} is needed")
        else:
            yield Finding(OK, requirement.name, version)
    for name, use in OPTIONAL_PACKAGES.items():
        version = _installed(name)
        yield Finding(OK, name, version) if version else Finding(NOTE, name, f"not installed; needed for {use}")


def check_devices() -> Iterator[Finding]:
    """GPUs that torch sees, and whether verl's platform fits them."""
    import torch

    chosen = os.environ.get("VERL_PLATFORM", "").strip().lower()
    if torch.cuda.is_available():
        names = sorted({torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())})
        yield Finding(OK, "devices", f"{torch.cuda.device_count()} GPU(s): {', '.join(names)}")
        if chosen == "cpu":
            yield Finding(PROBLEM, "VERL_PLATFORM", "is cpu although there is a GPU; unset it")
    elif chosen == "cpu":
        yield Finding(OK, "devices", f"no GPU; VERL_PLATFORM=cpu, {os.cpu_count()} cores")
    else:
        yield Finding(
            NOTE, "devices", "no GPU seen by torch here; to train on the CPU set VERL_PLATFORM=cpu and backend=cpu"
        )


def missing_registrations() -> list[str]:
    """What verl should know of ISPO in this process, and does not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
        from verl.plugin.platform.platform_manager import PlatformRegistry
        from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
        from verl.workers.rollout.replica import RolloutReplicaRegistry

    expected = {
        **{
            f"advantage estimator {name}": name in ADV_ESTIMATOR_REGISTRY
            for name in ("ispo", "gtpo", "grpo_s", "progrpo", "prepo")
        },
        **{f"policy loss {name}": name in POLICY_LOSS_REGISTRY for name in ("ispo", "grpo_s")},
        "trainer mode ispo_sync": "ispo_sync" in TRAINER_REGISTRY,
        "trainer mode ispo_colocate_async": "ispo_colocate_async" in TRAINER_REGISTRY,
        "trainer mode ispo_separate_async": "ispo_separate_async" in TRAINER_REGISTRY,
        "platform cpu": "cpu" in PlatformRegistry.registered_names(),
        "rollout server cpu": "cpu" in RolloutReplicaRegistry._registry,
        "agent loop ispo_seeded_single_turn": "ispo_seeded_single_turn" in _agent_loop_registry,
    }
    return [name for name, found in expected.items() if not found]


def check_registrations() -> Iterator[Finding]:
    """That importing verl has loaded the plugin in this process."""
    yield _registration_finding("registrations here", missing_registrations())


def check_ray_worker() -> Iterator[Finding]:
    """The same inside a Ray worker, which is another process and on a cluster another machine."""
    import ray

    started_here = not ray.is_initialized()
    if started_here:
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        missing = ray.get(ray.remote(missing_registrations).options(num_cpus=1).remote())
        yield _registration_finding("registrations in a Ray worker", missing)
    except ray.exceptions.RayError as error:
        yield Finding(PROBLEM, "Ray worker", str(error).strip().splitlines()[-1])
    finally:
        if started_here:
            ray.shutdown()


def check_config(config_name: str, overrides: Sequence[str]) -> Iterator[Finding]:
    """That the config composes, that its ISPO settings are valid, and that its files are there."""
    from hydra import compose, initialize_config_module
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from verl_ispo.config.ispo_config import ISPOConfig
    from verl_ispo.config.rollout_dump_config import split_ispo_settings
    from verl_ispo.trainer.advantage import ISPO_TRAINER_MODES
    from verl_ispo.trainer.refusals import UnsupportedSettingError, refuse_unsupported_settings

    try:
        with initialize_config_module("verl.trainer.config", version_base=None):
            config = compose(config_name, overrides=list(overrides))
    except HydraException as error:
        yield Finding(PROBLEM, "config", f"{config_name} does not compose: {str(error).strip()}")
        return
    yield Finding(OK, "config", f"{config_name} composes")
    try:
        settings, _ = split_ispo_settings(config.algorithm.get("ispo"))
        refuse_unsupported_settings(config)
    except (ValueError, UnsupportedSettingError) as error:
        yield Finding(PROBLEM, "config", str(error))
        return
    changed = {
        key: value for key, value in settings.to_dict().items() if value != getattr(ISPOConfig(), key)
    } or "as in the paper"
    yield Finding(OK, "algorithm.ispo", str(changed))
    mode = config.trainer.v1.trainer_mode
    if config.algorithm.adv_estimator == "ispo" and (mode not in ISPO_TRAINER_MODES or not config.trainer.use_v1):
        yield Finding(
            PROBLEM,
            "trainer.v1.trainer_mode",
            f"is {mode} (use_v1={config.trainer.use_v1}), which computes no signals; set one of "
            f"{', '.join(ISPO_TRAINER_MODES)} and use_v1=true",
        )
    given = {override.lstrip("+").split("=", 1)[0] for override in overrides}
    for key in ("data.train_files", "data.val_files", "actor_rollout_ref.model.path"):
        value = OmegaConf.select(config, key)
        if key not in given:
            yield Finding(NOTE, key, f"not given; verl's default is {value}")
            continue
        for name in [value] if isinstance(value, str) else list(value):
            yield _path_finding(key, str(name))


def _path_finding(key: str, name: str) -> Finding:
    if Path(name).expanduser().exists():
        return Finding(OK, key, name)
    if key == "actor_rollout_ref.model.path" and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return Finding(NOTE, key, f"{name} is not a folder here; verl will ask the model hub for it")
    return Finding(PROBLEM, key, f"{name} does not exist")


def _registration_finding(subject: str, missing: list[str]) -> Finding:
    if not missing:
        return Finding(OK, subject, "all there")
    return Finding(
        PROBLEM,
        subject,
        f"missing: {', '.join(missing)}. Install verl_ispo into this environment (pip install .), leave "
        "VERL_USE_EXTERNAL_PLUGINS unset or auto, and see the reason with: "
        "python -c 'import verl_ispo.plugin'",
    )


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
