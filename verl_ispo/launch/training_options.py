"""The options of ``verl-ispo train``, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from verl_ispo.launch.data_choice import DataFiles, check_files_exist, choose_data
from verl_ispo.launch.model_choice import ModelChoice, choose_model
from verl_ispo.launch.option_checks import check_choice, check_from_one, given
from verl_ispo.launch.ray_cluster import check_ray_address
from verl_ispo.launch.run_config import arguments_digest
from verl_ispo.launch.seed_and_loggers import check_loggers, check_seed
from verl_ispo.method_presets import method_names
from verl_ispo.runs.spent import Budget
from verl_ispo.secret_values import refuse_secrets
from verl_ispo.user_error import UserError

ENGINES = ("fsdp", "megatron")
CPU_ROLLOUTS = ("cpu", "cpu_vllm")
ROLLOUTS = ("vllm", "sglang", *CPU_ROLLOUTS)
SCREENS = ("log", "progress")
GRADER = "pkg://verl_ispo.grading.reward_function"


@dataclass(frozen=True)
class TrainingOptions:
    """One training: a model, a method, a seed; ``verl-ispo train --help`` says what each option is.

    Args:
        model (`str`): as for `choose_model`.
        model_path (`str`, *optional*): weights of a preset.
        model_copies (`Path`, *optional*, defaults to `runs/models`): folder for copies with a longer context.
        method (`str`, *optional*, defaults to `"ispo"`): a file of ``config/method``.
        data (`Path`, *optional*): folder of data, as for `choose_data`.
        train_files, val_files (`tuple[Path, ...]`, *optional*): parquet files instead.
        reward (`str`, *optional*): grader, ``pkg://a.module`` or a file.
        engine (`str`, *optional*, defaults to `"fsdp"`): one of `ENGINES`.
        rollout (`str`, *optional*, defaults to `"vllm"`): one of `ROLLOUTS`.
        nnodes (`int`, *optional*, defaults to `1`): nodes.
        gpus_per_node (`int`, *optional*): 8 where it is not given, 1 on a CPU.
        rollout_tp (`int`, *optional*): GPUs of one rollout engine; the preset's where it is not given.
        train_tp (`int`, *optional*, defaults to `2`): tensor parallel size of Megatron.
        seed (`int`, *optional*, defaults to `1`): of data order and rollouts.
        steps (`int`, *optional*, defaults to `1000`): training steps.
        budget_tokens, budget_gpu_hours (`float`, *optional*): the training ends at the first step at which one of them
            is spent (`verl_ispo.runs.spent`), after `steps` steps at the latest.
        save_freq, test_freq (`int`, *optional*, defaults to `50`): steps between checkpoints, between validations; -1
            for none.
        keep (`int`, *optional*, defaults to `2`): checkpoints to keep.
        grace_s (`int`, *optional*, defaults to `20`): seconds to save in after SIGTERM or Ctrl-C.
        loggers (`str`, *optional*, defaults to `"console,file"`): verl's, separated by commas.
        screen (`str`, *optional*, defaults to `"log"`): one of `SCREENS`.
        out (`Path`, *optional*): folder of the run.
        ray_address (`str`, *optional*): ``host:port`` of a running Ray cluster.
        ray_env (`tuple[str, ...]`, *optional*): more environment variables for its processes.
        change (`bool`, *optional*, defaults to `False`): resume a run with other settings than it was started with.
        dry_run, print_only (`bool`, *optional*, defaults to `False`): start nothing.
        arguments (`tuple[str, ...]`, *optional*): Hydra overrides, which win over all other options.

    Raises:
        UserError: if an option or a combination of options is invalid.
    """

    model: str
    model_path: str = ""
    model_copies: Path = Path("runs/models")
    method: str = "ispo"
    data: Path | None = None
    train_files: tuple[Path, ...] = ()
    val_files: tuple[Path, ...] = ()
    reward: str = GRADER
    engine: str = "fsdp"
    rollout: str = "vllm"
    nnodes: int = 1
    gpus_per_node: int | None = None
    rollout_tp: int | None = None
    train_tp: int = 2
    seed: int = 1
    steps: int = 1000
    budget_tokens: float | None = None
    budget_gpu_hours: float | None = None
    save_freq: int = 50
    keep: int = 2
    grace_s: int = 20
    test_freq: int = 50
    loggers: str = "console,file"
    screen: str = "log"
    out: Path | None = None
    ray_address: str = ""
    ray_env: tuple[str, ...] = ()
    change: bool = False
    dry_run: bool = False
    print_only: bool = False
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice("ENGINE", self.engine, ENGINES)
        check_choice("ROLLOUT", self.rollout, ROLLOUTS)
        check_choice("SCREEN", self.screen, SCREENS)
        check_choice("METHOD", self.method, method_names())
        for name in ("nnodes", "gpus_per_node", "rollout_tp", "train_tp", "steps", "keep"):
            value = getattr(self, name)
            if value is not None:
                check_from_one(name.upper(), value)
        if self.grace_s < 0:
            raise UserError(f"{given('GRACE_S', self.grace_s)} is below 0; set GRACE_S=0 to end at once")
        for name in ("budget_tokens", "budget_gpu_hours"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise UserError(f"{given(name.upper(), value)} is no budget; give a number above 0, such as 2e9")
            if value is not None and self.save_freq < 1:
                raise UserError(
                    f"{given(name.upper(), value)} with {given('SAVE_FREQ', self.save_freq)}: what is spent is counted "
                    "over starts in the checkpoints, and nothing would be saved; set SAVE_FREQ to 1 or more"
                )
        check_seed("SEED", self.seed)
        check_loggers(self.loggers, packages=False)
        _ = self.choice
        if self.on_cpu and self.engine != "fsdp":
            raise UserError(
                f"{given('ENGINE', self.engine)} needs GPUs; with {given('ROLLOUT', self.rollout)} set ENGINE=fsdp"
            )
        check_ray_address(self.ray_address)
        for argument in self.arguments:
            if argument.startswith("-"):
                raise UserError(
                    f"{argument} is not a Hydra override (key=value, +key=value, ~key); options of verl-ispo train go "
                    "before the overrides, and those of scripts/train.sh are environment variables, see --help"
                )
        refuse_secrets(self.arguments)
        _ = self.files

    def check_start(self) -> None:
        """Checks for a start, which a dry run or a printed command does not need.

        Raises:
            UserError: several nodes without a Ray cluster, a data file or the package of a logger that is not there.
        """
        if self.nnodes != 1 and not self.ray_address:
            raise UserError(
                f"{given('NNODES', self.nnodes)} needs a Ray cluster: start one with scripts/ray/ and set "
                "RAY_ADDRESS=host:port (--ray-address), or use scripts/slurm/train.sbatch"
            )
        check_files_exist(self.files)
        if not self.ray_address:  # else verl's main runs on another machine
            check_loggers(self.loggers, packages=True)

    @property
    def budget(self) -> Budget:
        """When it ends besides its steps."""
        return Budget(self.budget_tokens, self.budget_gpu_hours)

    @property
    def starts(self) -> bool:
        """Whether anything is started."""
        return not (self.dry_run or self.print_only)

    @cached_property
    def choice(self) -> ModelChoice:
        """The model's preset, weights and name."""
        return choose_model(self.model, self.model_path)

    @cached_property
    def files(self) -> DataFiles:
        """The files to train and to validate on."""
        return choose_data(self.data, self.train_files, self.val_files)

    @property
    def on_cpu(self) -> bool:
        """Whether the CPU back end is used."""
        return self.rollout in CPU_ROLLOUTS

    @property
    def workers_per_node(self) -> int:
        """GPUs of each node, or CPU workers."""
        return self.gpus_per_node or (1 if self.on_cpu else 8)

    @property
    def label(self) -> str:
        """The run's name in messages."""
        return f"{self.choice.name} {self.method} seed {self.seed}"

    @property
    def folder(self) -> Path:
        """The run's folder, absolute. The default one is another one for other overrides."""
        digest = arguments_digest(self.arguments)
        name = f"{self.method}-seed{self.seed}" + (f"-{digest}" if digest else "")
        default = Path("runs/train") / self.choice.name / name
        return (self.out or default).resolve()


def as_variables(options: TrainingOptions) -> dict[str, str]:
    """The options as the environment variables of scripts/train.sh, for a launcher that reads them."""
    variables = {}
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name == "arguments" or value is None:
            continue
        if isinstance(value, tuple):
            value = " ".join(map(str, value))
        variables[field.name.upper()] = str(int(value)) if isinstance(value, bool) else str(value)
    return variables
