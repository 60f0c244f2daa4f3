"""From options to the input of verl's main: Hydra overrides, and the config that they compose.

The config is composed once. What follows from its values (micro-batches on a CPU, the length penalty, the model with a
longer context) is added to both the overrides and that config, so that a dry run need not compose it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from verl_ispo.config.section import UnknownISPOKeyError
from verl_ispo.cpu.asked_together import samples_in_one_batch
from verl_ispo.cpu.environment import cpu_environment
from verl_ispo.launch.model_choice import MODEL_PATH_KEY
from verl_ispo.launch.ray_cluster import ray_overrides
from verl_ispo.launch.training_options import TrainingOptions
from verl_ispo.preflight.batch_sizes import rows_per_pass, updates_per_step
from verl_ispo.preflight.composition import compose_config, override_key, setting
from verl_ispo.preflight.cpu_memory import machine_memory_bytes, rows_that_fit
from verl_ispo.preflight.hydra_overrides import quoted, quoted_list
from verl_ispo.preflight.model_shape import read_model_shape
from verl_ispo.user_error import UserError

DUMP_FOLDER_KEY = "trainer.v1.ispo.dump_dir"
ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
OVERRIDE_CONFIG = "actor_rollout_ref.model.override_config"
POSITIONS_KEY, THETA_KEY = f"{OVERRIDE_CONFIG}.max_position_embeddings", f"{OVERRIDE_CONFIG}.rope_theta"
LENGTH_PENALTY = "reward.reward_kwargs.overlong_buffer_cfg"


@dataclass(frozen=True)
class LongerContext:
    """A context longer than the model's own, as set by a preset.

    Attributes:
        model (`str`): folder or hub name.
        positions (`int`): of the copy.
        rope_theta (`float`, *optional*): base frequency of the copy; the model's own where it is `None`.
    """

    model: str
    positions: int
    rope_theta: float | None

    def copy_in(self, folder: Path) -> Path:
        """The folder of the copy."""
        return folder.resolve() / f"{Path(self.model).name}-{self.positions}"


@dataclass(frozen=True)
class TrainingSettings:
    """The complete settings of a training.

    Attributes:
        config_name (`str`): for verl's ``--config-name``.
        launcher (`tuple[str, ...]`): overrides from the options; the arguments win over them.
        arguments (`tuple[str, ...]`): the user's own overrides.
        context (`tuple[str, ...]`): overrides for the copy of the model, which win over both.
        config (`DictConfig`): composed of all of them.
    """

    config_name: str
    launcher: tuple[str, ...]
    arguments: tuple[str, ...]
    context: tuple[str, ...]
    config: DictConfig

    @property
    def overrides(self) -> list[str]:
        """All overrides; later ones win."""
        return [*self.launcher, *self.arguments, *self.context]

    def steps(self, asked: int) -> int:
        """Training steps of the composed config, in which an override wins over the `asked` ones of the option."""
        return int(self.config.trainer.total_training_steps or asked)

    @property
    def response_length(self) -> int:
        """Longest response in tokens."""
        return int(self.config.data.max_response_length)


def training_environment(options: TrainingOptions, environment: Mapping[str, str]) -> dict[str, str]:
    """The training's environment, on a CPU with what the CPU back end needs."""
    return cpu_environment(environment) if options.on_cpu else dict(environment)


def training_settings(options: TrainingOptions, environment: Mapping[str, str]) -> TrainingSettings:
    """Compose the config of a training.

    Args:
        options (`TrainingOptions`): what to train.
        environment (`Mapping[str, str]`): of `training_environment`.

    Raises:
        UserError: if the config does not compose, for instance because of an unknown key.
    """
    config_name = "ispo_megatron_trainer" if options.engine == "megatron" else "ispo_trainer"
    launcher = [
        *model_and_data_overrides(options),
        *run_overrides(options),
        *engine_overrides(options),
        *ray_overrides(options.ray_address, options.on_cpu, environment, options.ray_env),
    ]
    config = composed(config_name, [*launcher, *options.arguments])
    chosen_by_user = {override_key(argument) for argument in options.arguments}
    for key, value in values_that_follow(options, config).items():
        launcher.append(f"{key}={value}")
        if key not in chosen_by_user:
            OmegaConf.update(config, key, value)
    return TrainingSettings(config_name, tuple(launcher), options.arguments, (), config)


def composed(config_name: str, overrides: list[str]) -> DictConfig:
    """`compose_config`, with errors as one sentence.

    Raises:
        UserError: with Hydra's message.
    """
    try:
        return compose_config(config_name, overrides)
    except (HydraException, OmegaConfBaseException, UnknownISPOKeyError, ModuleNotFoundError) as error:
        raise UserError(f"{config_name} does not compose: {str(error).strip()}") from error


def model_and_data_overrides(options: TrainingOptions) -> list[str]:
    """Method, model, files, seeds and grader."""
    return [
        f"method={options.method}",
        *options.choice.overrides(),
        f"data.train_files={quoted_list(options.files.train)}",
        f"data.val_files={quoted_list(options.files.validation)}",
        f"data.seed={options.seed}",
        f"{ROLLOUT}.seed={options.seed}",
        f"reward.custom_reward_function.path={quoted(options.reward)}",
    ]


def run_overrides(options: TrainingOptions) -> list[str]:
    """Sizes, lengths and folders of the run."""
    folder = options.folder
    return [
        f"trainer.nnodes={options.nnodes}",
        f"trainer.n_gpus_per_node={options.workers_per_node}",
        f"trainer.total_training_steps={options.steps}",
        # verl ends at whichever comes first; an epoch has at least one step
        f"trainer.total_epochs={options.steps}",
        f"trainer.save_freq={options.save_freq}",
        f"trainer.test_freq={options.test_freq}",
        f"trainer.max_actor_ckpt_to_keep={options.keep}",
        "trainer.v1.ispo.keep_over_starts=true",
        f"trainer.logger=[{options.loggers}]",
        "trainer.project_name=verl_ispo",
        f"trainer.experiment_name={quoted(f'{options.choice.name}-{options.method}-seed{options.seed}')}",
        f"trainer.default_local_dir={quoted(folder / 'checkpoints')}",
        "trainer.resume_mode=auto",
        f"{DUMP_FOLDER_KEY}={quoted(folder / 'dump')}",
        f"hydra.run.dir={quoted(folder)}",
        *(
            f"trainer.v1.ispo.{name}={float(value)!r}"
            for name in ("budget_tokens", "budget_gpu_hours")
            if (value := getattr(options, name)) is not None
        ),
    ]


def engine_overrides(options: TrainingOptions) -> list[str]:
    """Training back end and rollout engine."""
    if options.on_cpu:
        return [f"backend={options.rollout}"]
    overrides = [f"{ROLLOUT}.name={options.rollout}"]
    if options.rollout_tp is not None:
        overrides.append(f"{ROLLOUT}.tensor_model_parallel_size={options.rollout_tp}")
    # the reference does one forward pass per step, so its weights can stay in host memory (ours, as in verl's examples)
    if options.engine == "fsdp":
        return [*overrides, "actor_rollout_ref.ref.fsdp_config.param_offload=true"]
    recompute = f"{ACTOR}.megatron.override_transformer_config.recompute"
    return [
        *overrides,
        f"{ACTOR}.megatron.tensor_model_parallel_size={options.train_tp}",
        # like FSDP's gradient checkpointing, verl's default there: without it the activations of a 7B model do not fit
        # on 8 GPUs of 80 GB
        f"{recompute}_granularity=full",
        f"{recompute}_method=uniform",
        f"{recompute}_num_layers=1",
        "actor_rollout_ref.ref.megatron.param_offload=true",
    ]


def values_that_follow(options: TrainingOptions, config: DictConfig) -> dict[str, Any]:
    """Keys whose values depend on the whole config, including the arguments."""
    values: dict[str, Any] = {}
    if options.on_cpu:
        # micro-batches of a number of rows that divides a worker's share (packed ones need flash attention) and
        # fits into the machine's memory
        workers, rollouts = options.nnodes * options.workers_per_node, setting(config, f"{ROLLOUT}.n")
        update, step = setting(config, f"{ACTOR}.ppo_mini_batch_size"), setting(config, "data.train_batch_size")
        passed = rows_per_pass(step // updates_per_step(config), update, rollouts, workers)
        shape, memory_bytes = read_model_shape(config), machine_memory_bytes()
        for key, most, is_update in (
            (f"{ACTOR}.ppo_micro_batch_size_per_gpu", math.gcd(update * rollouts // workers, 64), True),
            (f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu", math.gcd(passed // workers, 128), False),
        ):
            values[key] = rows_that_fit(config, shape, most, workers, memory_bytes, is_update)
        if samples_in_one_batch(config):
            values[f"{ROLLOUT}.dtype"] = "float32"
    if setting(config, f"{LENGTH_PENALTY}.enable"):
        # DAPO's length penalty covers the last fifth of the response, as in its paper
        values[f"{LENGTH_PENALTY}.len"] = setting(config, "data.max_response_length") // 5
    return values


def longer_context(config: DictConfig) -> LongerContext | None:
    """The longer context that the config sets; `None` if it keeps the model's own."""
    positions = setting(config, POSITIONS_KEY)
    if positions is None:
        return None
    return LongerContext(str(setting(config, MODEL_PATH_KEY)), int(positions), setting(config, THETA_KEY))


def with_copied_model(settings: TrainingSettings, copy: Path | str | None) -> TrainingSettings:
    """The same training from a copy of the model whose config.json holds the longer context.

    verl's overrides of the context, which reach only some readers of that file, are removed.

    Args:
        settings (`TrainingSettings`): with a `longer_context`.
        copy (`Path`): the model to use; `None` keeps the present one.
    """
    config = settings.config.copy()
    overrides = []
    with open_dict(config):
        section = OmegaConf.select(config, OVERRIDE_CONFIG)
        for key in (POSITIONS_KEY, THETA_KEY):
            if setting(config, key) is not None:
                overrides.append(f"~{key}")
                del section[key.rsplit(".", 1)[1]]
        if copy is not None:
            overrides.append(f"{MODEL_PATH_KEY}={quoted(copy)}")
            OmegaConf.update(config, MODEL_PATH_KEY, str(copy))
    return replace(settings, context=tuple(overrides), config=config)
