"""Batch and parallel sizes: what verl asserts after the workers have started, and what it pads silently.

Read in verl 0.9.1: `PPOTrainer.step` and ``_next_train_batch``, `PPOTrainerSeparateAsync`, `TrainingWorker
.train_mini_batch`, ``prepare_micro_batches``, `ActorRolloutRefWorker.init_model`, ``apply_monkey_patch``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from omegaconf import DictConfig

from verl_ispo.preflight.composition import Parallelism, runs_extra_forwards, setting
from verl_ispo.preflight.divisors import nearest_divisor, nearest_multiple
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding
from verl_ispo.preflight.megatron_settings import check_megatron_model
from verl_ispo.preflight.model_shape import ModelShape

ACTOR, ROLLOUT, REF = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.ref"
TRAIN, MINI = "data.train_batch_size", f"{ACTOR}.ppo_mini_batch_size"
SEPARATE = "ispo_separate_async"
SYNC_STEP = "trainer.v1.separate_async.parameter_sync_step"


def check_parallel_sizes(config: DictConfig, parallelism: Parallelism, shape: ModelShape | None) -> Iterator[Finding]:
    """Parallel sizes against the number of GPUs and of attention heads."""
    gpus = parallelism.gpus
    sizes = [*_model_parallel_keys(parallelism), (f"{ROLLOUT}.tensor_model_parallel_size", parallelism.replica)]
    faulty = [(key, size) for key, size in sizes if size < 1]
    for key, size in faulty:
        yield Finding(PROBLEM, key, f"takes {size} GPUs per model; set it to 1 or more")
    if faulty:
        return
    where = f"trainer.nnodes times trainer.n_gpus_per_node is {gpus}"
    for key, size in _model_parallel_keys(parallelism):
        if gpus % size:
            yield Finding(
                PROBLEM, key, f"takes {size} GPUs per model, but {where}; set a divisor of {gpus}, or change the GPUs"
            )
    if gpus % parallelism.replica:
        tensor = setting(config, f"{ROLLOUT}.tensor_model_parallel_size")
        yield Finding(
            PROBLEM,
            f"{ROLLOUT}.tensor_model_parallel_size",
            f"is {tensor}, so a rollout engine takes {parallelism.replica} GPUs, but {where}; set "
            f"{ROLLOUT}.tensor_model_parallel_size={nearest_divisor(gpus, tensor)}",
        )
    if shape is not None:
        yield from _check_heads(config, parallelism, shape)


def _model_parallel_keys(parallelism: Parallelism) -> list[tuple[str, int]]:
    if parallelism.is_megatron:
        sizes = "{tensor,pipeline}_model_parallel_size times context_parallel_size"
        return [(f"{ACTOR}.megatron.{sizes}", parallelism.model_parallel)]
    return [(f"{ACTOR}.ulysses_sequence_parallel_size", parallelism.ulysses)]


def _check_heads(config: DictConfig, parallelism: Parallelism, shape: ModelShape) -> Iterator[Finding]:
    heads, kv_heads, gpus = shape.num_attention_heads, shape.num_key_value_heads, parallelism.gpus
    for key, size in (
        (f"{ACTOR}.ulysses_sequence_parallel_size", parallelism.ulysses),
        (f"{ACTOR}.megatron.tensor_model_parallel_size", parallelism.tensor),
        (f"{ROLLOUT}.tensor_model_parallel_size", setting(config, f"{ROLLOUT}.tensor_model_parallel_size", 1)),
    ):
        if heads % size:
            yield Finding(
                PROBLEM,
                key,
                f"is {size}, which does not divide the model's {heads} attention heads; set "
                f"{nearest_divisor(math.gcd(heads, gpus), size)}",
            )
        elif kv_heads % size and size % kv_heads:
            yield Finding(
                PROBLEM,
                key,
                f"is {size}, and neither it nor the model's {kv_heads} key-value heads divides the other; set "
                f"{nearest_divisor(math.gcd(kv_heads, gpus), size)}",
            )
    yield from check_megatron_model(config, parallelism, shape)


def check_batch_sizes(config: DictConfig, parallelism: Parallelism) -> Iterator[Finding]:
    """Step, mini- and micro-batches against one another and against the data-parallel size."""
    train, mini, samples = setting(config, TRAIN), setting(config, MINI), setting(config, f"{ROLLOUT}.n")
    if samples == 1 and setting(config, "algorithm.adv_estimator") != "gae":
        yield Finding(NOTE, f"{ROLLOUT}.n", "is 1: a group of one has no group-relative advantage; the paper has 8")
    if samples > 1 and (setting(config, f"{ROLLOUT}.temperature") == 0 or setting(config, f"{ROLLOUT}.top_k") == 1):
        yield Finding(
            PROBLEM,
            f"{ROLLOUT}.temperature",
            f"is {setting(config, f'{ROLLOUT}.temperature')} and top_k {setting(config, f'{ROLLOUT}.top_k')}, so all "
            f"{samples} rollouts of a prompt are equal and no group has anything to learn from; set "
            f"{ROLLOUT}.temperature=1.0 and {ROLLOUT}.top_k=-1",
        )
    if parallelism.gpus % parallelism.model_parallel:
        return  # check_parallel_sizes reports it, and there is no data-parallel size to check the rest against
    yield from _check_sync_step(config, train, mini)
    yield from _check_gen_batch_size(config, train)
    if train % mini:
        rows = math.ceil(train / mini) * mini
        yield Finding(
            NOTE,
            MINI,
            f"is {mini} and {TRAIN} is {train}, not a multiple of it: verl fills every step up to {rows} prompts "
            "with empty "
            f"rows, which the forwards compute too; set {MINI}={nearest_divisor(train, mini)}",
        )
    rows, data = mini * samples, parallelism.data
    if rows % data:
        step = data // math.gcd(data, samples)
        yield Finding(
            PROBLEM,
            MINI,
            f"is {mini}, which makes {rows} rows with {ROLLOUT}.n={samples}, and they cannot be divided among {data} "
            f"data-parallel ranks; set {MINI} to a multiple of {step}, such as {nearest_multiple(step, mini)}",
        )
        return
    yield Finding(
        OK,
        "batch",
        f"{train} prompts x {samples} rollouts per step, {math.ceil(train / mini)} update(s) of {rows} rows on "
        f"{data} ranks",
    )
    passed = rows_per_pass(train // updates_per_step(config), mini, samples, data)
    yield from _check_micro_batches(config, rows // data, passed // data)


def updates_per_step(config: DictConfig) -> int:
    """Parts into which a step's batch is cut, each with its own log-probs and update (PPOTrainer.step): 1, but in the
    mode with rollouts on GPUs of their own.
    """
    separate = str(setting(config, "trainer.v1.trainer_mode")).removeprefix("ispo_") == "separate_async"
    return max(1, setting(config, SYNC_STEP, 1)) if separate else 1


def rows_per_pass(prompts: int, mini: int, samples: int, data: int) -> int:
    """Rows that a forward pass gets, after verl's padding (PPOTrainer._get_required_batch_multiple).

    Args:
        prompts (`int`): of the step, or of one of its parts.
        mini (`int`): prompts of a mini-batch.
        samples (`int`): rollouts per prompt.
        data (`int`): data-parallel size.
    """
    multiple = max(1, math.lcm(data, mini * samples))
    return math.ceil(prompts * samples / multiple) * multiple


def _check_sync_step(config: DictConfig, train: int, mini: int) -> Iterator[Finding]:
    if setting(config, "trainer.v1.trainer_mode") != SEPARATE:
        return
    step_key, step = SYNC_STEP, setting(config, SYNC_STEP, 1)
    if isinstance(step, bool) or not isinstance(step, int) or step < 1:
        yield Finding(PROBLEM, step_key, f"is {step!r}, and counts updates between two syncs; set {step_key}=1 or more")
        return
    if train != step * mini:
        remedy = f"set {MINI}={train // step}" if train % step == 0 else f"set {TRAIN}={step * mini}"
        yield Finding(
            PROBLEM,
            step_key,
            f"is {step} and {MINI} is {mini}, and with trainer_mode={SEPARATE} their product must be "
            f"{TRAIN}={train}; {remedy}",
        )
    for key, wanted in (("nnodes", "1"), ("n_gpus_per_node", "8")):
        if setting(config, f"{ROLLOUT}.{key}", 0) <= 0:
            yield Finding(
                PROBLEM,
                f"{ROLLOUT}.{key}",
                f"is {setting(config, f'{ROLLOUT}.{key}', 0)}, and trainer_mode={SEPARATE} samples on GPUs of "
                "its own; set "
                f"{ROLLOUT}.{key}={wanted}, for example",
            )
    backend = f"{ROLLOUT}.checkpoint_engine.backend"
    if setting(config, backend) == "naive":
        yield Finding(
            PROBLEM,
            backend,
            f"is naive, which cannot carry weights to other GPUs as trainer_mode={SEPARATE} must; set {backend}=nccl "
            "(backend=cpu: ray_mailbox)",
        )


def _check_gen_batch_size(config: DictConfig, train: int) -> Iterator[Finding]:
    generated = setting(config, "data.gen_batch_size", train)
    drawn_one_by_one = setting(config, "trainer.v1.trainer_mode") != "ispo_sync" or setting(
        config, "algorithm.filter_groups.enable", False
    )
    if not drawn_one_by_one and train % generated:
        yield Finding(
            PROBLEM,
            "data.gen_batch_size",
            f"is {generated}, which does not divide {TRAIN}={train}; set "
            f"data.gen_batch_size={nearest_divisor(train, generated)} "
            "or null",
        )


def _check_micro_batches(config: DictConfig, mini_rows: int, pass_rows: int) -> Iterator[Finding]:
    """Micro-batches by rows must divide what a rank has; those by tokens are in `token_budgets`.

    Args:
        mini_rows (`int`): rows of a mini-batch on one rank.
        pass_rows (`int`): rows of a step, or of one local update of it, on one rank.
    """
    by_tokens = bool(setting(config, f"{ACTOR}.use_dynamic_bsz"))
    log_prob_by_tokens = bool(setting(config, f"{ROLLOUT}.log_prob_use_dynamic_bsz"))
    if by_tokens != log_prob_by_tokens:
        yield Finding(
            PROBLEM,
            f"{ROLLOUT}.log_prob_use_dynamic_bsz",
            f"is {log_prob_by_tokens} and {ACTOR}.use_dynamic_bsz is {by_tokens}, which verl's workers refuse; "
            "set both alike "
            f"(left out, {ROLLOUT}.log_prob_use_dynamic_bsz follows)",
        )
    parts = updates_per_step(config)
    whose = "a step" if parts == 1 else f"a local update ({SYNC_STEP}={parts})"
    keys = []
    if not by_tokens:
        keys.append((f"{ACTOR}.ppo_micro_batch_size_per_gpu", mini_rows, "a mini-batch"))
    if not log_prob_by_tokens:
        keys.append((f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu", pass_rows, whose))
    if runs_extra_forwards(config) and not setting(config, f"{REF}.log_prob_use_dynamic_bsz", False):
        keys.append((f"{REF}.log_prob_micro_batch_size_per_gpu", pass_rows, whose))
    for key, rows, whose in keys:
        micro = setting(config, key)
        if micro is None:
            fits = nearest_divisor(rows, 8)
            yield Finding(
                PROBLEM,
                key,
                f"is null, and micro-batches are by rows; set {key}={fits}, or {ACTOR}.use_dynamic_bsz=true",
            )
        elif rows % micro:
            yield Finding(
                PROBLEM,
                key,
                f"is {micro}, but a rank has {rows} rows of {whose}, which it does not divide; set "
                f"{key}={nearest_divisor(rows, micro)}",
            )
