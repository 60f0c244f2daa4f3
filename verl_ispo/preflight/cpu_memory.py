"""Memory of a CPU training by role, and the micro-batches that fit: estimates, meant to tell 5 GiB from 15.

What is counted, in float32, for a model of P parameters:

- Actor: weights, gradients and two AdamW moments, 16 bytes per parameter over all workers.
- Reference policy: 4 bytes per parameter; none where it is the adapter switched off.
- Rollout server: its weights, those on their way to it, and the keys and values of all rollouts of a step.
- Update: per token of a micro-batch `LOGIT_COPIES` rows of the vocabulary (logits, their softmax, gradients) and what
  each layer keeps for the backward pass.
- Processes: `PROCESS_BYTES` for Ray, the driver, the workers and the queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from omegaconf import DictConfig

from verl_ispo.preflight.composition import longest_sequence, setting
from verl_ispo.preflight.finding import NOTE, OK, PROBLEM, Finding
from verl_ispo.preflight.gpu_memory import GIB, lora_rank
from verl_ispo.preflight.model_shape import ModelShape, parameter_count

PROCESS_BYTES = 3 * GIB
LOGIT_COPIES = 6
"""Float32 tensors of a micro-batch's tokens times the vocabulary at the peak of an update, and of a pass for log-probs
and entropies: measured on a model of 134 M parameters with a vocabulary of 49,152."""
LOGITS_SHARE = 0.2
"""Share of the machine's memory that a micro-batch's logits and layers may take, over all workers."""
_FLOAT_BYTES = 4
_SERVER_BYTES = {"float64": 8, "bfloat16": 2}
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


def machine_memory_bytes() -> float:
    """Memory of this machine, or of the container that this process is in."""
    total = float(psutil.virtual_memory().total)
    try:
        return min(total, float(_CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return total


def rows_that_fit(
    config: DictConfig, shape: ModelShape | None, rows: int, workers: int, memory_bytes: float, is_update: bool
) -> int:
    """Rows of a micro-batch: `rows`, halved until they fit into `LOGITS_SHARE` of the memory.

    Args:
        config (`DictConfig`): the composed config.
        shape (`ModelShape`, *optional*): of the model; without it `rows` is returned.
        rows (`int`): the most, a power of two.
        workers (`int`): that share the memory.
        memory_bytes (`float`): of the machine.
        is_update (`bool`): whether the pass has a backward pass.
    """
    if shape is None:
        return rows
    row_bytes = longest_sequence(config) * _token_bytes(shape, is_update)
    while rows > 1 and rows * row_bytes * workers > LOGITS_SHARE * memory_bytes:
        rows //= 2
    return rows


@dataclass(frozen=True)
class CPUMemory:
    """Bytes by role.

    Attributes:
        actor: weights, gradients and moments.
        reference: weights of the reference policy.
        server: weights, keys and values of the rollout server.
        update: of a micro-batch in the update, over all workers.
    """

    actor: float
    reference: float
    server: float
    update: float

    @property
    def total(self) -> float:
        """At the peak, which is the update: the server keeps its weights meanwhile."""
        return self.actor + self.reference + self.server + self.update + PROCESS_BYTES


def estimate_cpu_memory(config: DictConfig, shape: ModelShape) -> CPUMemory | None:
    """The memory by role; `None` for a model whose parameters are not counted here."""
    parameters = parameter_count(shape)
    if parameters is None:
        return None
    workers = setting(config, "trainer.nnodes") * setting(config, "trainer.n_gpus_per_node")
    rows = setting(config, f"{ACTOR}.ppo_micro_batch_size_per_gpu") or 1
    rollouts = setting(config, "data.train_batch_size") * setting(config, f"{ROLLOUT}.n")
    served = _SERVER_BYTES.get(str(setting(config, f"{ROLLOUT}.dtype")), _FLOAT_BYTES)
    cached = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * served
    length = longest_sequence(config)
    rank = lora_rank(config)
    return CPUMemory(
        actor=(4 if rank else 16) * parameters,
        reference=0 if rank else 4 * parameters,
        server=(served + _FLOAT_BYTES) * parameters + rollouts * length * cached,
        update=rows * workers * length * _token_bytes(shape, is_update=True),
    )


def check_cpu_memory(config: DictConfig, shape: ModelShape | None, memory_bytes: float) -> Iterator[Finding]:
    """The estimate against the memory of this machine; nothing for a training on GPUs.

    Args:
        config (`DictConfig`): the composed config.
        shape (`ModelShape`, *optional*): of the model.
        memory_bytes (`float`): of this machine.
    """
    if setting(config, "trainer.device") != "cpu" or shape is None:
        return
    memory = estimate_cpu_memory(config, shape)
    if memory is None:
        yield Finding(NOTE, "memory", f"not estimated for models of type {shape.model_type}")
        return
    key = f"{ACTOR}.ppo_micro_batch_size_per_gpu"
    text = (
        f"about {_gib(memory.total)} of this machine's {_gib(memory_bytes)}: actor {_gib(memory.actor)}, reference "
        f"{_gib(memory.reference)}, rollout server {_gib(memory.server)}, update {_gib(memory.update)} "
        f"({key}={setting(config, key)}), processes {_gib(PROCESS_BYTES)}"
    )
    if memory.total > memory_bytes:
        yield Finding(
            PROBLEM, "memory", f"{text}. Lower {key} or data.max_response_length, or take a smaller model or a GPU"
        )
    elif memory.total > 0.8 * memory_bytes:
        yield Finding(NOTE, "memory", f"{text}, which is tight")
    else:
        yield Finding(OK, "memory", text)


def _token_bytes(shape: ModelShape, is_update: bool) -> float:
    """Bytes of one token of a micro-batch at the peak."""
    logits = LOGIT_COPIES * shape.vocab_size * _FLOAT_BYTES
    if not is_update:
        return logits
    # kept per layer: inputs of norms and projections, attention's heads, the MLP's two halves and their product
    kept = 8 * shape.hidden_size + 4 * shape.intermediate_size
    return logits + shape.num_hidden_layers * kept * _FLOAT_BYTES


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
