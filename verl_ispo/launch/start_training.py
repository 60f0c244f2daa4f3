"""``verl-ispo train``: print the command, check it, or run it to its end."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf

from verl_ispo.atomic_file import write_text
from verl_ispo.cpu.fork_server import fork_server, forked_python_command, has_fork_server, py_executable
from verl_ispo.cpu.forked_python import SOCKET_VARIABLE
from verl_ispo.launch.logger_places import logger_variables
from verl_ispo.launch.longer_context import ContextError, extend
from verl_ispo.launch.ray_cluster import passed_secrets, passed_variable, use_token
from verl_ispo.launch.run_config import check_config
from verl_ispo.launch.run_folder import (
    StartFiles,
    check_identity,
    latest_checkpoint,
    locked,
    next_start,
    note_done,
    steps_done,
    steps_trained,
    write_run,
)
from verl_ispo.launch.stop_reason import last_lines, stop_reason
from verl_ispo.launch.training_options import TrainingOptions
from verl_ispo.launch.training_process import killed_by, run_process
from verl_ispo.launch.training_progress import show_bar, show_log
from verl_ispo.launch.training_settings import (
    TrainingSettings,
    longer_context,
    training_environment,
    training_settings,
    with_copied_model,
)
from verl_ispo.launch.unwritable_home import stand_ins
from verl_ispo.preflight.hydra_overrides import quoted
from verl_ispo.preflight.training_length import data_end
from verl_ispo.runs.checkpoint_folder import ask_to_stop, forget_stop, megatron_sizes, noted_step, resumption
from verl_ispo.runs.spent import Budget, Spent, latest_spent
from verl_ispo.secret_values import FILE_VARIABLE, redacted_overrides, write_secrets

METRICS_VARIABLE = "VERL_FILE_LOGGER_PATH"
"""Where verl's file logger writes."""

FULL_BELOW_BYTES = 1 << 20
"""A disk with less free space counts as full after a failure: a last small write may still fit where a file did not."""

SECRETS_FILE = ".secrets.json"
"""In OUT, during a start on a Ray cluster that is already running."""


def train(options: TrainingOptions) -> int:
    """Run the command.

    Returns:
        `int`: exit status. 0: the steps are done (or a dry run found no problem); 1: it stopped early, or a dry run
        found a problem; 128 plus a signal's number: that signal ended it.

    Raises:
        UserError: a fault in options, files or folders.
    """
    if options.starts:
        options.check_start()
    if options.choice.note:
        print(options.choice.note, file=sys.stderr)
    environment = training_environment(options, os.environ)
    for name in (METRICS_VARIABLE, FILE_VARIABLE):  # each start sets its own
        environment.pop(name, None)
    settings = training_settings(options, environment)
    if options.print_only:
        print(shlex.join(redacted_overrides(training_command(named_copy(options, settings)))))
        return 0
    if options.dry_run:
        return preflight(options, settings, environment)
    with locked(options.folder) as lock:
        return _start(options, settings, environment, lock)


def training_command(settings: TrainingSettings, started_overrides: tuple[str, ...] = ()) -> list[str]:
    """The command of verl's main.

    Args:
        settings (`TrainingSettings`): what to train.
        started_overrides (`tuple[str, ...]`, *optional*): of this start alone, before the user's.
    """
    overrides = [*settings.launcher, *started_overrides, *settings.arguments, *settings.context]
    return [sys.executable, "-m", "verl.trainer.main_ppo", f"--config-name={settings.config_name}", *overrides]


def named_copy(options: TrainingOptions, settings: TrainingSettings) -> TrainingSettings:
    """The settings with the path that a start's copy of the model will have; nothing is written."""
    wanted = longer_context(settings.config)
    return settings if wanted is None else with_copied_model(settings, wanted.copy_in(options.model_copies))


def made_copy(options: TrainingOptions, settings: TrainingSettings, local_only: bool = False) -> TrainingSettings:
    """The settings with a copy of the model that has the longer context; the copy is made if needed.

    Raises:
        ContextError: the model is not there, or cannot be extended.
    """
    wanted = longer_context(settings.config)
    if wanted is None:
        return settings
    copy = wanted.copy_in(options.model_copies)
    folder, note = extend(wanted.model, copy, wanted.positions, wanted.rope_theta, local_only)
    if note and not local_only:
        print(note, file=sys.stderr)
    return with_copied_model(settings, folder)


def preflight(options: TrainingOptions, settings: TrainingSettings, environment: Mapping[str, str]) -> int:
    """`verl-ispo doctor --no-ray --dry-run` on these settings; nothing is started or downloaded."""
    os.environ.update(environment)  # verl reads its platform when it is imported
    from verl_ispo import doctor

    positions = None
    try:
        settings = made_copy(options, settings, local_only=True)
    except ContextError:
        # a model that is not on this machine is copied at the start, on the machine that trains
        positions = longer_context(settings.config).positions
        settings = with_copied_model(settings, None)
    return doctor.run(
        settings.config_name,
        settings.overrides,
        check_ray=False,
        dry_run=True,
        context_positions=positions,
        config=settings.config,
    )


def _start(options: TrainingOptions, settings: TrainingSettings, environment: dict[str, str], lock: int) -> int:
    """Train, with the folder's lock held."""
    folder = options.folder
    identity = {"MODEL": options.choice.identity, "METHOD": options.method, "SEED": str(options.seed)}
    check_identity(folder, identity)
    files = next_start(folder)
    check_config(folder, settings.config, options.change, files.number, latest_checkpoint(folder) or 0)
    done, wanted = steps_done(folder), settings.steps(options.steps)
    if done >= wanted:
        print(f"{folder}: its {done} steps are done; for more steps set STEPS (--steps), for another run OUT (--out)")
        return 0
    budget = Budget.of_section(settings.config.trainer.v1.ispo)
    checkpoints = Path(settings.config.trainer.default_local_dir)
    if (spent := latest_spent(checkpoints)) is not None and budget.is_spent(spent):
        done = max(done, noted_step(checkpoints) or 0)
        note_done(folder, done)
        print(f"{folder}: its budget of {budget} is spent after {done} steps ({spent}); for more set a larger one")
        return 0
    end = data_end(settings.config)
    if end is not None:
        print(f"the training will end after step {end[0]}: {end[1]}", file=sys.stderr)
    settings = _resuming(settings)
    settings = made_copy(options, settings)
    own = {METRICS_VARIABLE: str(files.metrics)}
    own |= logger_variables(folder, settings.config.trainer.logger, environment)
    secrets_file, secrets = folder / SECRETS_FILE, passed_secrets(environment, options.ray_env)
    passed: tuple[str, ...] = ()
    if options.ray_address:
        use_token(environment)
        own |= {FILE_VARIABLE: str(secrets_file)} if secrets else {}
        passed = tuple(passed_variable(name, value) for name, value in own.items())
    else:
        own |= stand_ins(folder, environment)
    command = training_command(settings, passed)
    write_run(folder, identity, settings.response_length, options.steps)
    write_text(files.command, shlex.join(redacted_overrides(command)) + "\n")
    print(f"{options.label}: start {files.number}, log {files.log}", flush=True)
    screen = show_log(files.log) if options.screen == "log" else _bar(options, files)
    forget_stop(checkpoints)
    try:
        if FILE_VARIABLE in own:
            write_secrets(secrets_file, secrets)
        with _forking(options, {**environment, **own}) as forking:
            ending = run_process(
                _forked(command, settings) if has_fork_server(forking) else command,
                forking,
                files.log,
                screen,
                inherited=[lock],
                ask_to_end=lambda: _ask_to_save(options, settings, files, checkpoints),
            )
    finally:
        secrets_file.unlink(missing_ok=True)
        forget_stop(checkpoints)
    if ending.asked_by is not None:
        print(f"{options.label}: ended as asked; {_resumes(options)}", file=sys.stderr)
        return 128 + ending.asked_by
    if ending.status != 0:
        _say_why(options, files.log, ending.status)
        return 1
    trained = 0 if settings.config.trainer.val_only else steps_trained(files.metrics, folder, otherwise=wanted)
    note_done(folder, max(done, trained))
    if trained < wanted:
        why = _ended_early(settings, budget, latest_spent(checkpoints))
        print(f"{options.label}: ended after step {max(done, trained)} of {wanted}{why} ({folder})")
        return 0
    print(f"{options.label}: done ({folder})")
    return 0


def _forking(options: TrainingOptions, environment: dict[str, str]) -> AbstractContextManager[dict[str, str]]:
    """On a CPU with a Ray of its own, a server that forks the training's processes; its name is in the environment."""
    own_ray = options.on_cpu and not options.ray_address
    return fork_server(environment) if own_ray else nullcontext({**environment, SOCKET_VARIABLE: ""})


def _forked(command: list[str], settings: TrainingSettings) -> list[str]:
    """The same command with the driver, and Ray's workers unless the user has another Python for them, as forks."""
    workers = []
    if OmegaConf.select(settings.config, "ray_kwargs.ray_init.runtime_env.py_executable") is None:
        workers = [f"+ray_kwargs.ray_init.runtime_env.py_executable={quoted(py_executable())}"]
    return [*forked_python_command(), *command[1:], *workers]


def _ask_to_save(options: TrainingOptions, settings: TrainingSettings, files: StartFiles, checkpoints: Path) -> float:
    """Ask the trainer to save at the end of its step; returns the seconds to wait for it, 0 where nothing would be."""
    trainer = settings.config.trainer
    is_ours = str(trainer.v1.trainer_mode).startswith("ispo_")
    logs_to_file = "file" in trainer.logger
    has_begun = not logs_to_file or (files.metrics.exists() and files.metrics.stat().st_size > 0)
    if not options.grace_s or not is_ours or trainer.save_freq <= 0 or trainer.val_only or not has_begun:
        return 0.0
    ask_to_stop(checkpoints)
    print(
        f"{options.label}: saving at the end of this step, for at most {options.grace_s} s (GRACE_S); a second signal "
        "ends it at once",
        file=sys.stderr,
        flush=True,
    )
    return float(options.grace_s)


def _resuming(settings: TrainingSettings) -> TrainingSettings:
    """The settings of a start that resumes from the newest whole checkpoint.

    Raises:
        UserError: there are checkpoints, and none can be resumed with these settings.
    """
    trainer, strategy = settings.config.trainer, settings.config.actor_rollout_ref.actor.strategy
    if trainer.resume_mode == "disable" or strategy not in ("fsdp", "fsdp2", "megatron"):
        return settings
    sizes = megatron_sizes(settings.config.actor_rollout_ref.actor)
    found = resumption(Path(trainer.default_local_dir), trainer.nnodes * trainer.n_gpus_per_node, sizes)
    if found.note:
        print(found.note, file=sys.stderr)
    if trainer.resume_mode == "resume_path" and found.step:
        print(
            f"the run has a checkpoint of step {found.step} of its own, so it resumes from there and not from "
            f"trainer.resume_from_path={trainer.resume_from_path}",
            file=sys.stderr,
        )
        return replace(settings, context=(*settings.context, "trainer.resume_mode=auto"))
    return settings


def _ended_early(settings: TrainingSettings, budget: Budget, spent: Spent | None) -> str:
    """What in the settings ends a training before its steps."""
    if settings.config.trainer.val_only:
        return ": trainer.val_only=true only validates"
    if spent is not None and budget.is_spent(spent):
        return f": its budget of {budget} is spent ({spent})"
    return f": the data end after trainer.total_epochs={settings.config.trainer.total_epochs}"


def _bar(options: TrainingOptions, files: StartFiles) -> Iterator[None]:
    return show_bar(files.metrics, options.steps, f"{options.method} seed {options.seed}")


def _say_why(options: TrainingOptions, log: Path, status: int) -> None:
    """Print why a training failed, where to look, and what the same command does."""
    if options.screen == "progress":
        print(last_lines(log), file=sys.stderr)
    sys.stdout.flush()
    reason = _full_disk(options.folder) or stop_reason(log) or killed_by(status)
    print(f"{options.label} stopped with status {status}{f': {reason}' if reason else ''}", file=sys.stderr)
    print(f"see {log}; {_resumes(options)}", file=sys.stderr)


def _full_disk(folder: Path) -> str:
    """That the disk of a folder is full, which no log can say that lies there; empty if it is not."""
    free = shutil.disk_usage(folder).free
    if free >= FULL_BELOW_BYTES:
        return ""
    return f"the disk of {folder} is full ({free} bytes are free); free some space there"


def _resumes(options: TrainingOptions) -> str:
    """What the same command does next."""
    step = latest_checkpoint(options.folder)
    if step is None:
        return "there is no checkpoint yet, the same command starts from the beginning"
    return f"the same command resumes from the checkpoint of step {step}"
