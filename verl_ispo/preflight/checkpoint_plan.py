"""Checkpoints: whether there are any, whether the disk holds them, and whether the run would continue an older one."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from verl_ispo.preflight.composition import Parallelism, setting
from verl_ispo.preflight.data_files import training_rows
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding
from verl_ispo.preflight.gpu_memory import DTYPE_BYTES, GIB, lora_rank
from verl_ispo.preflight.model_shape import ModelShape, lora_parameter_count, parameter_count
from verl_ispo.runs.checkpoint_folder import megatron_sizes, resumption
from verl_ispo.user_error import UserError

ACTOR = "actor_rollout_ref.actor"


def checkpoint_bytes(config: DictConfig, shape: ModelShape, parallelism: Parallelism) -> float | None:
    """Size of one checkpoint by ``checkpoint.save_contents``, or `None` for a model whose parameters are not counted.

    FSDP writes weights, two moments and the hf_model in ``fsdp_config.model_dtype``; Megatron weights and hf_model in 2
    bytes, and 12 bytes of optimizer.
    """
    parameters = parameter_count(shape)
    if parameters is None:
        return None
    rank = lora_rank(config)
    trained = lora_parameter_count(shape, rank) if rank else parameters
    size = (
        2 if parallelism.is_megatron else DTYPE_BYTES.get(str(setting(config, f"{ACTOR}.fsdp_config.model_dtype")), 4)
    )
    optimizer = 12 if parallelism.is_megatron else 2 * size
    parts = {"model": size * parameters, "optimizer": optimizer * trained, "hf_model": size * parameters}
    contents = list(setting(config, f"{ACTOR}.checkpoint.save_contents", []))
    return float(sum(parts.get(str(name), 0) for name in contents))


def training_steps(config: DictConfig) -> int | None:
    """Steps of the run, `None` where the data does not say."""
    steps = setting(config, "trainer.total_training_steps")
    if steps is not None:
        return steps
    rows = training_rows(config)
    return (
        None
        if rows is None
        else setting(config, "trainer.total_epochs") * (rows // setting(config, "data.train_batch_size"))
    )


def checkpoints_on_disk(config: DictConfig, steps: int | None) -> int | None:
    """Most checkpoints at one time; `None` if all are kept and the number of steps is not known."""
    every, kept = setting(config, "trainer.save_freq"), setting(config, "trainer.max_actor_ckpt_to_keep")
    written = None if steps is None else math.ceil(steps / every)
    if kept is None:
        return written
    # verl deletes before it writes if it keeps two or more; a single one is deleted only after the next is written.
    most = max(2, kept)
    return most if written is None else min(most, written)


def check_checkpoints(config: DictConfig) -> Iterator[Finding]:
    """What will be saved, and whether this run would continue another one."""
    if setting(config, "trainer.save_freq", -1) <= 0:
        yield Finding(
            NOTE,
            "trainer.save_freq",
            f"is {setting(config, 'trainer.save_freq')}: nothing is saved, not even the last step. Set "
            "trainer.save_freq=20, for example",
        )
    yield from check_kept(config)
    yield from _check_resume(config)


def check_kept(config: DictConfig) -> Iterator[Finding]:
    """Checkpoints to keep, of which verl reads only a whole number from 1; anything else is no limit to it."""
    key = "trainer.max_actor_ckpt_to_keep"
    kept = setting(config, key)
    if kept is None or setting(config, "trainer.save_freq", -1) <= 0:
        return
    if isinstance(kept, bool) or not isinstance(kept, int) or kept < 1:
        yield Finding(
            PROBLEM,
            key,
            f"is {kept!r}, which verl takes for no limit: every checkpoint would stay; set {key}=2, or null to keep "
            "all of them",
        )
    elif kept == 1:
        yield Finding(
            NOTE,
            key,
            "is 1: a kill while a checkpoint is saved can leave none, since verl removes the old one before it records "
            f"the new; {key}=2 avoids that",
        )


def _check_resume(config: DictConfig) -> Iterator[Finding]:
    mode, folder = setting(config, "trainer.resume_mode"), Path(str(setting(config, "trainer.default_local_dir")))
    if mode == "resume_path":
        path = setting(config, "trainer.resume_from_path")
        if not isinstance(path, str) or "global_step_" not in path:
            yield Finding(
                PROBLEM,
                "trainer.resume_from_path",
                f"is {path}; with trainer.resume_mode=resume_path it must be a folder .../global_step_N",
            )
        elif not Path(path).is_dir():
            yield Finding(PROBLEM, "trainer.resume_from_path", f"{path} does not exist")
    elif mode == "auto":
        ranks = setting(config, "trainer.nnodes", 1) * setting(config, "trainer.n_gpus_per_node", 1)
        try:
            found = resumption(folder, ranks, megatron_sizes(setting(config, ACTOR)))
        except UserError as error:
            yield Finding(PROBLEM, "trainer.default_local_dir", str(error))
            return
        if found.step:
            note = f"{found.note}. " if found.note else f"{folder} has checkpoints. "
            yield Finding(
                NOTE,
                "trainer.default_local_dir",
                f"{note}The run continues after step {found.step}. For a new run set another trainer.experiment_name, "
                "or trainer.resume_mode=disable",
            )


def check_disk(config: DictConfig, shape: ModelShape | None, parallelism: Parallelism) -> Iterator[Finding]:
    """Free space for the checkpoints on this machine's disk."""
    folder = Path(str(setting(config, "trainer.default_local_dir")))
    if setting(config, "trainer.save_freq", -1) <= 0 or shape is None:
        return
    size = checkpoint_bytes(config, shape, parallelism)
    if size is None:
        return
    steps = training_steps(config)
    number = checkpoints_on_disk(config, steps)
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    contents = ", ".join(setting(config, f"{ACTOR}.checkpoint.save_contents"))
    one = f"a checkpoint is about {size / GIB:.1f} GiB ({contents})"
    how_many = "an unknown number of them" if number is None else f"up to {number} of them"
    text = f"{folder}: {one}, {how_many} at a time, and {free / GIB:.1f} GiB are free in {existing}"
    if free < size * (number or 1):
        yield Finding(
            PROBLEM,
            "trainer.default_local_dir",
            f"{text}. Set trainer.max_actor_ckpt_to_keep, a larger trainer.save_freq, another folder, or leave "
            "optimizer "
            f"out of {ACTOR}.checkpoint.save_contents (such a run cannot be resumed)",
        )
    else:
        yield Finding(NOTE if number is None else OK, "trainer.default_local_dir", text)
