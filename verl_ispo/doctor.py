"""``verl-ispo doctor``: says whether a training can start here and will train what is meant.

The checks of the config are in `verl_ispo.preflight`; those of this machine's processes and devices are here.
"""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from omegaconf import DictConfig

from verl_ispo.methods.registry import methods
from verl_ispo.preflight.batch_sizes import check_batch_sizes, check_parallel_sizes
from verl_ispo.preflight.checkpoint_plan import check_checkpoints, check_disk
from verl_ispo.preflight.composition import (
    Parallelism,
    compose_config,
    composed_preset,
    preset_overrides,
    read_parallelism,
    setting,
)
from verl_ispo.preflight.context_length import check_context
from verl_ispo.preflight.cpu_memory import check_cpu_memory, machine_memory_bytes
from verl_ispo.preflight.data_files import check_data
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding, as_notes, survived
from verl_ispo.preflight.gpu_memory import check_memory
from verl_ispo.preflight.loggers import check_logger_packages, check_loggers
from verl_ispo.preflight.megatron_settings import check_learning_rate
from verl_ispo.preflight.model_shape import ModelShape, is_hub_id, read_model_shape, read_published_shape
from verl_ispo.preflight.output_folders import check_output_folders, check_output_paths
from verl_ispo.preflight.packages import check_engine_packages, check_gpu_count, check_versions
from verl_ispo.preflight.paper_settings import check_paper_settings
from verl_ispo.preflight.prompt_tokens import PromptReading, read_prompts
from verl_ispo.preflight.reference_policy import check_reference_policy
from verl_ispo.preflight.scorer import check_scorer
from verl_ispo.preflight.seeds import check_seeds
from verl_ispo.preflight.token_budgets import check_token_budgets
from verl_ispo.preflight.training_length import check_training_length
from verl_ispo.preflight.verl_features import check_refusals, check_support
from verl_ispo.preflight.verl_validation import check_with_verl
from verl_ispo.preflight.vllm_on_cpu import check_vllm_on_cpu
from verl_ispo.secret_values import redacted, redacted_overrides

MODEL_PATH = "actor_rollout_ref.model.path"
VERL_DEFAULT_MODEL = "~/models/deepseek-llm-7b-chat"

Check = tuple[str, Callable[[], Iterator[Finding]]]


def run(
    config_name: str,
    overrides: Sequence[str],
    check_ray: bool = True,
    dry_run: bool = False,
    gpu_memory_gib: float = 80.0,
    context_positions: int | None = None,
    config: DictConfig | None = None,
) -> int:
    """Run every check, print the findings, and return 1 if one of them would stop a training or change its meaning.

    Args:
        config_name (`str`): as in ``--config-name``.
        overrides (`Sequence[str]`): Hydra overrides, as for ``python -m verl.trainer.main_ppo``.
        check_ray (`bool`, *optional*, defaults to `True`): whether to check inside a Ray worker, which starts Ray.
        dry_run (`bool`, *optional*, defaults to `False`): the job will run elsewhere: Ray is left alone, what is wrong
            with this machine is a note, and the command to start the job is printed at the end.
        gpu_memory_gib (`float`, *optional*, defaults to `80.0`): memory of one GPU.
        context_positions (`int`, *optional*): positions of the copy of the model that the launcher will make, instead
            of the model's own.
        config (`DictConfig`, *optional*): already composed from these overrides.
    """
    findings: list[Finding] = []

    def report(checks: Sequence[Check], of_this_machine: bool = False) -> None:
        for name, check in checks:
            found = survived(name, check)
            for finding in as_notes(found) if dry_run and of_this_machine else found:
                print(redacted(f"{finding.level:>8}  {finding.subject}: {finding.text}", os.environ), flush=True)
                findings.append(finding)

    report(machine_checks(check_ray and not dry_run), of_this_machine=True)
    try:
        config = compose_config(config_name, overrides) if config is None else config
        preset = composed_preset(config_name, *preset_overrides(overrides))
    except Exception as error:  # Hydra has its own errors, those of the grammar and those of OmegaConf
        fault = Finding(PROBLEM, "config", f"{config_name} does not compose: {str(error).strip()}")
        report([("config", lambda: iter([fault]))])
    else:
        report([("config", lambda: iter([Finding(OK, "config", f"{config_name} composes")]))])
        report(config_checks(config, preset, gpu_memory_gib, context_positions))
        report(config_checks_of_this_machine(config), of_this_machine=True)
    problems = sum(finding.level == PROBLEM for finding in findings)
    print(f"\n{problems} problem(s)" if problems else "\nNothing stands in the way of a training.")
    if dry_run:
        print(f"\n{training_command(config_name, redacted_overrides(overrides))}")
    return 1 if problems else 0


def training_command(config_name: str, overrides: Sequence[str]) -> str:
    """The command that starts the training, quoted for a shell."""
    return shlex.join(["python", "-m", "verl.trainer.main_ppo", f"--config-name={config_name}", *overrides])


def machine_checks(check_ray: bool) -> list[Check]:
    """Checks that need no config."""
    checks: list[Check] = [
        ("versions", check_versions),
        ("devices", check_devices),
        ("registrations here", check_registrations),
    ]
    return [*checks, ("Ray worker", check_ray_worker)] if check_ray else checks


def config_checks(
    config: DictConfig, preset: DictConfig, gpu_memory_gib: float, context_positions: int | None = None
) -> list[Check]:
    """Checks of what a run is told to do, wherever it will run.

    Args:
        config (`DictConfig`): the composed config.
        preset (`DictConfig`): composed with the same preset and nothing else.
        gpu_memory_gib (`float`): memory of one GPU.
        context_positions (`int`, *optional*): as for `run`.
    """

    def shapes() -> tuple[ModelShape | None, ModelShape | None]:
        found = read_model_shape(config), read_published_shape(config)
        if context_positions is None:
            return found
        return tuple(shape and replace(shape, max_position_embeddings=context_positions) for shape in found)

    def parallelism() -> Parallelism:
        return read_parallelism(config)

    @cache
    def prompts() -> PromptReading:
        return read_prompts(config, shapes()[0])

    return [
        ("refusals", lambda: check_refusals(config)),
        ("reference policy", lambda: check_reference_policy(config)),
        ("paper's settings", lambda: check_paper_settings(config, preset)),
        ("data", lambda: check_data(config)),
        ("scorer", lambda: check_scorer(config)),
        (MODEL_PATH, lambda: check_model_path(config)),
        ("prompts", lambda: iter(prompts().findings)),
        ("length of the training", lambda: check_training_length(config, prompts().kept_rows)),
        ("context", lambda: check_context(config, *shapes())),
        ("parallel sizes", lambda: check_parallel_sizes(config, parallelism(), shapes()[0])),
        ("batch sizes", lambda: check_batch_sizes(config, parallelism())),
        ("token budgets", lambda: check_token_budgets(config, parallelism())),
        ("memory", lambda: check_memory(config, shapes()[0], parallelism(), gpu_memory_gib)),
        ("checkpoints", lambda: check_checkpoints(config)),
        ("learning rate", lambda: check_learning_rate(config)),
        ("output paths", lambda: check_output_paths(config)),
        ("loggers", lambda: check_loggers(config)),
        ("seeds", lambda: check_seeds(config)),
        ("vLLM on a CPU", lambda: check_vllm_on_cpu(config)),
        ("support", lambda: check_support(config, shapes()[0])),
        ("verl's own checks", lambda: check_with_verl(config)),
    ]


def config_checks_of_this_machine(config: DictConfig) -> list[Check]:
    """Checks of the config against this machine's packages, devices and disk."""

    def gpus() -> Iterator[Finding]:
        import torch

        return check_gpu_count(config, torch.cuda.device_count() if torch.cuda.is_available() else 0)

    return [
        ("engine packages", lambda: check_engine_packages(config)),
        ("logger packages", lambda: check_logger_packages(config)),
        ("GPUs", gpus if setting(config, "trainer.nnodes") == 1 else lambda: iter(())),
        ("memory", lambda: check_cpu_memory(config, read_model_shape(config), machine_memory_bytes())),
        ("output folders", lambda: check_output_folders(config)),
        ("disk", lambda: check_disk(config, read_model_shape(config), read_parallelism(config))),
    ]


def check_model_path(config: DictConfig) -> Iterator[Finding]:
    """That the model exists, or is a name of the model hub."""
    path = str(setting(config, MODEL_PATH))
    folder = Path(os.path.expanduser(path))
    if (folder / "config.json").is_file():
        yield Finding(OK, MODEL_PATH, path)
    elif folder.exists():
        yield Finding(PROBLEM, MODEL_PATH, f"{path} has no config.json; give the folder of a Hugging Face model")
    elif path == VERL_DEFAULT_MODEL:
        yield Finding(NOTE, MODEL_PATH, f"not given; verl's default is {path}")
    elif is_hub_id(path):
        yield Finding(NOTE, MODEL_PATH, f"{path} is not a folder here; verl will ask the model hub for it")
    else:
        yield Finding(PROBLEM, MODEL_PATH, f"{path} does not exist; give a folder, or organisation/name of the hub")


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
    """What ISPO should have registered with verl in this process, and has not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
        from verl.plugin.platform.platform_manager import PlatformRegistry
        from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
        from verl.workers.rollout.replica import RolloutReplicaRegistry

    expected = {
        **{f"advantage estimator {name}": name in ADV_ESTIMATOR_REGISTRY for name in methods()},
        **{
            f"policy loss {name}": name in POLICY_LOSS_REGISTRY
            for name, method in methods().items()
            if method.brings_a_loss
        },
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
