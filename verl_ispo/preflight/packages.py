"""Versions: this package's requirements, and what the config's rollout engine and training strategy need."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterable, Iterator

from omegaconf import DictConfig
from packaging.requirements import Requirement

from verl_ispo.preflight.composition import setting
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding
from verl_ispo.preflight.vllm_on_cpu import SETUP, is_vllm_on_cpu, wrong_build

# Besides the package's own requirements: what a GPU run uses, and what for.
OPTIONAL_PACKAGES = {
    "vllm": "rollouts on GPUs (pip install 'verl_ispo[gpu]')",
    "sglang": "rollouts on GPUs, instead of vllm (pip install 'verl_ispo[sglang]')",
    "flash-attn": "packed sequences on GPUs; without it set attn_implementation=sdpa",
    "megatron-core": "Megatron training",
}
# pip cannot resolve verl[megatron]: the public index has neither its megatron-bridge nor the apex that it means
MEGATRON_REMEDY = (
    "train in verl's own locked environment (a checkout of verl: python manage_envs.py sync vllm megatron), or in an "
    "image of verlai/verl with Megatron, and pip install this package there; docs/cluster.md has the commands"
)
ENGINE_PACKAGES = {
    "vllm": ("vllm", "pip install 'verl_ispo[gpu]'"),
    "sglang": ("sglang", "pip install 'verl_ispo[sglang]'"),
    "trtllm": ("tensorrt-llm", "install tensorrt-llm as its vendor says"),
}
STRATEGY_PACKAGES = {"megatron": ("megatron-core", MEGATRON_REMEDY)}
InstalledVersion = Callable[[str], str | None]


def installed_version(name: str) -> str | None:
    """The version of an installed package, or `None`."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_requirements(
    requirements: Iterable[str], installed: InstalledVersion = installed_version
) -> Iterator[Finding]:
    """Installed versions against ranges such as ``verl>=0.9.1,<0.10``; those of extras are left out."""
    for line in requirements:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = installed(requirement.name)
        if version is None:
            yield Finding(PROBLEM, requirement.name, f"not installed; pip install '{requirement}'")
        elif version not in requirement.specifier:
            yield Finding(
                PROBLEM, requirement.name, f"{version}, but {requirement} is needed; pip install '{requirement}'"
            )
        else:
            yield Finding(OK, requirement.name, version)


def check_versions() -> Iterator[Finding]:
    """Installed versions against the ranges of this package, and the optional packages."""
    yield Finding(OK, "python", platform.python_version())
    yield from check_requirements(importlib.metadata.requires("verl_ispo") or [])
    for name, use in OPTIONAL_PACKAGES.items():
        version = installed_version(name)
        yield Finding(OK, name, version) if version else Finding(NOTE, name, f"not installed; needed for {use}")


def check_engine_packages(config: DictConfig, installed: InstalledVersion = installed_version) -> Iterator[Finding]:
    """What ``rollout.name`` and ``actor.strategy`` import, against verl's own pins."""
    for key, table in (
        ("actor_rollout_ref.rollout.name", ENGINE_PACKAGES),
        ("actor_rollout_ref.actor.strategy", STRATEGY_PACKAGES),
    ):
        value = str(setting(config, key))
        if value not in table:
            continue
        name, remedy = table[value]
        version = installed(name)
        if version is None:
            if name == "vllm" and is_vllm_on_cpu(config):
                remedy = f"its CPU build has an environment of its own: {SETUP}"
            yield Finding(PROBLEM, key, f"is {value}, and {name} is not installed; {remedy}")
        elif name == "vllm" and (found := wrong_build(config, version)):
            yield found
        else:
            yield from _against_verls_pins(name, version, value)


def _against_verls_pins(name: str, version: str, extra: str) -> Iterator[Finding]:
    for line in importlib.metadata.requires("verl") or []:
        requirement = Requirement(line)
        in_extra = requirement.marker is not None and requirement.marker.evaluate({"extra": extra})
        if requirement.name == name and in_extra and version not in requirement.specifier:
            yield Finding(NOTE, name, f"{version}, while verl tests with {name}{requirement.specifier}")


def check_gpu_count(config: DictConfig, gpus_here: int) -> Iterator[Finding]:
    """GPUs of this machine against what a run on one node asks for."""
    key = "trainer.n_gpus_per_node"
    wanted = setting(config, key)
    if setting(config, "trainer.device") != "cpu" and 0 < gpus_here < wanted:
        yield Finding(PROBLEM, key, f"is {wanted}, and this machine has {gpus_here} GPU(s); set {key}={gpus_here}")
